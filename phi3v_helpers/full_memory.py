"""Too little memory: refused before a computer would end the process, explained where a device ran out of it."""

import re
import traceback
from contextlib import contextmanager
from dataclasses import replace

import psutil
import torch

from .errors import Phi3VError
from .estimates import of_prompt
from .footprint import Footprint
from .memory_use import size
from .prompts import IMAGE_TAG
from .quantize import KINDS

FULL = "out of memory|allocate memory|ALLOC_FAILED"  # as CUDA, the CPU and CUDA's libraries say it
FEWER_CROPS = (12, 9, 6, 4, 2, 1)
CLEARLY_LESS = 0.8
SHORTEST = 32  # tokens of an answer that is worth advising


def refuse_beyond_memory(vision, request):
    """Raise Phi3VError where a question needs more memory than a computer has.

    Only on a CPU, where the system would end the whole process without a word, and all that was in it. A GPU says
    so itself, and loses nothing.
    """
    if vision.device.type != "cpu":
        return
    estimate = _estimate(vision, request)
    if estimate.needed > _with_swap(estimate) and vision.engine.kept.nbytes:
        vision.engine.kept.clear()
        estimate = _estimate(vision, request)
    if estimate.needed > _with_swap(estimate):
        raise Phi3VError(
            f"This question needs {size(estimate.needed)} of memory, and {size(estimate.free)} are free.",
            advice(vision, request),
        )


@contextmanager
def advice_for_memory(vision=None, request=None):
    """Turns every "out of memory" of the devices into a Phi3VError, after everything was let go."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search(FULL, str(error))):
            raise
        traceback.clear_frames(
            error.__traceback__
        )  # or its tensors would stay for as long as somebody holds the error
        if vision is not None:
            vision.engine.kept.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
        raise Phi3VError(
            "The memory of the device is full.",
            advice(vision, request) if request else _advice([]),
        ) from error


def advice(vision, request):
    """What would fit into the memory that is free now, in a sentence or two."""
    crops = request.num_crops or vision.processor.image_processor.num_crops
    shorter = max(SHORTEST, request.max_new_tokens // 4)
    changes = [
        (f"num_crops={fewer}", {"num_crops": fewer})
        for fewer in FEWER_CROPS
        if request.images and fewer < crops
    ]
    if shorter < request.max_new_tokens:
        changes.append((f"max_new_tokens={shorter}", {"max_new_tokens": shorter}))
    if len(request.images) > 1:
        changes.append(("one picture at a time", _of_one(request)))
    # Clearly less than what was too much, as not everything that takes memory is known here.
    most = CLEARLY_LESS * _estimate(vision, request).needed
    fitting = [words for words, change in changes if _fits(vision, replace(request, **change), most)]
    crops = [words for words in fitting if words.startswith("num_crops")][:1]  # the most of them
    rest = [words for words in fitting if not words.startswith("num_crops")]
    return _advice(crops + rest + _smaller_weights(vision, request, most))


def _smaller_weights(vision, request, most):
    """In words, what `load` can be given so that this question fits; a list of none or one."""
    if vision.quantize or vision.device.type not in ("cpu", "cuda"):
        return []
    now, weights = _estimate(vision, request), vision.memory(0)[0]
    for kind in KINDS:
        small = Footprint(
            vision.model.config, now.device.partition(":")[0], vision.dtype.itemsize, quantize=kind
        )
        if now.needed - (weights - small.weights) <= min(most, _with_swap(now)):
            return [f'loading with quantize="{kind}"']
    return []


def _advice(fitting):
    ways = f"This would fit: {', or '.join(fitting)}. " if fitting else ""
    return f'{ways}End other programs that use memory, or take the tiny model: p3v.load("tiny").'


def _of_one(request):
    """The change that leaves the first picture, with a tag, and the question."""
    prompt = IMAGE_TAG.sub(lambda tag: tag[0] if int(tag[1]) == 1 else "", request.prompt)
    return {"images": request.images[:1], "prompt": prompt}


def _fits(vision, request, most):
    estimate = _estimate(vision, request)
    return estimate.needed <= min(most, _with_swap(estimate))


def _with_swap(estimate):
    return estimate.free + (psutil.swap_memory().free if estimate.device == "cpu" else 0)


def _estimate(vision, request):
    return of_prompt(vision, request.prompt, request.images, request.num_crops, request.max_new_tokens)
