"""The doctor on the machine: processor, memory, GPUs, and how fast they read and multiply."""

import os
import shutil
import subprocess
import time

from .report import fail, note, ok, reason, tidy

LITTLE = 1e9  # bytes of free memory; the tiny model takes half of it


def devices():
    """A line for the CPU, and one for each GPU."""
    import torch

    from ..devices import AMPERE, find_gpus

    yield _cpu()
    gpus = find_gpus()
    for gpu in sorted(gpus, key=lambda gpu: gpu.index):
        total = torch.cuda.get_device_properties(gpu.index).total_memory
        major, minor = gpu.capability
        what = (
            f"Device: cuda:{gpu.index}, {gpu.name}, {gpu.free / 1e9:.1f} GB of {total / 1e9:.1f} GB memory free, "
            f"compute capability {major}.{minor}"
        )
        trouble = _cannot_compute(torch.device("cuda", gpu.index))
        if trouble:
            yield fail("gpu", f"{what}, fails ({trouble})", _build_advice())
        elif gpu.capability < AMPERE:
            yield note("gpu", f"{what}, older than Ampere", "nothing to do; float16 is used, not bfloat16")
        else:
            yield ok("gpu", what)
    if not gpus:
        yield from _unused_gpu()
    if torch.backends.mps.is_available():
        trouble = _cannot_compute(torch.device("mps"))
        what = "Device: Apple GPU (mps), which shares the memory"
        if trouble:
            yield fail("gpu", f"{what}, fails ({trouble})", "pip install -U torch")
        else:
            yield ok("gpu", what)


def attention():
    import importlib.util

    from ..devices import choose_attention, choose_device, choose_dtype, find_gpus

    gpus = find_gpus()
    device = choose_device("auto", gpus)
    chosen = choose_attention("auto", device, choose_dtype("auto", device, gpus), gpus)
    if chosen == "flash_attention_2":
        yield ok("attention", f"Attention: {chosen}")
    elif importlib.util.find_spec("flash_attn") is None:
        yield ok("attention", f"Attention: {chosen} (flash-attn is not installed, and not needed)")
    else:
        try:
            importlib.import_module("flash_attn")
            yield ok("attention", f"Attention: {chosen} (flash-attn is here, but not for this device)")
        except Exception as error:
            what = f"Attention: {chosen}, as flash-attn cannot be imported ({reason(error)})"
            yield note("attention", what, "pip uninstall flash-attn, or build it for this PyTorch")


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def speeds(device, dtype):
    """(bytes a second in matrix times vector, operations a second in matrix times matrix). Takes a second at most."""
    import torch

    from ..model.cpu import at_best

    with torch.inference_mode():
        big = torch.ones(8192, 8192, device=device, dtype=dtype)
        vector = torch.ones(8192, device=device, dtype=dtype)
        reading = big.nbytes / _seconds(lambda: big @ vector, device)
        weights = torch.ones(3072, 3072, device=device, dtype=dtype)
        rows = torch.ones(512, 3072, device=device, dtype=dtype)
        with at_best(device, dtype, len(rows)):
            seconds = _seconds(lambda: torch.nn.functional.linear(rows, weights), device)
    return reading, 2 * rows.numel() * weights.shape[0] / seconds


def _seconds(run, device):
    """The shortest of a few runs, after one that prepares."""
    import torch

    def finish():
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()

    times = []
    run()
    for _ in range(3):
        finish()
        started = time.perf_counter()
        run()
        finish()
        times.append(time.perf_counter() - started)
    return min(times)


def _cpu():
    import psutil
    import torch

    from ..devices import free_memory

    free, total = free_memory(torch.device("cpu")), psutil.virtual_memory().total
    what = f"Device: CPU, {cores()} cores, {free / 1e9:.1f} GB of {total / 1e9:.1f} GB memory free"
    if free < LITTLE:
        return note("cpu", what, "end other programs: the tiny model alone takes half a GB")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 1.5 * cores():
        what += f", busy: {os.getloadavg()[0]:.1f} programs want to run"
        return note("cpu", what, "the seconds below are longer than usual; try again when others have ended")
    return ok("cpu", what)


def _cannot_compute(device):
    """What goes wrong where a GPU multiplies, in a few words, or None. PyTorch may be built for other GPUs."""
    import torch

    try:
        one = torch.ones(64, 64, device=device)
        return None if float((one @ one)[0, 0]) == 64 else "it multiplies wrongly"
    except Exception as error:
        return reason(error)


def _unused_gpu():
    """A line where the NVIDIA driver sees a GPU and PyTorch does not."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return
    try:
        told = subprocess.run(
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
        )
        lines = [line for line in told.stdout.splitlines() if line.startswith("GPU ")]
        trouble = (told.stderr or told.stdout).strip() if told.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        lines, trouble = [], reason(error)
    if trouble:
        advice = "repair or reinstall the NVIDIA driver, or do without a GPU"
        yield note("gpu", f"nvidia-smi is here, but fails ({tidy(trouble.splitlines()[0][:160])})", advice)
    elif lines:
        name = lines[0].partition(":")[2].partition("(")[0].strip()
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if hidden is not None and hidden.strip() in ("", "-1"):
            what = f"{name} is here, but CUDA_VISIBLE_DEVICES={hidden!r} hides it"
            yield note("gpu", what, "unset CUDA_VISIBLE_DEVICES to use it")
        else:
            yield fail(
                "gpu", f"{name} is here, but PyTorch cannot use it ({_why_no_cuda()})", _build_advice()
            )


def _why_no_cuda():
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    try:
        torch.cuda.init()
    except Exception as error:  # a driver that is too old says so here
        return reason(error)
    return f"torch {torch.__version__} was built for CUDA {torch.version.cuda}"


def _build_advice():
    return "pip install --force-reinstall a CUDA build of torch that fits your driver, as https://pytorch.org says"
