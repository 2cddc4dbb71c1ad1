"""What the model does around the numbers: batches, pictures in their places, what is run and what is not."""

import functools

import pytest
import torch
from model_goldens import GOLDEN, greedy, load_case, load_model
from transformers import LogitsProcessor

from phi3v_helpers.model import Phi3VForCausalLM

IMAGE_TOKEN = 511  # any id that the golden prompts do not use


@functools.lru_cache
def with_image_token():
    """A model that knows a positive image token; the vocabulary of the goldens is too small for 32044."""
    return Phi3VForCausalLM.from_pretrained(
        GOLDEN / "tiny-phi3v", dtype=torch.float32, image_token_id=IMAGE_TOKEN
    ).eval()


def model_inputs(variant, name, *left_out):
    return {key: value for key, value in load_case(variant, name)[2].items() if key not in left_out}


def logits_of(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


def left_padded(rows):
    """A batch of the inputs of single prompts."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    batch = {"input_ids": torch.zeros(len(rows), longest, dtype=torch.long)}
    batch["attention_mask"] = torch.zeros_like(batch["input_ids"])
    for index, row in enumerate(rows):
        batch["input_ids"][index, longest - row["input_ids"].shape[1] :] = row["input_ids"][0]
        batch["attention_mask"][index, longest - row["input_ids"].shape[1] :] = 1
    pictures = [row for row in rows if "pixel_values" in row]
    if pictures:
        crops = max(row["pixel_values"].shape[1] for row in pictures)
        batch["pixel_values"] = torch.cat([widened(row["pixel_values"], crops) for row in pictures])
        batch["image_sizes"] = torch.cat([row["image_sizes"] for row in pictures])
    return batch


def widened(pixels, crops):
    gap = torch.zeros(len(pixels), crops - pixels.shape[1], *pixels.shape[2:])
    return torch.cat([pixels, gap], dim=1)


# ---- places ---------------------------------------------------------------------------------------------


def test_positive_image_tokens_equal_negative_ones():
    inputs = model_inputs("tiny-phi3v", "img2_c4")
    positive = {**inputs, "input_ids": inputs["input_ids"].where(inputs["input_ids"] >= 0, IMAGE_TOKEN)}
    model = with_image_token()
    assert torch.equal(logits_of(model, **positive), logits_of(model, **inputs))


def test_negative_ids_are_placed_by_number():
    inputs = model_inputs("tiny-phi3v", "img2_c4")
    ids, model = inputs["input_ids"], load_model("tiny-phi3v", "sdpa")
    tokens = [int((ids == -number).sum()) for number in (1, 2)]
    assert tokens[0] == tokens[1]  # so that the two can change places
    renamed = ids.where(ids != -1, -3).where(ids != -2, -1)
    swapped = {**inputs, "input_ids": renamed.where(renamed != -3, -2)}
    flipped = {**inputs, **{key: inputs[key].flip(0) for key in ("pixel_values", "image_sizes")}}
    assert torch.equal(logits_of(model, **swapped), logits_of(model, **flipped))
    assert (logits_of(model, **swapped) - logits_of(model, **inputs)).abs().max() > 1


def test_ids_of_the_caller_are_left_alone():
    inputs = model_inputs("tiny-phi3v", "noise_1img")
    before = {key: value.clone() for key, value in inputs.items()}
    model = load_model("tiny-phi3v", "sdpa")
    logits_of(model, **inputs)
    greedy(model, inputs, 3, use_cache=False)
    assert all(torch.equal(inputs[key], before[key]) for key in before)


def test_generation_without_a_cache_keeps_the_picture():
    _, arrays, inputs = load_case("tiny-phi3v", "noise_1img")
    tokens, _ = greedy(load_model("tiny-phi3v", "sdpa"), inputs, 6, use_cache=False)
    assert tokens.tolist() == arrays["gen_tokens"][:, :6].tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda i: i.pop("pixel_values"), "pixel_values is missing"),
        (lambda i: i.pop("image_sizes"), "without image_sizes"),
        (lambda i: i.update(input_ids=i["input_ids"][:, 9:]), "image tokens, and the 1 pictures"),
        (lambda i: i.update(input_ids=i["input_ids"].clamp(min=0)), "has 0 image tokens"),
        (lambda i: i.update(input_ids=i["input_ids"].where(i["input_ids"] >= 0, -2)), "image tokens"),
        (lambda i: i.update(image_sizes=i["image_sizes"] * 2), "room for 2"),
        (
            lambda i: i.update({key: i[key].repeat(2, *[1] * (i[key].ndim - 1)) for key in PICTURES}),
            "the 2 pictures",
        ),
    ],
)
def test_what_does_not_match_is_refused(change, says):
    inputs = model_inputs("tiny-phi3v", "noise_1img", "attention_mask", "position_ids")
    change(inputs)
    with pytest.raises(ValueError, match=says):
        load_model("tiny-phi3v", "sdpa")(**inputs)


PICTURES = ("pixel_values", "image_sizes")


# ---- batches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_batch_equals_its_rows_across_the_longrope_boundary(attention):
    """Rows outgrow the short factors at different steps, and one never does."""
    names = ("text_cross", "img1_cross_c1", "text_short", "img1_c4")
    rows = [load_case("tiny-phi35v", name) for name in names]
    batch = left_padded([inputs for _, _, inputs in rows])
    tokens, logits = greedy(load_model("tiny-phi35v", attention), batch, 24)
    for row, (_, arrays, _) in enumerate(rows):
        kind = "_recompute" if "gen_tokens_recompute" in arrays else ""
        assert tokens[row].tolist() == arrays["gen_tokens" + kind][0].tolist(), names[row]
        assert (logits[row] - torch.from_numpy(arrays["gen_logits" + kind][0])).abs().max() < 2e-4


def test_positions_are_counted_from_the_mask():
    rows = [
        model_inputs("tiny-phi3v", name, "position_ids") for name in ("text", "noise_1img", "img1_tall_c4")
    ]
    model = load_model("tiny-phi3v", "sdpa")
    logits = logits_of(model, **left_padded(rows))
    for row, inputs in enumerate(rows):
        alone = logits_of(model, **inputs)[0]
        assert (logits[row, -len(alone) :] - alone).abs().max() < 5e-5


def test_numbers_may_run_on_through_a_batch():
    rows = [model_inputs("tiny-phi3v", name, "position_ids") for name in ("noise_1img", "img1_tall_c4")]
    batch = left_padded(rows)
    wanted = logits_of(load_model("tiny-phi3v", "sdpa"), **batch)
    batch["input_ids"][1] = batch["input_ids"][1].where(batch["input_ids"][1] >= 0, -2)
    assert torch.equal(logits_of(load_model("tiny-phi3v", "sdpa"), **batch), wanted)


def test_beams_keep_their_own_pictures():
    rows = [model_inputs("tiny-phi3v", name, "position_ids") for name in ("img2_c4", "noise_1img")]
    model = load_model("tiny-phi3v", "sdpa")
    settings = {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 2, "do_sample": False}
    settings |= {"pad_token_id": 0, "eos_token_id": None}
    together = model.generate(**left_padded(rows), **settings)[:, -4:]
    alone = [model.generate(**row, **settings)[:, -4:] for row in rows]
    assert together.tolist() == torch.cat(alone).tolist()


# ---- what is run ----------------------------------------------------------------------------------------


def test_only_real_crops_and_needed_layers_are_run():
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v", dtype=torch.float32).eval()
    inputs = model_inputs("tiny-phi3v", "img1_tall_c4")
    wanted = logits_of(model, **inputs)
    clip = model.model.vision_embed_tokens.img_processor.vision_model
    for part in (clip.encoder.layers[-1], clip.post_layernorm):
        for weight in part.parameters():
            weight.data.fill_(torch.nan)
    height, width = inputs["image_sizes"][0].tolist()
    poisoned = inputs["pixel_values"].clone()
    poisoned[:, 1 + (height // 336) * (width // 336) :] = torch.nan
    assert poisoned.isnan().any()
    assert torch.equal(logits_of(model, **{**inputs, "pixel_values": poisoned}), wanted)


def test_generate_computes_one_logit_a_step_and_encodes_once():
    model, inputs = load_model("tiny-phi3v", "sdpa"), model_inputs("tiny-phi3v", "noise_1img", "position_ids")
    lengths, encoded = [], []
    hooks = [
        model.lm_head.register_forward_hook(lambda _, args, __: lengths.append(args[0].shape[1])),
        model.model.vision_embed_tokens.register_forward_hook(lambda *_: encoded.append(1)),
    ]
    greedy(model, inputs, 4)
    for hook in hooks:
        hook.remove()
    assert (lengths, encoded) == ([1, 1, 1, 1], [1])


def test_a_second_turn_can_use_the_cache_of_the_first():
    model, inputs = load_model("tiny-phi3v", "sdpa"), model_inputs("tiny-phi3v", "noise_1img", "position_ids")
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "return_dict_in_generate": True}
    first = model.generate(**inputs, max_new_tokens=4, **settings)
    ids = torch.cat([first.sequences, torch.tensor([[1, 20, 30, 40]])], dim=1)
    second = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    fresh = model.generate(**second, max_new_tokens=6, **settings)
    cached = model.generate(**second, max_new_tokens=6, past_key_values=first.past_key_values, **settings)
    assert cached.sequences.tolist() == fresh.sequences.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v", dtype=dtype).eval()
    inputs = model_inputs("tiny-phi3v", "noise_1img")
    logits, exact = logits_of(model, **inputs), logits_of(load_model("tiny-phi3v", "sdpa"), **inputs)
    assert logits.dtype == dtype
    assert (logits.float() - exact).abs().mean() < (0.1 if dtype == torch.bfloat16 else 0.01)


def test_attention_is_chosen_by_the_caller_not_by_the_stale_config():
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v")
    assert model.config._attn_implementation == model.config.vision_config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == model.config.vision_config._attn_implementation == "eager"
    assert Phi3VForCausalLM._supports_flash_attn


def test_gradients_reach_everything_that_is_run():
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v", dtype=torch.float32).train()
    inputs = model_inputs("tiny-phi3v", "noise_1img", "position_ids")
    labels = inputs["input_ids"].clone().where(inputs["input_ids"] >= 0, -100)
    gradients = {}
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(**inputs, labels=labels, use_cache=False).loss.backward()
        grads = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        gradients[checkpointing] = {name: grad.clone() for name, grad in grads.items()}
    silent = {name for name, _ in model.named_parameters()} - set(gradients[False])
    assert all("encoder.layers.3." in name or "post_layernorm" in name for name in silent)
    assert len(silent) == 16 + 2
    assert set(gradients[True]) == set(gradients[False])
    for name, grad in gradients[False].items():
        assert grad.abs().sum() > 0, name
        assert torch.allclose(grad, gradients[True][name], atol=1e-5), name


# ---- where answers end ----------------------------------------------------------------------------------


class Dictated(LogitsProcessor):
    """Makes the model say the given tokens."""

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, next(self.tokens)] = 0
        return forced


@pytest.mark.parametrize("end", [500, 499])
@pytest.mark.parametrize("settings", [{}, {"eos_token_id": 499}, {"eos_token_id": 2}, {"stale": True}])
def test_answers_end_at_both_ends(end, settings):
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v", eos_token_id=[500, 499])
    settings = dict(settings)
    if settings.pop("stale", False):
        model.generation_config.eos_token_id = 2
    out = model.generate(
        input_ids=torch.tensor([[1, 5, 6]]),
        max_new_tokens=5,
        logits_processor=[Dictated([7, 2, end, 8, 8])],
        **settings,
    )
    assert out[0, 3:].tolist() == [7, 2, end]


def test_another_end_is_kept():
    model = Phi3VForCausalLM.from_pretrained(GOLDEN / "tiny-phi3v", eos_token_id=[500, 499])
    out = model.generate(
        input_ids=torch.tensor([[1, 5, 6]]),
        max_new_tokens=5,
        eos_token_id=7,
        logits_processor=[Dictated([500, 7, 8, 8, 8])],
    )
    assert out[0, 3:].tolist() == [500, 7]
