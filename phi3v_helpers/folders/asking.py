"""Items -> rows, with one model: pictures are read while the model computes, and a bad one costs its row alone."""

import hashlib
from contextlib import closing
from multiprocessing.pool import (
    ThreadPool,
)  # whose threads, unlike an executor's, keep no process from ending

from ..batches import MOST
from ..errors import ImageError, Phi3VError, PromptError
from ..images import load_image
from ..images.refusals import Trouble

READERS = 4  # pictures that are fetched or opened at a time
MOST_BYTES = 512 * 1024**2  # of pictures for the model; as many again are read meanwhile


def identity(vision):
    """What must be the same for all rows of a run: a dict with the model's name and a digest of its weights."""
    if getattr(vision, "host", None):  # it is on a server
        return {"name": vision.name, "weights": "on a server"}
    digest = hashlib.sha256()
    for name, weights in vision.model.named_parameters():
        some = weights.detach().flatten()[:16].cpu()
        digest.update(f"{name} {tuple(weights.shape)} {some.dtype} {some.tolist()}".encode())
    return {"name": vision.name, "weights": digest.hexdigest()[:16]}


def refuse_options(vision, items, options):
    """Raises PromptError for what would be refused for every item."""
    if options.get("look_up"):
        raise PromptError("look_up works for one question at a time.", "Leave it out of batch.")
    one_for_all = len({item.question for item in items}) == 1
    vision.request([None], items[0].question if one_for_all else "<|image_1|>?", **options)


def rows_of(vision, items, at_once, options, allow_private):
    """Iterator of (place, row, may_pass), in order. row: dict, see `output.COLUMNS`, without picture and question."""
    with ThreadPool(READERS) as readers, ThreadPool(1) as ahead:
        chunks = _chunks(items, 2 * (at_once or MOST), readers, allow_private)
        coming = ahead.apply_async(next, (chunks, None))
        while chunk := coming.get():
            coming = ahead.apply_async(next, (chunks, None))
            pairs = [(image, item.question) for item, image in chunk if not isinstance(image, Phi3VError)]
            with closing(_answers(vision, pairs, at_once, options)) as answers:
                for item, image in chunk:
                    result = image if isinstance(image, Phi3VError) else next(answers)
                    yield item.place, row_of(vision, result), _may_pass(result)


def _chunks(items, most, readers, allow_private):
    """Lists of (Item, PIL image or Phi3VError): as many as are worth sorting by length, and fit into memory."""

    def read(item):
        try:
            return load_image(item.picture, allow_private=allow_private)
        except ImageError as error:
            return error

    chunk, nbytes = [], 0
    for start in range(0, len(items), READERS):
        group = items[start : start + READERS]
        for item, image in zip(group, readers.map(read, group, 1)):
            chunk.append((item, image))
            nbytes += 0 if isinstance(image, Phi3VError) else 3 * image.width * image.height
            if len(chunk) >= most or nbytes > MOST_BYTES:
                yield chunk
                chunk, nbytes = [], 0
    if chunk:
        yield chunk


def _answers(vision, pairs, at_once, options):
    """An Answer or a Phi3VError for each pair. What fails is halved until the pair that is to blame is alone."""
    if len(pairs) == 1:
        try:
            yield vision.ask(*pairs[0], **options)
        except Phi3VError as error:
            yield error
        return
    given = 0
    try:
        for answer in vision.ask_many(pairs, at_once=at_once, progress=False, **options):
            yield answer
            given += 1
    except Phi3VError:
        rest = pairs[given:]
        half = (len(rest) + 1) // 2
        for part in (rest[:half], rest[half:]):
            if part:
                yield from _answers(vision, part, at_once, options)


def row_of(vision, result):
    """An Answer or a Phi3VError -> dict."""
    failed = isinstance(result, Phi3VError)
    return {
        "answer": None if failed else result.text,
        "model": vision.name,
        "prompt_tokens": None if failed else result.prompt_tokens,
        "new_tokens": None if failed else result.new_tokens,
        "seconds": None if failed else round(result.seconds, 4),
        "finished": None if failed else result.finished,
        "error": str(result) if failed else None,
    }


def _may_pass(result):
    """Whether it is an error of the network or of full memory, and not of the picture or the question."""
    if not isinstance(result, Phi3VError):
        return False
    pending, seen = [result], []
    while pending:
        error = pending.pop()
        if error is not None and error not in seen:
            seen.append(error)
            pending += [error.__cause__, error.__context__]
    return type(result) is Phi3VError or any(isinstance(error, Trouble) for error in seen)
