"""Loading and saving: the published names, quietly, through every Auto class, from safetensors only."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from model_goldens import GOLDEN, VARIANTS, formula_image, load_case, load_model, real_folder
from random_model import make_folder
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from phi3v_helpers.model import Phi3VConfig, Phi3VForCausalLM, Phi3VImageProcessor, Phi3VProcessor
from phi3v_helpers.model.modeling import LongRope

CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
PROMPT = "<|user|>\n<|image_1|>\nWhat is this?<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(make_folder(tmp_path_factory.mktemp("random")))


@pytest.fixture
def complaints():
    """Warnings and errors that transformers logs while the test runs."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    yield messages
    logging.getLogger("transformers").removeHandler(handler)


def keys_of(path):
    with safe_open(path / "model.safetensors", "pt") as file:
        return {key: file.get_slice(key).get_shape() for key in file.keys()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_it_is_the_same(variant, tmp_path, complaints):
    model, info = AutoModelForCausalLM.from_pretrained(
        GOLDEN / variant, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert complaints == []
    model.eval().save_pretrained(tmp_path)
    assert keys_of(tmp_path) == keys_of(GOLDEN / variant)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    inputs = load_case(variant, "img1_c4" if variant == "tiny-phi35v" else "noise_1img")[2]
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_a_model_made_from_nothing_has_the_published_names(tmp_path):
    config = AutoConfig.from_pretrained(GOLDEN / "tiny-phi3v")
    Phi3VForCausalLM(config).save_pretrained(tmp_path)
    assert keys_of(tmp_path) == keys_of(GOLDEN / "tiny-phi3v")
    config.tie_word_embeddings = True
    Phi3VForCausalLM(config).save_pretrained(tmp_path / "tied")
    assert set(keys_of(tmp_path)) - set(keys_of(tmp_path / "tied")) == {"lm_head.weight"}
    tied = Phi3VForCausalLM.from_pretrained(tmp_path / "tied")
    assert tied.lm_head.weight is tied.model.embed_tokens.weight


def test_the_real_model_has_its_own_names_and_size():
    real = real_folder() / "Phi-3-vision-128k-instruct"
    published = json.loads((real / "weight_keys.json").read_text())
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(real), dtype=torch.bfloat16)
    assert sorted(model.state_dict()) == sorted(published["keys"])
    assert sum(weight.numel() for weight in model.parameters()) * 2 == published["total_size"]


@pytest.mark.parametrize("name", ["Phi-3-vision-128k", "Phi-3.5-vision"])
@pytest.mark.parametrize("regime", ["short", "long"])
def test_rotary_embedding_of_the_real_models(name, regime):
    golden = np.load(real_folder() / "rope.npz")
    golden = {key.split("__")[-1]: golden[key] for key in golden if key.startswith(f"{name}__{regime}__")}
    rope = LongRope(AutoConfig.from_pretrained(real_folder() / f"{name}-instruct"))
    positions = torch.from_numpy(golden["positions"])[None]
    cos, sin = rope(torch.zeros(1), positions)
    assert (
        np.abs(
            rope.frequencies(torch.device("cpu"))[int(regime == "long")].numpy() - golden["inv_freq"]
        ).max()
        < 1e-6
    )
    assert np.abs(cos[0].numpy() - golden["cos"]).max() < 1e-6
    assert np.abs(sin[0].numpy() - golden["sin"]).max() < 1e-6


def test_pickled_weights_are_refused(tmp_path):
    model = load_model("tiny-phi3v", "sdpa")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="safetensors"):
        Phi3VForCausalLM.from_pretrained(tmp_path, use_safetensors=False)


def test_auto_classes(folder, complaints):
    for auto in (AutoModelForCausalLM, AutoModelForImageTextToText):
        assert type(auto.from_pretrained(folder)) is Phi3VForCausalLM
    assert type(AutoConfig.from_pretrained(folder)) is Phi3VConfig
    assert type(AutoProcessor.from_pretrained(folder)) is Phi3VProcessor
    assert type(AutoImageProcessor.from_pretrained(folder)) is Phi3VImageProcessor
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>\nHi<|end|>\n<|assistant|>\n"
    assert complaints == []


def test_remote_code_of_the_published_files_is_not_wanted(folder, tmp_path):
    """The published folders name code of their own; ours is there, so nobody is asked to trust it."""
    for name in ("config.json", "preprocessor_config.json"):
        settings = json.loads((Path(folder) / name).read_text())
        settings["auto_map"] = {"AutoConfig": "x.X", "AutoModelForCausalLM": "x.X", "AutoProcessor": "x.X"}
        settings["auto_map"]["AutoImageProcessor"] = "x.X"
        settings["processor_class"] = "Phi3VProcessor"
        (tmp_path / name).write_text(json.dumps(settings))
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(Path(folder) / name)
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is Phi3VForCausalLM
    assert type(AutoProcessor.from_pretrained(tmp_path)) is Phi3VProcessor
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is Phi3VImageProcessor
    assert type(Phi3VProcessor.from_pretrained(tmp_path, trust_remote_code=True)) is Phi3VProcessor
    assert type(Phi3VForCausalLM.from_pretrained(tmp_path, trust_remote_code=True)) is Phi3VForCausalLM


def test_the_lines_of_the_published_tutorial(folder):
    pictures = [formula_image(300, 200, 1), formula_image(90, 200, 2)]
    user_prompt, assistant_prompt, prompt_suffix = "<|user|>\n", "<|assistant|>\n", "<|end|>\n"
    question = "What is difference in this two images?"
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype="auto")
    for tags, images in (("<|image_1|>\n", pictures[0]), ("<|image_1|>\n<|image_2|>\n ", pictures)):
        prompt = f"{user_prompt}{tags}{question}{prompt_suffix}{assistant_prompt}"
        inputs = processor(prompt, images, return_tensors="pt").to("cpu")
        ids = model.generate(**inputs, max_new_tokens=10, eos_token_id=processor.tokenizer.eos_token_id)
        ids = ids[:, inputs["input_ids"].shape[1] :]
        answer = processor.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]
        assert isinstance(answer, str)
        assert 1 <= ids.shape[1] <= 10


def test_the_pipeline(folder, complaints):
    picture = formula_image(300, 200, 1)
    pipe = pipeline("image-text-to-text", model=folder)
    assert not any("not supported" in message for message in complaints)
    chat = [{"role": "user", "content": [{"type": "image", "image": picture}, CHAT[0]["content"][1]]}]
    settings = {"max_new_tokens": 4, "return_full_text": False}
    answer = pipe(text=chat, **settings)[0]["generated_text"]
    assert pipe(images=picture, text=PROMPT, **settings)[0]["generated_text"] == answer
    both = pipe(images=[picture, picture], text=[PROMPT, PROMPT], **settings)
    assert [one["generated_text"] for one in both] == [answer, answer]
    said = pipe(text=chat, max_new_tokens=4)[0]["generated_text"]
    assert said[-1] == {"role": "assistant", "content": answer}
