"""A name -> a Phi3Vision on the best device, in the best format, ready to be asked."""

import os
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
import transformers
from huggingface_hub import utils as hub
from transformers.utils import logging

from .devices import GB, choose_attention, choose_device, choose_dtype, find_gpus, free_memory
from .errors import LoadError
from .footprint import Footprint
from .full_memory import advice_for_memory
from .memory_use import size
from .model import Phi3VConfig, Phi3VForCausalLM, Phi3VImageProcessor, Phi3VProcessor
from .quantize import KINDS, check, check_sizes, quantize_on_cpu, settings_for_cuda
from .vision import Phi3Vision
from .weights import KNOWN, at_hand, find_here, find_weights, known_model, obstacle_to_download

AUTO_MODEL = "phi-3-vision"
ROOM = 2 * GB  # beside the weights: pictures, keys and values
# What the config.json of both published models says that is not a default.
PUBLISHED = {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}

_loading = threading.Lock()  # transformers changes settings of the process while it loads
_loaded = weakref.WeakValueDictionary()  # (folder, device, dtype, attention, quantize) -> Phi3Vision in use


def load(
    model="auto",
    device="auto",
    dtype="auto",
    attention="auto",
    num_crops=None,
    revision=None,
    compile=False,
    keep_bytes=None,
    quantize=None,
    adapter=None,
    name=None,
    api_key=None,
    verbose=True,
):
    """Load a model.

    model: "auto", "tiny", "phi-3-vision", "phi-3.5-vision", an id of the Hugging Face Hub, a folder, or the address of
        a server with OpenAI's API, such as "http://127.0.0.1:8000/v1", see `phi3v_helpers.remote`.
        "auto" is Phi-3-vision where a CUDA GPU has room and the weights can be had, else the tiny model.
        The environment variable PHI3V_MODEL, where set, says what "auto" is instead.
    device: "auto", "cpu", "cuda", "cuda:1", "mps". dtype: "auto", "float32", "bfloat16", "float16".
        The tiny model's "auto" is the CPU in float32, so that it answers alike everywhere.
    attention: "auto", "eager", "sdpa", "flash_attention_2".
    num_crops: int, the most tiles a picture is cut into, for all questions; None: see `Phi3Vision.ask`.
    revision: branch, tag or commit on the Hub; None takes the pinned one of known models, "main" of others.
    compile: True writes answers that may be 128 tokens or longer with compiled steps, where the device is a CUDA
        GPU. The first one takes a minute longer, and what was read before is read again: not for chats.
    keep_bytes: int, the most memory for what need not be computed again at the next question, see `p3v.memory`; 0 keeps
        nothing. None is an eighth of the memory that is free on the device, 4 GB at most.
    quantize: "8bit" or "4bit" holds the decoder's weights in a half or a quarter of the memory, with answers that may
        differ; None. Computes in bfloat16 where a dtype is not given. On a CUDA GPU it takes bitsandbytes:
        `pip install "phi3v-helpers[quantize]"`. See `phi3v_helpers.quantize`.
    adapter: a folder that `p3v.tune` wrote, for this model; None. Needs `pip install "phi3v-helpers[tune]"`.
    name, api_key: of a server's model, and for it; None takes the only one there is, and PHI3V_API_KEY.
    verbose: print one line that says which model was taken, and show progress bars.
    Returns a Phi3Vision. Raises LoadError.
    """
    address = address_of(
        model,
        name,
        api_key,
        local=(device, dtype, attention, revision, compile, keep_bytes, quantize, adapter),
    )
    if address:
        from .remote import connect

        return connect(address, name, api_key, num_crops, verbose=verbose)
    if keep_bytes is not None and (not isinstance(keep_bytes, int) or keep_bytes < 0):
        raise LoadError(f"keep_bytes is {keep_bytes!r}.", "Give a number of bytes, 0 or more, or None.")
    options = {
        "device": device,
        "dtype": dtype,
        "attention": attention,
        "num_crops": num_crops,
        "revision": revision,
        "compile": compile or None,
        "keep_bytes": keep_bytes,
        "quantize": quantize,
        "adapter": None if adapter is None else os.fspath(adapter),
    }
    model, reason, how = decide(model, device, dtype, attention, quantize)
    tiny = model == "tiny"
    with _loading, progress_bars(verbose and not tiny), advice_for_memory():
        known = known_model(model) if isinstance(model, str) else None
        if known and not at_hand(known):  # before gigabytes are fetched in vain
            check_room(Phi3VConfig(**PUBLISHED), *how)
        folder, name = find_weights(model, revision)  # last, as it may download gigabytes
        vision = _load(folder, name, how, num_crops, adapter)
    vision.engine.compiled = bool(compile)
    if keep_bytes is not None:
        vision.engine.kept.budget = keep_bytes
    vision.load_options = {"model": model} | {k: v for k, v in options.items() if v not in ("auto", None)}
    if verbose:
        print(f"{vision!r} ({reason})")
    return vision


