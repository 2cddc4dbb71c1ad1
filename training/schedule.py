"""Training by the clock: a learning rate that rises, falls and ends on time; checkpoints that resume."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import torch


class Schedule:
    """Warm-up over the first 2 % of the time, then a cosine to a twentieth.

    Time is counted over all runs (``spent`` seconds before this one), so a job that was stopped goes on
    where it was, and a job given more minutes has its rate raised again.
    """

    def __init__(self, optimiser, peak: float, minutes: float, spent: float = 0.0):
        self.optimiser, self.peak, self.total, self.spent = optimiser, peak, 60 * minutes, spent
        self.start = time.time()

    def seconds(self) -> float:
        return self.spent + time.time() - self.start

    def done(self) -> bool:
        return self.seconds() >= self.total

    def step(self) -> None:
        part = min(1.0, self.seconds() / self.total)
        rise = min(1.0, part / 0.02)
        rate = self.peak * rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * part)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("share", 1.0)


class Meter:
    """Says every so many steps how many spelled tokens (letters, digits) and how many words came out right."""

    def __init__(self, every: int = 50):
        self.every, self.spelled, self.words, self.said = every, [], [], time.time()

    def add(self, step: int, rows: int, loss: float, spelled: float, words: float) -> None:
        self.spelled.append(spelled)
        self.words.append(words)
        if len(self.words) < self.every:
            return
        letters, others = (sum(x) / len(x) for x in (self.spelled, self.words))
        pace = self.every / (time.time() - self.said)
        print(
            f"{step} rows {rows} loss {loss:.3f} letters {letters:.3f} words {others:.3f} {pace:.2f} steps/s",
            flush=True,
        )
        self.spelled, self.words, self.said = [], [], time.time()


def save(path: Path, **parts) -> None:
    """Written beside and renamed, so that a killed job never leaves half a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    torch.save({k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in parts.items()}, aside)
    os.replace(aside, path)


def load(path: Path, **parts) -> dict:
    """Fill the parts from the checkpoint if it is there; return all of it, or an empty dict."""
    if not path.exists():
        return {}
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state
