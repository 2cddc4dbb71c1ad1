"""The config reads what was published, and writes the same layout."""

import copy
import json

import pytest
from model_goldens import GOLDEN, VARIANTS, real_folder
from transformers import AutoConfig

from phi3v_helpers.model import Phi3VConfig

REAL = ("Phi-3-vision-128k-instruct", "Phi-3.5-vision-instruct")


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_layout_survives_a_round_trip(variant, tmp_path):
    published = json.loads((GOLDEN / variant / "config.json").read_text())
    config = AutoConfig.from_pretrained(GOLDEN / variant)
    assert type(config) is Phi3VConfig
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    dropped = {"_name_or_path", "auto_map", "_attn_implementation", "torch_dtype", "transformers_version"}
    for key in set(published) - dropped:
        assert saved[key] == published[key], key
    assert not dropped - {"transformers_version"} & set(saved)
    again = AutoConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == config.to_diff_dict()
    assert again.rope_parameters == config.rope_parameters


@pytest.mark.parametrize("name", REAL)
def test_real_configs(name):
    config = AutoConfig.from_pretrained(real_folder() / name)
    assert config.rope_parameters["rope_type"] == "longrope"
    assert (config.vision_config.hidden_size, config.vision_config.num_hidden_layers) == (1024, 24)
    assert (config.image_token_id, config.eos_token_id) == (32044, [32007, 32000])
    assert config.tokens_per_crop_side == 12
    assert config._attn_implementation is None


def test_defaults_are_those_of_the_real_model():
    config = Phi3VConfig()
    assert (config.image_token_id, config.eos_token_id) == (32044, [32007, 32000])
    assert config.num_image_tokens(672, 672) == 757
    assert config.num_image_tokens(1344, 1344) == 2509
    assert config.img_processor["num_img_tokens"] == 144


def test_sizes_are_free():
    config = Phi3VConfig(vision_config={"patch_size": 24, "hidden_size": 192, "num_attention_heads": 3})
    assert config.tokens_per_crop_side == 7
    assert config.num_image_tokens(336, 336) == 113


def test_it_can_be_copied():
    config = Phi3VConfig(vocab_size=700, pad_token_id=0, eos_token_id=[3, 4], image_token_id=5)
    for twin in (copy.deepcopy(config), Phi3VConfig.from_dict(config.to_dict())):
        assert twin.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rope_scaling": {"type": "yarn", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}}, "yarn"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "hd_transform_order"),
        ({"vision_config": {"patch_size": 16}}, "patch"),
        ({"vision_config": {"patch_size": 112}}, "even"),
        ({"vision_config": {"num_hidden_layers": 1}}, "num_hidden_layers"),
        ({"vocab_size": 700}, "pad_token_id"),
    ],
)
def test_what_does_not_fit_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Phi3VConfig(**settings)
