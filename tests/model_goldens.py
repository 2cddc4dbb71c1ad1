"""The golden data of the original phi3_v, and what tests need to use it: pictures, models, inputs."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from phi3v_helpers.model import Phi3VForCausalLM, Phi3VImageProcessor

torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = ("tiny-phi3v", "tiny-phi35v")


def real_folder():
    """Folder with the tokenizer and settings of the real models; skips the test where it is absent."""
    folder = Path(
        os.environ.get("PHI3V_PARITY_REAL") or Path(__file__).parents[2] / "shared" / "parity" / "real"
    )
    if not (folder / "Phi-3-vision-128k-instruct" / "tokenizer.json").is_file():
        pytest.skip(
            "the real tokenizer is not here; set PHI3V_PARITY_REAL to the folder parity/real that holds it"
        )
    return folder


def formula_image(width, height, k=0, mode="RGB"):
    """A picture made of integer formulas, in the mode asked for: PIL image."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    rgb = np.empty((height, width, 3), np.uint8)
    for c in range(3):
        triangle = np.abs(((x * (k + 3 + c) + y * (2 * k + 5 - c)) // 4) % 510 - 255)
        noise = ((x * 7919 + y * 104729 + c * 31 + k * 17) ^ ((x * y) >> 3)) & 31
        block = 64 * (((x // (16 + 5 * k)) + (y // (24 + 3 * c))) & 1)
        rgb[..., c] = np.minimum(255, triangle * 6 // 10 + noise + block)
    return in_mode(rgb, mode)


def in_mode(rgb, mode):
    if mode == "RGB":
        return Image.fromarray(rgb)
    if mode == "L":
        return Image.fromarray(rgb[..., 0])
    if mode == "LA":
        return Image.fromarray(rgb[..., :2].copy(), "LA")
    if mode == "RGBA":
        return Image.fromarray(np.dstack([rgb, rgb[..., 0] ^ rgb[..., 2]]))
    if mode == "CMYK":
        return Image.fromarray(np.dstack([rgb, 255 - rgb[..., 0]]), "CMYK")
    if mode == "1":
        return Image.fromarray(((rgb[..., 0] > 120) * 255).astype(np.uint8)).convert("1", dither=0)
    picture = Image.frombytes("P", (rgb.shape[1], rgb.shape[0]), rgb[..., 0].tobytes())
    picture.putpalette((np.arange(768) * 37 % 256).astype(np.uint8).tobytes())
    return picture


@functools.lru_cache(maxsize=4)
def load_model(variant, attention="eager"):
    return Phi3VForCausalLM.from_pretrained(
        GOLDEN / variant, dtype=torch.float32, attn_implementation=attention
    ).eval()


def cases(variant):
    return json.loads((GOLDEN / variant / "cases.json").read_text())["cases"]


def all_cases():
    return [(variant, case["name"]) for variant in VARIANTS for case in cases(variant)]


@functools.lru_cache(maxsize=16)
def load_case(variant, name):
    """Description, arrays and model inputs of one case."""
    case = next(case for case in cases(variant) if case["name"] == name)
    arrays = dict(np.load(GOLDEN / variant / f"{name}.npz"))
    inputs = {
        key: torch.from_numpy(arrays[key]).long() for key in ("input_ids", "attention_mask", "position_ids")
    }
    if "image_sizes" in arrays:
        inputs["image_sizes"] = torch.from_numpy(arrays["image_sizes"]).long()
        inputs["pixel_values"] = pixel_values(case)
    return case, arrays, inputs


def pixel_values(case):
    if case.get("pixel") == "u8noise":
        return noise_pixels(case)
    pictures = [formula_image(*image) for image in case["images"]]
    return Phi3VImageProcessor(num_crops=case["num_crops"])(pictures, return_tensors="pt")["pixel_values"]


def noise_pixels(case):
    shape = (len(case["images"]), case["num_crops"] + 1, 3, 336, 336)
    pixels = np.random.RandomState(case["pixel_seed"]).randint(0, 256, size=shape).astype("f4")
    pixels = pixels / np.float32(127.5) - np.float32(1)
    for picture, (height, width) in zip(pixels, case["image_sizes"]):
        picture[1 + (height // 336) * (width // 336) :] = 0
    return torch.from_numpy(pixels)


def greedy(model, inputs, steps, **kwargs):
    """Greedy continuation that no token ends: ids (B, steps) and logits (B, steps, V)."""
    inputs = {key: value for key, value in inputs.items() if key != "position_ids"}
    ends, model.generation_config.eos_token_id = model.generation_config.eos_token_id, None
    try:
        out = model.generate(
            **inputs,
            max_new_tokens=steps,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
            **kwargs,
        )
    finally:
        model.generation_config.eos_token_id = ends
    return out.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(out.logits, dim=1)
