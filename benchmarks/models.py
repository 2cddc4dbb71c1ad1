"""Models of any size with random weights, a processor for them, and pictures."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from phi3v_helpers.model import Phi3VConfig, Phi3VForCausalLM, Phi3VImageProcessor, Phi3VProcessor

TOKENIZER = Path(__file__).parents[1] / "phi3v_helpers" / "tiny"  # any will do: random weights say nothing
ROPE = {"type": "su", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}
COMMON = {
    "vocab_size": 32064, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
    "sliding_window": 131072, "image_token_id": 8, "bos_token_id": 1, "eos_token_id": [6, 3], "pad_token_id": 3,
}  # fmt: skip
SIZES = {
    # The smallest that still has every part, for tests.
    "small": dict(
        vision_config={"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=128,
    ),
    "mid": dict(
        vision_config={"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 1024},
        hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, intermediate_size=1536,
    ),
    # Phi-3-vision itself.
    "full": dict(
        vision_config={}, hidden_size=3072, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
        intermediate_size=8192, rope_scaling=ROPE,
    ),
}  # fmt: skip


def build(size: str, device: str = "cpu", dtype=torch.float32, attention: str = "sdpa", seed: int = 0):
    """A Phi3VForCausalLM with random weights, made on the device."""
    config = Phi3VConfig(**COMMON, **SIZES[size])
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Phi3VForCausalLM._from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def processor(num_crops: int = 16) -> Phi3VProcessor:
    """Of any model above: a crop is 144 tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
    return Phi3VProcessor(Phi3VImageProcessor(num_crops=num_crops), tokenizer)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft colours and some grain, as a photograph has."""
    pixels = np.random.default_rng(seed)
    coarse = Image.fromarray(pixels.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = pixels.integers(-12, 13, (height, width, 3), dtype=np.int16)
    return Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))


def memory_of_process(reset: bool = False) -> int:
    """Most bytes of RAM that this process has had; with `reset` those that it has now, and the count begins anew."""
    status, reset_file = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():  # not Linux
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
    if reset:
        reset_file.write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
