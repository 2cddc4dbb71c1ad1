"""Writes the folder that the package ships: weights in bfloat16, config, tokenizer, processor.

python -m training.export runs/join.pt phi3v_helpers/tiny
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from phi3v_helpers.model import Phi3VForCausalLM, Phi3VImageProcessor, Phi3VProcessor
from training.shape import VISION, model_config
from training.tokenizer import build


def export(checkpoint: Path | None, folder: Path) -> None:
    """``checkpoint`` is one of stage 3; without it the weights are random."""
    tokenizer = build()
    torch.manual_seed(0)
    model = Phi3VForCausalLM(model_config(tokenizer))
    if checkpoint:
        averaged = torch.load(checkpoint, map_location="cpu", weights_only=True)["average"]
        prefix = "module."
        model.load_state_dict(
            {k.removeprefix(prefix): v for k, v in averaged.items() if k.startswith(prefix)}
        )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokens_per_crop = (VISION["image_size"] // VISION["patch_size"] // 2) ** 2
    Phi3VProcessor(
        Phi3VImageProcessor(num_crops=1, num_img_tokens=tokens_per_crop), tokenizer
    ).save_pretrained(folder)


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 2 else None, Path(sys.argv[-1]))