def address_of(model, name, api_key, local):
    """The http(s) address that `load` was given, or PHI3V_MODEL for "auto"; None. Raises LoadError."""
    where = os.environ.get("PHI3V_MODEL", "auto") if model == "auto" else model
    if not (isinstance(where, str) and where.lower().startswith(("http://", "https://"))):
        if name is not None or api_key is not None:
            raise LoadError("name and api_key are for a model on a server.", "Leave them out.")
        return None
    if local != ("auto", "auto", "auto", None, False, None, None, None):
        raise LoadError(
            "device, dtype, attention, revision, compile, keep_bytes, quantize and adapter are for a model on this "
            "machine.",
            "Leave them out, and tell the server when it is started.",
        )
    return where


def decide(model, device, dtype, attention, quantize=None):
    """What the arguments of `load` mean here: (model, reason in a few words, (device, dtype, attention, quantize))."""
    reason = "as asked for"
    if model == "auto" and os.environ.get("PHI3V_MODEL"):
        model, reason = os.environ["PHI3V_MODEL"], "as PHI3V_MODEL says"
    device = "cpu" if model == "tiny" and device == "auto" else device
    gpus = [] if str(device) == "cpu" else find_gpus()  # which takes a while
    if model == "auto":
        model, reason = choose_model(device, gpus, quantize)
    device = choose_device("cpu" if model == "tiny" and device == "auto" else device, gpus)
    if quantize and dtype == "auto" and device.type == "cpu":
        dtype = "bfloat16"  # in which its layers compute anyway
    dtype = choose_dtype(dtype, device, gpus)
    check(quantize, device, dtype)
    return model, reason, (device, dtype, choose_attention(attention, device, dtype, gpus), quantize)


def look_at(name):
    """What a model is, without its weights: (Phi3VConfig, image processor, tokenizer, name for people).

    Nothing is downloaded: the tokenizer is None where the files of a known model are not here. Raises LoadError.
    """
    folder, title = find_here(name)
    if folder is not None:
        processor = read_processor(folder)
        return Phi3VConfig.from_pretrained(folder), processor.image_processor, processor.tokenizer, title
    if known_model(name):
        return Phi3VConfig(**PUBLISHED), Phi3VImageProcessor(), None, title
    raise LoadError(f"{title} is not on this machine.", "Load it once, which downloads it, or give a folder.")


def _load(folder, name, how, num_crops, adapter):
    """A Phi3Vision of the files in a folder. how: (device, dtype, attention, quantize)."""
    if adapter is not None:
        return Phi3Vision(
            *read(folder, *how, adapter), f"{name} with {Path(adapter).resolve().name}", num_crops
        )
    if name not in [known.repo for known in KNOWN.values()]:  # files in other places may change
        return Phi3Vision(*read(folder, *how), name, num_crops)
    # A cell that is run again must not put a second copy of a big model beside the first.
    before = _loaded.get((folder, *how))
    model, processor = (before.model, before.processor) if before else read(folder, *how)
    shared = {"lock": before.lock, "engine": before.engine} if before else {}
    vision = Phi3Vision(model, processor, name, num_crops, **shared)
    _loaded[(folder, *how)] = vision
    return vision


