"""`tune`: checks what was asked for, loads the model, measures, trains, measures again, and saves."""

import random
from dataclasses import dataclass
from pathlib import Path

from ..errors import Phi3VError
from .adapters import look_at_adapter, new_adapter, peft, save_adapter
from .exact import Tuned, exact_answers
from .state import read_checkpoint, read_report, save_report
from .steps import train
from .talks import look_at_pictures, read_talks

MOST_VALIDATION = 200  # talks
SAME_RUN = ("epochs", "batch", "rank", "alpha", "learning_rate", "validation", "seed", "max_tokens")


@dataclass(frozen=True)
class Options:
    """See `tune`."""

    epochs: int
    batch: int
    at_once: int
    rank: int
    alpha: float
    learning_rate: float
    validation: float
    seed: int
    max_tokens: int
    checkpoint_seconds: float


def tune(
    data,
    out,
    model="auto",
    *,
    epochs=3,
    batch=8,
    at_once=None,
    rank=16,
    alpha=32,
    learning_rate=1e-3,
    validation=0.1,
    seed=0,
    max_tokens=4096,
    checkpoint_seconds=60,
    device="auto",
    dtype="auto",
    quantize=None,
    num_crops=None,
    gradient_checkpointing=False,
    verbose=True,
):
    """Teach a model from examples: trains a LoRA adapter for `p3v.load(model, adapter=out)`.

    data: path of a file with an example a line, {"images": ["a.png"], "question": "...", "answer": "..."}: images are
        relative to the file; "turns": [["...", "..."], ...] in the place of question and answer is a talk; "group"
        names the kind of example, for the table.
    out: folder for the adapter. A run that was broken off goes on from there when it is started again.
    model, device, dtype, quantize, num_crops: as in `load`; not float16, and quantize on a CUDA GPU only.
    epochs: how often each example is seen. batch: examples a step, and at_once: those that are computed together, which
        is all of them unless memory is short. rank, alpha: of the adapter. learning_rate: the highest.
    validation: share of the examples that are kept back, 200 at most, to count exact answers before and after.
    seed: of the split, the order and the adapter. max_tokens: the most of an example, pictures included.
    checkpoint_seconds: how much work is lost at most where the run is killed.
    gradient_checkpointing: computes again instead of remembering: a fraction of the memory, a third more time.
    Returns a Tuned, which shows itself as a table. Raises Phi3VError, ImageError, LoadError.

    To forget nothing, mix in examples of what the model can do already. For Phi-3-vision on a GPU of 24 GB this should
    do, but has not been run: `quantize="4bit", at_once=1, gradient_checkpointing=True, num_crops=4,
    learning_rate=2e-4`; on 40 GB the same without quantize.
    """
    from ..loading import load

    options = Options(
        epochs,
        batch,
        at_once or batch,
        rank,
        alpha,
        learning_rate,
        validation,
        seed,
        max_tokens,
        checkpoint_seconds,
    )
    _check(options)
    peft()  # before anything else takes time
    talks, digest = read_talks(data)
    out = _made(out)
    vision = load(model, device, dtype, quantize=quantize, num_crops=num_crops, verbose=verbose)
    _check_format(vision)
    settings = {name: getattr(options, name) for name in SAME_RUN}
    settings |= {"data": digest, "model": vision.name, "num_crops": num_crops, "quantize": quantize}
    report = read_report(out, settings)
    if report:
        look_at_adapter(out)
        return Tuned(**report)

    def shown(items, what, **about):
        if not verbose:
            return items
        from tqdm.auto import tqdm

        return tqdm(items, desc=what, **about)

    learned, kept_back = split(talks, validation, seed)
    state = read_checkpoint(out, settings)
    if state is None:
        look_at_pictures(talks, shown)
    before = state["before"] if state else exact_answers(vision, kept_back, shown, "before")
    wrapped = _with_adapter(vision, options, gradient_checkpointing)
    try:
        parameters = {name: value for name, value in wrapped.named_parameters() if value.requires_grad}
        losses, seconds = train(vision, parameters, learned, options, settings, out, before, state, shown)
        vision.forget()  # what was read with other weights
        after = exact_answers(vision, kept_back, shown, "after")
        save_adapter(wrapped, out)
    finally:
        wrapped.unload()  # the weights may be in use elsewhere, see `load`
        vision.forget()
    told = {"before": before, "after": after, "losses": losses, "seconds": seconds}
    save_report(out, {"settings": settings, **told})
    return Tuned(**told)


def split(talks, share, seed):
    """(those to learn from, those to measure with), chosen by the seed."""
    count = min(MOST_VALIDATION, round(share * len(talks)))
    back = set(random.Random(seed).sample(range(len(talks)), count))
    return [talk for i, talk in enumerate(talks) if i not in back], [talks[i] for i in sorted(back)]


def _with_adapter(vision, options, gradient_checkpointing):
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(options.seed)
        for weight in vision.model.parameters():
            weight.requires_grad_(False)
        if gradient_checkpointing:
            vision.model.gradient_checkpointing_enable({"use_reentrant": False})
        name = vision.load_options["model"]
        return new_adapter(vision.model, options.rank, options.alpha, str(name))


def _check(options):
    whole = ("epochs", "batch", "at_once", "rank", "max_tokens")
    for name in whole:
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Phi3VError(f"{name} is {value!r}.", "Give a whole number, 1 or more.")
    for name in ("alpha", "learning_rate", "checkpoint_seconds"):
        value = getattr(options, name)
        if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise Phi3VError(f"{name} is {value!r}.", "Give a number above 0.")
    if not isinstance(options.validation, (int, float)) or not 0 <= options.validation < 1:
        raise Phi3VError(
            f"validation is {options.validation!r}.", "Give a share from 0 to below 1, such as 0.1."
        )


def _check_format(vision):
    if "float16" == str(vision.dtype).removeprefix("torch."):
        raise Phi3VError("Training in float16 loses small numbers.", 'Give dtype="bfloat16" or "float32".')
    if vision.quantize and vision.device.type == "cpu":
        raise Phi3VError(
            f"quantize={vision.quantize!r} cannot be trained on a CPU.", "Leave it out, or use a CUDA GPU."
        )


def _made(out):
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Phi3VError(
            f"The folder {out} cannot be made ({error.strerror}).", "Give another place."
        ) from error
    return Path(out)
