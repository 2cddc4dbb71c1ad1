"""The model equals the original, number for number."""

import numpy as np
import pytest
import torch
from model_goldens import all_cases, greedy, load_case, load_model

CASES = all_cases()
WITH_IMAGES = [(variant, name) for variant, name in CASES if name.startswith(("img", "noise"))]
ATTENTION = ("eager", "sdpa")
ROWS = [0, 1, 23, 24, 287, 575]


def worst(ours, golden):
    return float(np.abs(ours.detach().numpy() - golden).max())


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("variant", "name"), WITH_IMAGES)
def test_vision_tower_and_projector(variant, name, attention):
    _, arrays, inputs = load_case(variant, name)
    embedding = load_model(variant, attention).model.vision_embed_tokens
    counts = [1 + (height // 336) * (width // 336) for height, width in inputs["image_sizes"].tolist()]
    crops = torch.cat([picture[:count] for picture, count in zip(inputs["pixel_values"], counts)])
    with torch.no_grad():
        patches = embedding.img_processor(crops)
        tokens = embedding(inputs["pixel_values"], inputs["image_sizes"])
    assert worst(patches[:, ROWS], arrays["vit_rows"]) < 5e-5
    stats = torch.stack([patches.mean((1, 2)), patches.std((1, 2)), patches.abs().mean((1, 2))], dim=-1)
    assert worst(stats, arrays["vit_stats"]) < 5e-5
    assert [len(one) for one in tokens] == arrays["num_img_tokens"].tolist()
    assert worst(torch.cat(tokens)[arrays["proj_idx"]], arrays["proj_rows"]) < 5e-5
    sums = torch.stack([torch.stack([one.double().sum(), one.double().abs().sum()]) for one in tokens])
    assert np.allclose(sums.numpy(), arrays["proj_stats"], rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("variant", "name"), CASES)
def test_hidden_states_and_logits(variant, name, attention):
    _, arrays, inputs = load_case(variant, name)
    with torch.no_grad():
        out = load_model(variant, attention)(**inputs, output_hidden_states=True, use_cache=False)
    hidden = torch.stack([layer[:, -8:] for layer in out.hidden_states], dim=1)
    assert worst(hidden, arrays["hidden_last8"]) < 1e-4
    difference = worst(out.logits[:, -8:], arrays["logits_last8"])
    assert difference < (2e-5 if "image_sizes" not in inputs and attention == "eager" else 2e-4)
    real = arrays["attention_mask"] == 1
    assert (out.logits.argmax(-1).numpy()[real] == arrays["logits_argmax"][real]).all()
    assert np.abs(out.logits.amax(-1).numpy() - arrays["logits_max"])[real].max() < 2e-4


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("variant", "name"), CASES)
def test_greedy_generation(variant, name, attention):
    """Across the longrope boundary the values are those of a recomputed cache, pictures included."""
    _, arrays, inputs = load_case(variant, name)
    kind = "_recompute" if "gen_tokens_recompute" in arrays else ""
    tokens, logits = greedy(load_model(variant, attention), inputs, arrays["gen_tokens"].shape[1])
    assert tokens.tolist() == arrays["gen_tokens" + kind].tolist()
    assert worst(logits, arrays["gen_logits" + kind]) < 2e-4