def choose_model(device, gpus, quantize=None):
    """What "auto" means on this machine: (short name, reason in a few words)."""
    known = KNOWN[AUTO_MODEL]
    wanted, device = device, choose_device(device, gpus)
    if device.type != "cuda":
        why = f"this PyTorch was not built for {gpus[0].name}" if gpus else "no CUDA GPU"
        return "tiny", why if wanted == "auto" else f"device is {device.type}"
    if any(vision.name == known.repo and vision.device == device for vision in _loaded.values()):
        return AUTO_MODEL, "loaded before"
    gpu = next(gpu for gpu in gpus if gpu.index == device.index)
    published = Phi3VConfig(**PUBLISHED)
    needs = {kind: Footprint(published, "cuda", 2, quantize=kind).weights + ROOM for kind in (None, *KINDS)}
    need = needs.get(quantize, needs[None])
    if gpu.free < need:
        less = next((kind for kind in KINDS if needs[kind] <= gpu.free and quantize is None), None)
        hint = f', or {needs[less] / GB:.1f} with quantize="{less}"' if less else ""
        return "tiny", f"{gpu.name} has {gpu.free / GB:.1f} GB free, Phi-3-vision needs {need / GB:.1f}{hint}"
    if not at_hand(known):
        obstacle = obstacle_to_download(known)
        if obstacle:
            return "tiny", f"Phi-3-vision would fit, but {obstacle}"
    return AUTO_MODEL, f"{gpu.name} has {gpu.free / GB:.1f} GB free"


def read(folder, device, dtype, attention, quantize=None, adapter=None):
    """The files of a folder -> (Phi3VForCausalLM on `device`, Phi3VProcessor). Raises LoadError."""
    if adapter is not None:
        from .tuning.adapters import attach, look_at_adapter

        look_at_adapter(adapter)  # before gigabytes are read in vain
    processor = read_processor(folder)
    # With accelerate the weights go straight to the device, without a copy in the computer's own memory.
    straight = {"device_map": {"": device}} if transformers.utils.is_accelerate_available() else {}
    on_cpu = quantize and device.type == "cpu"
    if quantize and not on_cpu:
        straight["quantization_config"] = settings_for_cuda(quantize, dtype)
    with _damage_explained(folder):
        config = Phi3VConfig.from_pretrained(folder)
        check_room(config, device, dtype, attention, quantize)
        if on_cpu:
            check_sizes(config, quantize)
        model, report = Phi3VForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype="auto"
            if on_cpu
            else dtype,  # as it is in the file, where it stays until its layer is exchanged
            attn_implementation=attention,
            output_loading_info=True,
            **straight,
        )
    lost = sorted(report["missing_keys"])
    if lost:  # transformers would fill them with random numbers
        raise LoadError(
            f"The weights in {folder} lack {len(lost)} parts, such as {lost[0]}.",
            "Copy or download them again.",
        )
    if adapter is not None:
        model = attach(model, adapter, merge=on_cpu or not quantize)
    if on_cpu:
        quantize_on_cpu(model, quantize, dtype)
    if not quantize:
        model.to(device)
    model.quantize = quantize
    return model, processor


def read_processor(folder):
    """The Phi3VProcessor of a folder. Raises LoadError."""
    with _damage_explained(folder):
        return Phi3VProcessor.from_pretrained(folder)


@contextmanager
def _damage_explained(folder):
    """Turns what transformers raises for files that are damaged, or of another model, into a LoadError."""
    try:
        yield
    except (LoadError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # damaged files show in many ways
        reason = next(iter(str(error).strip().splitlines()), "")[:100]
        raise LoadError(
            f"The files in {str(folder)[-80:]} could not be loaded ({type(error).__name__}: {reason}).",
            "Copy or download them again.",
        ) from error


def check_room(config, device, dtype, attention=None, quantize=None):
    """Refuse what the device has no memory for, before anything is downloaded or read. Raises LoadError."""
    weights = Footprint(config, device.type, dtype.itemsize, quantize=quantize).weights
    free = free_memory(device)
    if device.type == "cpu":
        free += psutil.swap_memory().free
    if weights <= free:
        return
    smaller = 'Give dtype="bfloat16", which halves that. ' if dtype == torch.float32 else ""
    for kind in KINDS if quantize is None and device.type in ("cpu", "cuda") else ():
        if Footprint(config, device.type, 2, quantize=kind).weights <= free:
            smaller = f'Give quantize="{kind}", which fits. '
            break
    raise LoadError(
        f"The weights need {size(weights)} in {quantize or str(dtype).removeprefix('torch.')}, but {device} has "
        f"{size(free)} free.",
        f'{smaller}End other programs that use it, or take the tiny model: p3v.load("tiny").',
    )


@contextmanager
def progress_bars(shown):
    """The bars of downloading and of reading weights: shown or not, and afterwards as they were before."""
    before = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    _set_progress_bars(shown, shown)
    try:
        yield
    finally:
        _set_progress_bars(*before)


def _set_progress_bars(reading, downloading):
    (logging.enable_progress_bar if reading else logging.disable_progress_bar)()
    (hub.enable_progress_bars if downloading else hub.disable_progress_bars)()
