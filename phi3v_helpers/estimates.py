"""What a question will need, told before anything is loaded or computed: tokens, bytes, and whether they are there."""

from dataclasses import dataclass

from .devices import free_memory
from .errors import ImageError
from .footprint import Footprint
from .images import load_images
from .memory_use import size
from .prompts import IMAGE_TAG, build_prompt

LETTERS_PER_TOKEN = 3  # of a text whose tokenizer is not on this machine; English has about four


@dataclass(frozen=True, repr=False)
class Estimate:
    """What one question needs. Shows itself as text. Sizes are bytes of the device's memory.

    name, device: of the model. image_tokens: list of int, one a picture. prompt_tokens: int, with those of pictures.
    answer_tokens: the most that the answer may have. context: the most that prompt and answer may have together.
    weights: of the model. kv_cache: keys and values of prompt and answer. work: what computing needs beside them, at
    most. free: what is free on the device now. loaded: whether the weights are there already. exact: False where the
    tokens of the text are guessed, as the model's tokenizer is not on this machine.
    """

    name: str
    device: str
    image_tokens: list
    prompt_tokens: int
    answer_tokens: int
    context: int
    weights: int
    kv_cache: int
    work: int
    free: int
    loaded: bool
    exact: bool = True

    @property
    def peak(self):
        """The most memory at any time, weights included."""
        return self.weights + self.kv_cache + self.work

    @property
    def needed(self):
        """What must be free now: the peak, without the weights where they are loaded."""
        return self.peak - (self.weights if self.loaded else 0)

    @property
    def fits(self):
        """Whether both the context and the free memory are enough."""
        return self.prompt_tokens + self.answer_tokens <= self.context and self.needed <= self.free

    def __repr__(self):
        about = "" if self.exact else "about "
        pictures = f", {sum(self.image_tokens):,} of them pictures" if self.image_tokens else ""
        loaded = " (loaded)" if self.loaded else ""
        return (
            f"{self.name} on {self.device}\n"
            f"Tokens: {about}{self.prompt_tokens:,}{pictures}, and up to {self.answer_tokens:,} of the answer; "
            f"{self.context:,} at most\n"
            f"Memory: weights {size(self.weights)}{loaded}, keys and values {size(self.kv_cache)}, "
            f"work {size(self.work)}: {size(self.peak)}\n"
            f"{'Fits' if self.fits else 'Does not fit'}: {size(self.needed)} needed, {size(self.free)} free"
        )


def estimate(
    model="auto",
    images=None,
    question="",
    *,
    system=None,
    num_crops=None,
    max_new_tokens=500,
    device="auto",
    dtype="auto",
    attention="auto",
    quantize=None,
):
    """What a question would need, before the model is loaded or asked. Nothing is downloaded or computed.

    model: a Phi3Vision, or what `load` takes. images, question, system, num_crops, max_new_tokens: as in
    `Phi3Vision.ask`. device, dtype, attention, quantize: as in `load`, of a model that is not loaded.
    Returns an Estimate. Raises ImageError, PromptError, LoadError.
    """
    from .vision import Phi3Vision

    images = load_images(images)
    prompt = build_prompt(question, len(images), system)
    if isinstance(model, Phi3Vision):
        return of_prompt(model, prompt, images, model.crops(num_crops, images), max_new_tokens)
    return _not_loaded(model, prompt, images, num_crops, max_new_tokens, (device, dtype, attention, quantize))


def of_prompt(vision, prompt, images, num_crops, answer_tokens):
    """The Estimate of a whole prompt with PIL images, for a Phi3Vision."""
    config, device = vision.model.config, vision.device
    footprint = Footprint(config, device.type, vision.dtype.itemsize, vision.attention, vision.quantize)
    weights, _ = vision.memory(0)
    processor = vision.processor
    about = _Model(vision.name, footprint, weights, device, processor.image_processor, vision.tokenizer, True)
    return _estimate(about, prompt, images, num_crops, answer_tokens)


@dataclass(frozen=True)
class _Model:
    """What is to be known of a model, loaded or not."""

    name: str
    footprint: Footprint
    weights: int
    device: object
    image_processor: object
    tokenizer: object  # None: not on this machine
    loaded: bool


def _not_loaded(name, prompt, images, num_crops, answer_tokens, how):
    from .loading import decide, look_at  # which import this module

    name, _, (device, dtype, attention, quantize) = decide(name, *how)
    config, image_processor, tokenizer, title = look_at(name)
    footprint = Footprint(config, device.type, dtype.itemsize, attention, quantize)
    if num_crops is None and name != "tiny":
        num_crops = 4 if len(images) > 1 else 16
    about = _Model(title, footprint, footprint.weights, device, image_processor, tokenizer, False)
    return _estimate(about, prompt, images, num_crops, answer_tokens)


def _estimate(model, prompt, images, num_crops, answer_tokens):
    grids = [grid_of(model.image_processor, *numbered, num_crops) for numbered in enumerate(images, start=1)]
    image_tokens = [model.footprint.image_tokens(*grid) for grid in grids]
    chunks = IMAGE_TAG.split(prompt)[::2]
    if model.tokenizer is None:
        text_tokens = sum(1 + -(-len(chunk.encode()) // LETTERS_PER_TOKEN) for chunk in chunks)
    else:
        text_tokens = sum(len(model.tokenizer(chunk).input_ids) for chunk in chunks)
    prompt_tokens = text_tokens + sum(image_tokens)
    return Estimate(
        name=model.name,
        device=str(model.device),
        image_tokens=image_tokens,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
        context=model.footprint.config.max_position_embeddings,
        weights=model.weights,
        kv_cache=model.footprint.kv_cache(prompt_tokens + answer_tokens),
        work=model.footprint.work(grids, prompt_tokens, answer_tokens),
        free=free_memory(model.device),
        loaded=model.loaded,
        exact=model.tokenizer is not None,
    )


def grid_of(image_processor, number, image, num_crops):
    """(rows, columns) of crops of a PIL image, the `number`-th of a question. Raises ImageError."""
    try:
        columns, rows = image_processor.grid(*image.size, num_crops)
    except ValueError as error:
        what, _, advice = str(error).partition(". ")
        raise ImageError(f"Picture {number}: {what}.", advice) from error
    return rows, columns
