"""What the eye is taught: the label grids of a picture, as tensors by patch, and the heads that predict them.

A patch covers a few character cells and area cells of the canvas.  One linear head a task reads them all from the
patch's features; the labels are known because we drew the pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from training.canvas import AREA_SLOTS, CHAR_SLOTS, CHARS, COLOURS, FRAME, KINDS, PATCHES

CLASSES = {"chars": len(CHARS) + 1, "kinds": len(KINDS) + 1, "colours": len(COLOURS) + 1}
SLOTS = {"chars": CHAR_SLOTS, "kinds": AREA_SLOTS, "colours": AREA_SLOTS}  # rows, columns of cells in a patch
SIZES = [rows * columns for rows, columns in SLOTS.values()]
EMPTY = 0.2  # weight of a cell with nothing in it
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def frame(image: Image.Image) -> np.ndarray:
    """What the image processor makes of a picture with ``num_crops=1``: (336, 336, 3) uint8, padded with white.

    A test holds it to the processor itself; this one is faster because both views are the same picture.
    """
    width, height = image.size
    if width >= height:
        size = (FRAME, int(FRAME / (width / height)))
    else:
        size = (int(FRAME / (height / width)), FRAME)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    board = np.full((FRAME, FRAME, 3), 255, np.uint8)
    top, left = (FRAME - size[1]) // 2, (FRAME - size[0]) // 2
    board[top : top + size[1], left : left + size[0]] = np.asarray(image)
    return board


def normalise(frames: torch.Tensor) -> torch.Tensor:
    """(B, 336, 336, 3) uint8 -> (B, 3, 336, 336) float, as the processor does."""
    return (frames.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def by_patch(grid: np.ndarray, slots: tuple[int, int]) -> np.ndarray:
    """(P * r, P * c) cells -> (P * P, r * c): the cells of each patch together, patches row by row."""
    r, c = slots
    grid = grid.reshape(PATCHES, r, PATCHES, c)  # (patch row, r, patch column, c)
    return grid.transpose(0, 2, 1, 3).reshape(PATCHES * PATCHES, r * c)


def labels(canvas) -> np.ndarray:
    """(P * P, sum of SIZES) uint8: characters, kinds and colours of every patch."""
    grids = {"chars": canvas.chars, "kinds": canvas.kinds, "colours": canvas.colours}
    return np.concatenate([by_patch(grids[task], SLOTS[task]) for task in CLASSES], axis=1)


def split(table: torch.Tensor) -> dict[str, torch.Tensor]:
    """The columns of ``labels`` by task."""
    return dict(zip(CLASSES, table.long().split(SIZES, dim=-1)))


class SightHeads(nn.Module):
    """From features (..., P * P, width) to the logits of every cell of every patch."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict(
            {t: nn.Linear(width, SLOTS[t][0] * SLOTS[t][1] * CLASSES[t]) for t in CLASSES}
        )

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.norm(features)
        return {t: head(features).unflatten(-1, (-1, CLASSES[t])) for t, head in self.heads.items()}

    def loss(self, features: torch.Tensor, table: torch.Tensor, empty: float = EMPTY) -> torch.Tensor:
        """Cross-entropy; an empty cell counts less (``empty``), for most are empty."""
        total, truth = features.new_zeros((), dtype=torch.float32), split(table)
        for task, logits in self(features).items():
            weight = torch.ones(CLASSES[task], device=features.device)
            weight[0] = empty
            total = total + F.cross_entropy(logits.float().flatten(0, -2), truth[task].flatten(), weight)
        return total

    @torch.no_grad()
    def score(self, features: torch.Tensor, table: torch.Tensor) -> dict[str, float]:
        """F1 over the cells that hold something or are said to, by task."""
        result, truth = {}, split(table)
        for task, logits in self(features).items():
            guess = logits.argmax(-1)
            right = ((guess == truth[task]) & (guess > 0)).sum()
            result[task] = (2 * right / ((guess > 0).sum() + (truth[task] > 0).sum()).clamp(min=1)).item()
        return result
