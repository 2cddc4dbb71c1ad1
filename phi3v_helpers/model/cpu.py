"""Faster on a CPU, with the same results: which library multiplies matrices, which one attends, how memory is held.

PyTorch multiplies float32 matrices with MKL, which on processors that are not Intel's uses half of what they can do
(measured: 87 against 195 billion operations a second on a core of an AMD EPYC of 2024). Told that bfloat16 would be
exact enough, it hands them to oneDNN, which on processors without bfloat16 matrix units computes in float32 all the
same, and well. Whether both is so is tried out once, when the first matrix is to be multiplied.
"""

import functools
import sys
import threading
import time
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

AS_EXACT = 2e-6  # relative error of a product, of float32 with its 24 bits
SMALL = 2_000_000  # numbers in the keys of a layer; PyTorch's plain attention is the faster one up to there
HELD = 31 * 2**20  # bytes


def at_best(device, dtype, rows, keys=lambda: 0):
    """A context in which a model of this device and dtype computes as fast as it can.

    rows: how many tokens are computed at once, of all prompts. keys(): numbers in the keys of a layer, with known ones;
    asked for only where it matters.
    """
    if device.type != "cpu":
        return nullcontext()
    if dtype == torch.float32 and (rows > 1 or torch.get_num_threads() > 1) and onednn_is_better():
        return _by_onednn
    if dtype == torch.bfloat16 and rows == 1 and 0 < keys() <= SMALL:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


@functools.cache
def onednn_is_better():
    """Whether oneDNN multiplies float32 matrices here as exactly as MKL, and faster."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False  # no oneDNN, or a PyTorch in which it cannot be chosen
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(384, 384, generator=generator) for _ in range(2))
    exact = one.double() @ other.double().T
    with torch.no_grad():
        usual, _ = _fastest_of_five(one, other)
        with _by_onednn:
            seconds, product = _fastest_of_five(one, other)
    return seconds < 0.8 * usual and float((product - exact).norm() / exact.norm()) < AS_EXACT


def _fastest_of_five(one, other):
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        product = torch.nn.functional.linear(one, other)
        seconds.append(time.perf_counter() - started)
    return min(seconds), product


class _ByOneDNN:
    """A context that several threads may be in at once; the process's setting goes back after the last."""

    def __init__(self):
        self._lock, self._inside, self._before = threading.Lock(), 0, None

    def __enter__(self):
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = torch.backends.mkldnn.matmul.fp32_precision
                torch.backends.mkldnn.matmul.fp32_precision = "bf16"

    def __exit__(self, *_):
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.mkldnn.matmul.fp32_precision = self._before


_by_onednn = _ByOneDNN()


@functools.cache
def hold_on_to_memory():
    """Have the C library keep freed memory for the next layer, where it would give it back and fetch it anew.

    glibc learns from what is freed how much to keep, up to twice a block of 32 MB. Left alone it learns too little from
    a vision tower: every layer's memory is then fetched from the system again, which took as long as computing.
    """
    if sys.platform == "linux":
        torch.empty(HELD, dtype=torch.uint8)
