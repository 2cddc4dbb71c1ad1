"""Where a model runs, in which number format and with which attention.

`find_gpus` looks at the machine; everything else is decided from what it found, and from what was asked for.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from .errors import LoadError

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
AMPERE = (8, 0)  # compute capability from which bfloat16 and flash attention are there
GB = 1e9


@dataclass(frozen=True)
class Gpu:
    """One CUDA GPU. capability: (major, minor). free: bytes that are free now. usable: by the PyTorch that is here."""

    index: int
    name: str
    capability: tuple
    free: int
    usable: bool = True


def find_gpus():
    """The CUDA GPUs of this machine: list of Gpu, the one with most free memory first."""
    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        capability = properties.major, properties.minor
        usable = torch.version.hip is not None or is_built_for(capability, torch.cuda.get_arch_list())
        # Nothing else is asked of one that cannot be used: that would fail deep inside.
        free = torch.cuda.mem_get_info(index)[0] if usable else 0
        gpus.append(Gpu(index, properties.name, capability, free, usable))
    return sorted(gpus, key=lambda gpu: -gpu.free)


def is_built_for(capability, architectures):
    """Whether a PyTorch built for these architectures ("sm_80", "compute_90") runs on a GPU of (major, minor)."""
    for name in architectures:
        kind, digits = re.match(r"(\D+)_(\d+)", name).groups()
        built = int(digits[:-1]), int(digits[-1])
        if kind == "sm" and built[0] == capability[0] and built <= capability:
            return True
        if kind == "compute" and built <= capability:  # code that the driver finishes for newer GPUs
            return True
    return False


def free_memory(device):
    """Bytes that a program can still have on a torch.device, what PyTorch holds there unused included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    free = psutil.virtual_memory().available
    return min(free, max(0, _left_to_container(free)))


def _left_to_container(otherwise, folder=Path("/sys/fs/cgroup")):
    """Bytes that a container such as Docker's may still have: its limit is below what the machine has."""
    old = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for most, used in (("memory.max", "memory.current"), old):
        try:
            return int((folder / most).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return otherwise


def choose_device(wanted, gpus):
    """ "auto", "cpu", "cuda", "cuda:1", "mps" or a torch.device -> torch.device.

    "auto" is the CUDA GPU with most free memory, else Apple's, else the CPU.
    Raises LoadError where the machine does not have what was asked for.
    """
    if wanted == "auto":
        if any(gpu.usable for gpu in gpus):
            return torch.device("cuda", next(gpu.index for gpu in gpus if gpu.usable))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError) as error:
        raise LoadError(f"device is {wanted!r}.", 'Give "auto", "cpu", "cuda", "cuda:1" or "mps".') from error
    if device.type == "cuda":
        return _cuda(device, gpus)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise LoadError('device is "mps", but PyTorch finds no Apple GPU here.', 'Leave device="auto".')
    if device.type not in ("cpu", "mps"):
        raise LoadError(f"device is {wanted!r}, which is not supported.", 'Give "cpu", "cuda" or "mps".')
    return device


def _cuda(device, gpus):
    if not gpus:
        reason = "PyTorch finds no CUDA GPU here"
        if torch.version.cuda is None and torch.version.hip is None:
            reason = "this PyTorch was built without CUDA"
        raise LoadError(
            f"device is {str(device)!r}, but {reason}.",
            'Install a driver and a CUDA build of PyTorch, or leave device="auto".',
        )
    index = gpus[0].index if device.index is None else device.index
    if index not in [gpu.index for gpu in gpus]:
        raise LoadError(
            f"device is {str(device)!r}, but the GPUs here are {', '.join(f'cuda:{gpu.index}' for gpu in gpus)}.",
            "Give one of them.",
        )
    gpu = next(gpu for gpu in gpus if gpu.index == index)
    if not gpu.usable:
        raise LoadError(
            f"{gpu.name} has the compute capability {gpu.capability[0]}.{gpu.capability[1]}, for which this PyTorch "
            f"({torch.__version__}) was not built.",
            'Install a build of PyTorch that has it, or leave device="auto".',
        )
    return torch.device("cuda", index)


def choose_dtype(wanted, device, gpus):
    """ "auto", a name such as "bfloat16" or "fp16", or a torch.dtype -> torch.dtype.

    "auto" is bfloat16 where the device computes in it, float16 on other GPUs, float32 on a CPU.
    """
    if wanted != "auto":
        dtype = DTYPES.get(wanted, wanted)
        if dtype not in DTYPES.values():
            raise LoadError(f"dtype is {wanted!r}.", 'Give "auto", "float32", "bfloat16" or "float16".')
        return dtype
    if device.type == "cuda":
        # PyTorch says yes for older GPUs too, and then emulates it slowly.
        return torch.bfloat16 if _capability(device, gpus) >= AMPERE else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    return torch.float32


def choose_attention(wanted, device, dtype, gpus):
    """ "auto" -> "flash_attention_2" where it is installed and the GPU can, else "sdpa".

    Raises LoadError where flash attention was asked for and cannot be had, and on unknown names.
    """
    if wanted not in ("auto", *ATTENTIONS):
        raise LoadError(f"attention is {wanted!r}.", f"Give one of {', '.join(('auto', *ATTENTIONS))}.")
    if wanted in ("eager", "sdpa"):
        return wanted
    obstacle = _obstacle_to_flash(device, dtype, gpus)
    if obstacle is None:
        return "flash_attention_2"
    if wanted == "auto":
        return "sdpa"
    raise LoadError(f'attention is "flash_attention_2", but {obstacle}.', 'Leave attention="auto".')


def _obstacle_to_flash(device, dtype, gpus):
    if device.type != "cuda":
        return f"the device is {device.type} and not an NVIDIA GPU"
    if _capability(device, gpus) < AMPERE:
        return "this GPU is older than Ampere (compute capability 8.0)"
    if dtype == torch.float32:
        return "it does not compute in float32"
    try:
        importlib.import_module("flash_attn")
    except Exception as error:  # not there, or built for another PyTorch: it fails in many ways
        return f"flash_attn cannot be imported ({type(error).__name__})"
    return None


def _capability(device, gpus):
    return next(gpu.capability for gpu in gpus if gpu.index == device.index)
