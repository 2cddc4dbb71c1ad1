"""Stage 1 of 3: the ViT learns to see, from labels of every patch.  Resumes from its checkpoint.

python -m training.train_eye --minutes 45 --out runs/eye.pt
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import CLIPVisionModel

from training import pictures, sight
from training.canvas import PATCHES
from training.optimise import MuonAndAdamW
from training.schedule import Schedule, load, save
from training.shape import vision_config

MIX = (("dense", 26), ("page", 5), ("chart", 24), ("book", 25), ("scene", 20))


class Sights(IterableDataset):
    """Endless batches of (frames uint8, label tables)."""

    def __init__(self, batch: int, seed: int):
        self.batch, self.seed = batch, seed

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        rng = random.Random(self.seed * 1000 + (info.id if info else 0))
        names, weights = zip(*MIX)
        while True:
            frames, tables = [], []
            for name in rng.choices(names, weights, k=self.batch):
                look = pictures.random_look(rng)
                dense = name == "dense"
                picture = pictures.draw_page(rng, look, True) if dense else pictures.DRAW[name](rng, look)
                frames.append(sight.frame(pictures.weather(rng, picture.image)))
                tables.append(sight.labels(picture.canvas))
            yield torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(tables))


@torch.no_grad()
def whiten(eye, frames) -> None:
    """Start the patch embedding at the main components of patches, each at the same strength.

    From random filters the letters stay hidden behind the patch's mean colour for a long time.
    """
    weight = eye.embeddings.patch_embedding.weight  # (C, 3, p, p)
    size = weight.shape[-1]
    patches = sight.normalise(frames).unfold(2, size, size).unfold(3, size, size)  # (B, 3, P, P, p, p)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)  # (B * P * P, 3 * p * p)
    variance, basis = torch.linalg.eigh(patches.T @ patches / len(patches))  # ascending
    variance, basis = variance[-len(weight) :], basis[:, -len(weight) :]
    weight.copy_((basis / variance.sqrt() / 2).T.reshape(weight.shape))


@torch.no_grad()
def place(eye) -> None:
    """Start the position embeddings as waves over rows and columns, so that neighbours are alike from the start."""
    weight = eye.embeddings.position_embedding.weight  # (1 + patches, C), the class token first
    quarter = weight.shape[1] // 4
    angles = torch.arange(PATCHES)[:, None] / 10 ** (2 * torch.arange(quarter) / quarter)  # (P, C / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (P, C / 2)
    rows, columns = waves.repeat_interleave(PATCHES, 0), waves.repeat(PATCHES, 1)
    weight[1:].copy_(0.3 * torch.cat([rows, columns], dim=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--out", type=Path, default=Path("runs/eye.pt"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    eye = CLIPVisionModel(vision_config(used_layers_only=True)).to(args.device)
    heads = sight.SightHeads(eye.config.hidden_size).to(args.device)
    optimiser = MuonAndAdamW([eye, heads], args.peak)
    parts = {"eye": eye, "heads": heads, "optimiser": optimiser}
    state = load(args.out, **parts)
    schedule = Schedule(optimiser, args.peak, args.minutes, spent=state.get("seconds", 0))
    step, pictures_seen = state.get("step", 0), state.get("pictures", 0)
    fast = torch.compile(eye) if args.minutes > 5 else eye  # compiling takes a minute, and gains a half
    loader = iter(
        DataLoader(
            Sights(args.batch, seed=1 + step), batch_size=None, num_workers=args.workers, prefetch_factor=8
        )
    )
    if step == 0:
        whiten(eye, torch.cat([next(loader)[0] for _ in range(4)]))
        place(eye)
    said = time.time()
    while not schedule.done():
        frames, tables = next(loader)
        pixel_values, tables = sight.normalise(frames).to(args.device), tables.to(args.device)
        schedule.step()
        with torch.autocast(args.device, torch.bfloat16):
            features = fast(pixel_values=pixel_values).last_hidden_state[
                :, 1:
            ]  # (B, patches, C) without the class token
        # At first hardly at all: or the eye learns to say that there is nothing anywhere, and stays there.
        empty = sight.EMPTY * min(1.0, 0.4 + pictures_seen / 30_000)
        loss = heads.loss(features.float(), tables, empty)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step, pictures_seen = step + 1, pictures_seen + len(frames)
        if step % 50 == 0:
            score = {k: round(v, 3) for k, v in heads.score(features.float(), tables).items()}
            pace = 50 * args.batch / (time.time() - said)
            print(f"{step} pictures {pictures_seen} loss {loss.item():.3f} {score} {pace:.0f}/s", flush=True)
            said = time.time()
        if step % 500 == 0:
            save(args.out, **parts, step=step, pictures=pictures_seen, seconds=schedule.seconds())
    save(args.out, **parts, step=step, pictures=pictures_seen, seconds=schedule.seconds())


if __name__ == "__main__":
    main()
