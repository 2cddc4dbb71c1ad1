"""The doctor on models: does the tiny one answer rightly, which one does `load` take, how long do answers take?"""

import os
import shutil
import time
from pathlib import Path

from ..memory_use import size
from . import machine
from .report import fail, note, ok, reason

QUESTION = "What shapes are in the image?"
WORDS = ("red circle", "blue square", "green star")  # in the right answer about the shipped picture shapes_1
LONG = 100  # tokens of the answer that is spoken of
PROMPT = 2500  # tokens of a prompt with one large picture
LAYERS = 32  # of Phi-3-vision's decoder
_measured = {}  # of the tiny model, for the lines about others: seconds of an answer, seconds a step and layer


def tiny_model():
    """Ask it about a shipped picture, whose answer is known."""
    from .. import samples
    from ..loading import load
    from ..vision import Phi3Vision

    started = time.perf_counter()
    loaded = load("tiny", verbose=False)
    # With an engine of its own: nothing known from before, and nothing of the user's is let go.
    vision = Phi3Vision(loaded.model, loaded.processor, loaded.name, lock=loaded.lock)
    answer = vision.ask(samples["shapes_1"], QUESTION, max_new_tokens=LONG)
    seconds = time.perf_counter() - started
    step = answer.parts["answer"] / max(1, answer.new_tokens - 1)
    before = answer.parts["pictures"] + answer.parts["prompt"]
    _measured.update(answer=before + LONG * step, layer=step / vision.model.config.num_hidden_layers)
    if all(word in answer for word in WORDS):
        yield ok("tiny", f'The tiny model answers: "{answer}" in {seconds:.1f} s')
    else:
        what = f'The tiny model answers wrongly: "{answer[:120]}", and {", ".join(WORDS)} are in the picture'
        yield fail("tiny", what, "pip install --force-reinstall --no-deps phi3v-helpers")


def chosen_model():
    """What `load()` takes here, and why, without asking the Hub."""
    from ..devices import find_gpus
    from ..loading import AUTO_MODEL, ROOM, choose_model
    from ..weights import KNOWN, at_hand

    wanted, known, gpus = os.environ.get("PHI3V_MODEL"), KNOWN[AUTO_MODEL], find_gpus()
    if wanted and wanted != "auto":
        yield _wanted(wanted)
        return
    if gpus and gpus[0].free >= known.size + ROOM and not at_hand(known):
        name, why = f"{AUTO_MODEL} once it is downloaded, else tiny", f"{gpus[0].name} has room for it"
    else:
        name, why = choose_model("auto", gpus)
    yield ok("model", f"Model that load() takes: {name} ({why}){_tiny_seconds(name)}")


def _wanted(name):
    """The model that PHI3V_MODEL names."""
    from ..errors import LoadError
    from ..weights import find_here

    try:
        folder, title = find_here(name)
    except LoadError as error:
        return fail("model", f"PHI3V_MODEL: {error.what.rstrip('.')}", error.advice.rstrip("."))
    if folder is None:
        what = f"PHI3V_MODEL is {name!r}, and {title} is not on this machine"
        return note("model", what, "load() downloads it when first called")
    return ok("model", f"Model that load() takes: {name}, as PHI3V_MODEL says{_tiny_seconds(name)}")


def _tiny_seconds(name):
    if name != "tiny" or "answer" not in _measured:
        return ""
    return f"; an answer of {LONG} tokens takes about {_measured['answer']:.1f} s"


def big_model():
    """Whether Phi-3-vision fits on the best device, and how long its answers would take there."""
    from ..devices import choose_device, choose_dtype, find_gpus, free_memory
    from ..loading import AUTO_MODEL, ROOM
    from ..memory_use import alive
    from ..weights import KNOWN

    loaded = [vision for vision in alive if vision.name == KNOWN[AUTO_MODEL].repo]
    if loaded:  # so there is no room for a second one
        yield ok("phi-3-vision", f"Phi-3-vision is loaded on {loaded[0].device}")
        return
    gpus = find_gpus()
    device = choose_device("auto", gpus)
    dtype = choose_dtype("auto", device, gpus)
    weights = KNOWN[AUTO_MODEL].size // 2 * dtype.itemsize
    free = free_memory(device)
    where = f"Phi-3-vision on {device}, {str(dtype).removeprefix('torch.')}"
    if free < weights + ROOM:
        what = f"{where}: needs {(weights + ROOM) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        half = device.type == "cpu" and free >= KNOWN[AUTO_MODEL].size + ROOM
        smaller = (
            f'load("{AUTO_MODEL}", dtype="bfloat16"), which needs {(KNOWN[AUTO_MODEL].size + ROOM) / 1e9:.1f}'
        )
        advice = smaller if half else "a machine with more memory or a larger GPU"
        yield note("phi-3-vision", what, f"use the tiny model, or {advice}")
        return
    try:
        seconds = answer_seconds(*machine.speeds(device, dtype), weights, KNOWN[AUTO_MODEL].size // 2, LAYERS)
        words = f"an answer of {LONG} tokens takes about {_in_words(seconds)}, estimated"
    except Exception as error:  # no room for measuring, a device that lacks an operation
        words = f"how long answers take cannot be estimated ({reason(error)})"
    yield ok("phi-3-vision", f"{where}: fits, {words}")


def answer_seconds(reading, computing, weights, parameters, layers):
    """An estimate for a large picture and an answer of LONG tokens.

    reading: bytes a second. computing: operations a second. weights: bytes. parameters, layers: int.
    The prompt is computed at once. Each new token reads all weights; and Python has to start each layer, which on a
    fast GPU takes longer than the layer. A machine that is busy, or hot, takes two or three times as long.
    """
    step = max(weights / reading, layers * _measured.get("layer", 0))
    return 2 * parameters * PROMPT / computing + LONG * step


def _in_words(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def model_files():
    """Are the weights here, and if not, would they fit on the disk?"""
    from huggingface_hub import constants

    from ..weights import KNOWN, at_hand

    cache = Path(constants.HF_HUB_CACHE)
    disk = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    here = {name: at_hand(known) for name, known in KNOWN.items()}
    states = []
    for name, known in KNOWN.items():
        begun = (cache / f"models--{known.repo.replace('/', '--')}").is_dir()
        missing = f"{'downloaded in part' if begun else 'not downloaded'} ({size(known.size)})"
        states.append(f"{name} {'downloaded' if here[name] else missing}")
    what = f"Model files: {', '.join(states)}; {size(free)} free on the disk of {cache}"
    if not os.access(disk, os.W_OK):
        yield fail("files", f"{what}, which cannot be written to", "set HF_HOME to a folder of yours")
    elif not any(here.values()) and free < min(known.size for known in KNOWN.values()) * 1.05:
        yield note("files", what, "make room there, or set HF_HOME to a folder on another disk")
    else:
        yield ok("files", what)


def hub():
    """Ask the Hugging Face Hub for the pinned revisions."""
    from huggingface_hub import HfApi

    from ..weights import KNOWN

    for name, known in KNOWN.items():
        try:
            HfApi().model_info(known.repo, revision=known.revision, timeout=5)
            yield ok("hub", f"Hugging Face Hub: has {name}, revision {known.revision[:8]}")
        except Exception as error:
            what = f"Hugging Face Hub: {name} cannot be reached ({reason(error)})"
            yield fail(
                "hub", what, "check the connection, proxies and HF_HUB_OFFLINE; or stay with the tiny model"
            )
