"""A file of examples -> talks about pictures, and their token ids as the model reads them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import ImageError, Phi3VError
from ..images import load_images
from ..prompts import build_prompt

FORM = '{"images": ["a.png"], "question": "...", "answer": "..."}'
KEYS = {"images", "question", "answer", "turns", "group"}
IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class Talk:
    """line: its number in the file. images: paths or addresses, str. turns: (question, answer) pairs. group: str."""

    line: int
    images: tuple
    turns: tuple
    group: str


@dataclass(frozen=True)
class Row:
    """ids, labels: lists of T ints; labels are the ids of answers, and IGNORED elsewhere. features: as in `Inputs`."""

    ids: list
    labels: list
    features: list


def read_talks(path):
    """Every line of a JSONL file: (list of Talk, SHA-256 of the file as str). Raises Phi3VError, with the line."""
    path = Path(path)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise Phi3VError(
            f"{path} cannot be read ({error.strerror}).", "Give a file of JSON lines."
        ) from error
    except UnicodeDecodeError as error:
        raise Phi3VError(f"{path} is not UTF-8.", "Give a file of JSON lines in UTF-8.") from error
    lines = enumerate(text.split("\n"), start=1)
    talks = [_talk(line, number, path) for number, line in lines if line.strip()]
    if not talks:
        raise Phi3VError(f"{path} has no examples.", f"Write one a line: {FORM}.")
    return talks, hashlib.sha256(data).hexdigest()


def look_at_pictures(talks, shown):
    """Open every picture once, so that what is broken shows at once. Raises ImageError, with the line."""
    for talk in shown(talks, "pictures"):
        pictures(talk)


def pictures(talk):
    """The PIL images of a Talk. Raises ImageError."""
    try:
        return load_images(list(talk.images) or None)
    except ImageError as error:
        raise ImageError(f"Line {talk.line}: {error.what}", error.advice) from error


def encode(vision, talk, longest):
    """The Row of a Talk. longest: the most tokens that a row may have. Raises ImageError, Phi3VError."""
    images, turns = pictures(talk), list(talk.turns)
    crops, counts = vision.crops(None, images), [len(images)] + [0] * len(turns)
    # With a question behind them, as the answers then stand in the prompt of a longer talk as the model will meet them.
    whole = vision.engine.read(build_prompt("?", counts, history=turns), images, crops)
    labels = [IGNORED] * len(whole.ids)
    for k, (question, _) in enumerate(turns):
        asked = build_prompt(question, counts[: k + 1], history=turns[:k])
        start = len(vision.engine.read(asked, images, crops).ids)
        end = whole.ids.index(vision.engine.ends[0], start) + 1
        labels[start:end] = whole.ids[start:end]
    if end > longest:
        raise Phi3VError(
            f"Line {talk.line} has {end:,} tokens, more than the {longest:,} that are taken.",
            "Make it shorter, or set a smaller num_crops.",
        )
    return Row(whole.ids[:end], labels[:end], [feature.clone() for feature in whole.features])


def side_by_side(rows, device):
    """Rows as tensors: ids, labels and attention mask, each int64 (B, T), padded on the right."""
    longest = max(len(row.ids) for row in rows)
    fields = [(row.ids, 0) for row in rows], [(row.labels, IGNORED) for row in rows]
    fields += ([([1] * len(row.ids), 0) for row in rows],)
    return [
        torch.tensor([values + [fill] * (longest - len(values)) for values, fill in field], device=device)
        for field in fields
    ]


def _talk(line, number, path):
    try:
        given = json.loads(line)
    except ValueError as error:
        raise _bad(number, "is not JSON") from error
    if not isinstance(given, dict) or set(given) - KEYS:
        raise _bad(number, f"is not an object of {', '.join(sorted(KEYS))}")
    images, turns = given.get("images", []), given.get("turns")
    if turns is None:
        turns = [[given.get("question"), given.get("answer")]]
    elif "question" in given or "answer" in given:
        raise _bad(number, "has both turns and a question or an answer")
    if not (isinstance(images, list) and all(isinstance(image, str) and image for image in images)):
        raise _bad(number, "has images that are not a list of paths")
    if not (isinstance(turns, list) and turns and all(_is_turn(turn) for turn in turns)):
        raise _bad(number, "lacks a question or an answer, as text that is not empty")
    if not isinstance(given.get("group", ""), str):
        raise _bad(number, "has a group that is no text")
    places = tuple(image if "://" in image else str(path.parent / image) for image in images)
    turns = tuple((question, answer.strip()) for question, answer in turns)
    return Talk(number, places, turns, given.get("group", "all"))


def _is_turn(turn):
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(x, str) and x.strip() for x in turn)


def _bad(number, what):
    return Phi3VError(
        f"Line {number} {what}.", f'Write {FORM}, or "turns": [["...", "..."], ...] for a talk.'
    )
