"""Times two ways of doing the same in turn, so that a machine that gets slower meanwhile is fair to both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

REST = 0.05  # seconds


def in_turn(ways: dict[str, Callable], repeats: int, warm: int = 1) -> dict[str, float]:
    """Median seconds of each way, run one after the other `repeats` times, after `warm` rounds that do not count.

    Each begins after a rest: for a while after its work PyTorch's threads wait for more of it in a loop, and take the
    time of a way that has threads of its own.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm + repeats):
        for name, way in ways.items():
            wait_for_device()
            time.sleep(REST)
            started = time.perf_counter()
            way()
            wait_for_device()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
