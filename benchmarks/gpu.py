"""The GPU suite: the full-size model with random bfloat16 weights, made on the device.

Writing a token reads all weights once, so the rate at batch 1 is bounded by the memory's bandwidth: the share of the
measured bandwidth of a copy says how much is left. With a small model it runs on a CPU too, which tests that it runs.
"""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass

import torch

from benchmarks import models
from benchmarks.timing import in_turn
from phi3v_helpers.prompts import build_prompt

QUESTION = "What is shown in this image?"


@dataclass
class Rate:
    """Of one way to run it. first_token: seconds from crops on the device to the first token of a 16-crop picture.

    tokens_per_second: by batch size. peak: bytes on the device. share: of the bandwidth of a copy, at batch 1.
    """

    way: str
    first_token: float
    tokens_per_second: dict[int, float]
    peak: int | None
    share: float


def run(
    size: str = "full", device: str = "cuda", repeats: int = 5, new_tokens: int = 128, say=print
) -> list[dict]:
    dtype = torch.bfloat16
    bandwidth = copy_bandwidth(device)
    say(f"copy bandwidth {bandwidth / 1e9:,.0f} GB/s")
    result = []
    for attention in attentions(device):
        model = models.build(size, device, dtype, attention)
        for compiled in (False, True) if attention == "sdpa" else (False,):
            rate = measure(model, attention, compiled, bandwidth, repeats, new_tokens)
            rates = ", ".join(f"{n:,.0f} tokens/s at batch {b}" for b, n in rate.tokens_per_second.items())
            say(
                f"{rate.way:22} first token {rate.first_token:.3f} s, {rates}, {rate.share:.0%} of the bandwidth"
            )
            result.append({**asdict(rate), "bandwidth": bandwidth})
        del model
        if device == "cuda":
            torch.cuda.empty_cache()
    return result


def attentions(device: str) -> list[str]:
    flash = device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    return ["eager", "sdpa", *(["flash_attention_2"] if flash else [])]


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by a copy of 1 GB on a GPU, of 64 MB elsewhere."""
    source = torch.empty(2**30 if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = in_turn({"copy": lambda: target.copy_(source)}, 10, warm=3)["copy"]
    return 2 * source.nbytes / seconds


def measure(model, attention: str, compiled: bool, bandwidth: float, repeats: int, new_tokens: int) -> Rate:
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first = time_to_first_token(model, repeats)
    rates = {batch: tokens_per_second(model, batch, new_tokens, repeats, compiled) for batch in (1, 8)}
    return Rate(
        f"{attention}, compiled" if compiled else attention,
        first,
        rates,
        torch.cuda.max_memory_allocated() if model.device.type == "cuda" else None,
        rates[1] * weights_read(model) / bandwidth,
    )


def weights_read(model) -> int:
    """Bytes that a token needs: the decoder and its head, one row of the embeddings, no vision."""
    decoder = sum(weights.nbytes for weights in model.model.layers.parameters())
    return decoder + model.lm_head.weight.nbytes


@torch.inference_mode()
def time_to_first_token(model, repeats: int) -> float:
    inputs = models.processor()(build_prompt(QUESTION, 1), models.picture(1344, 1344), return_tensors="pt")
    inputs = inputs.to(model.device, model.dtype)
    return in_turn({"": lambda: int(model(**inputs, logits_to_keep=1).logits.argmax())}, repeats)[""]


@torch.inference_mode()
def tokens_per_second(model, batch: int, new_tokens: int, repeats: int, compiled: bool) -> float:
    """After a prompt of 256 tokens, without the time to read it."""
    ids = torch.randint(300, 400, (batch, 256), device=model.device)
    options = {"cache_implementation": "static"} if compiled else {}

    def write(tokens: int) -> None:
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens,
            do_sample=False, pad_token_id=0, **options,
        )  # fmt: skip

    ways = {"whole": lambda: write(new_tokens), "one": lambda: write(1)}
    seconds = in_turn(ways, repeats, warm=3 if compiled else 1)  # the first ones compile
    return batch * (new_tokens - 1) / (seconds["whole"] - seconds["one"])
