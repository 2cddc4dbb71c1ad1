"""From pictures and dialogues to token ids, exactly as the processor and the chat format make them."""

from __future__ import annotations

import random
import re

import numpy as np
import torch

from training import pictures, questions, sight
from training.canvas import NOWHERE, TOKENS

# One crop and the global view with their row ends, and the separator between them.
IMAGE_TOKENS = 2 * TOKENS * (TOKENS + 1) + 1
IGNORE = -100
ONE_TURN = 0.75  # of the rows: in a longer talk, much can be copied from what was said before
LATE = 0.12  # of the rows with two pictures: the second one is added on the way, with the second question
SINGLE = (("scene", 24), ("chart", 36), ("book", 29), ("page", 5), ("other", 6))
PAIR = (("scene", 45), ("chart", 20), ("book", 22), ("mixed", 13))


def where_read(answer: str, shown) -> list[int]:
    """For every character of an answer, the image token where the pictures print it; NOWHERE for all others.

    Tokens of the second picture count on from TOKENS ** 2.  What both pictures print is read from one after the other.
    """
    spots = [NOWHERE] * len(answer)
    places: dict[str, list[list[int]]] = {}
    for k, picture in enumerate(shown):
        for text, cells in picture.canvas.printed:
            offset = k * TOKENS**2
            places.setdefault(text, []).append([c if c == NOWHERE else c + offset for c in cells])
    for text in sorted(places, key=len, reverse=True):
        for k, match in enumerate(re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", answer)):
            if all(spot == NOWHERE for spot in spots[match.start() : match.end()]):
                spots[match.start() : match.end()] = places[text][min(k, len(places[text]) - 1)]
    return spots


class Writer:
    """Turns dialogues into (ids, labels, spots).

    Labels are the answers and their ``<|end|>``, all else is ignored.  Spots are the image tokens that the answers are
    read from (``where_read``).
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.image, self.end = tokenizer.convert_tokens_to_ids(["<|image|>", "<|end|>"])

    def ids(self, text: str, bos: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=bos)["input_ids"]

    def prompt(self, n_images: int) -> list[int]:
        """Everything before the first question: each piece of text around the images has a BOS of its own."""
        return self.ids("<|user|>\n", bos=True) + n_images * self.picture()

    def picture(self) -> list[int]:
        return [self.image] * IMAGE_TOKENS + self.ids("\n", bos=True)

    def write(self, turns, shown, room: int, late: bool = False) -> tuple[list[int], list[int], list[int]]:
        """As many turns about the pictures as there is room for (at least one, cut off if need be).

        With ``late`` the last picture comes with the second turn.
        """
        ids = self.prompt(len(shown) - late)
        labels, spots = [IGNORE] * len(ids), [NOWHERE] * len(ids)
        for i, (question, answer) in enumerate(turns):
            asked = self.ids("\n<|user|>\n", bos=False) if i else []
            asked += self.picture() if late and i == 1 else []
            asked += self.ids(f"{question}<|end|>\n<|assistant|>\n", bos=False)
            spelled = self.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)
            said = spelled["input_ids"] + [self.end]
            if i and len(ids) + len(asked) + len(said) > room:
                break
            read = where_read(answer, shown)
            looked = [read[start] for start, _ in spelled["offset_mapping"]] + [NOWHERE]
            ids += asked + said
            labels += [IGNORE] * len(asked) + said
            spots += [NOWHERE] * len(asked) + looked
        return ids[:room], labels[:room], spots[:room]


def draw_single(rng, render: bool):
    names, weights = zip(*SINGLE)
    picture = pictures.DRAW[rng.choices(names, weights)[0]](rng, pictures.random_look(rng, render))
    return [picture], questions.dialogue(rng, picture, 8)


def draw_pair(rng, render: bool):
    names, weights = zip(*PAIR)
    kind = rng.choices(names, weights)[0]
    look = pictures.random_look(rng, render)
    if kind == "mixed":
        one, two = (
            pictures.DRAW[k](rng, look)
            for k in rng.choices(("scene", "chart", "book", "other"), (3, 3, 3, 1), k=2)
        )
    elif kind == "scene":
        one = pictures.draw_scene(rng, look, pictures.random_shapes(rng, 3))
        related = rng.random() < 0.7
        two = (
            pictures.change(rng, one, look)
            if related
            else pictures.draw_scene(rng, look, pictures.random_shapes(rng, 3))
        )
    else:
        one = (
            pictures.draw_chart(rng, look, pictures.random_chart(rng, 5))
            if kind == "chart"
            else pictures.draw_book(rng, look)
        )
        related = rng.random() < 0.7
        two = pictures.change(rng, one, look) if related else pictures.DRAW[kind](rng, look)
    return [one, two], questions.dialogue_of_two(rng, one, two, 3)


def example(rng: random.Random, writer: Writer, pair: bool, room: int, render: bool):
    """One row: (ids, labels, spots, label tables, frames), the last two with one entry a picture."""
    shown, turns = (draw_pair if pair else draw_single)(rng, render)
    late = pair and rng.random() < LATE
    if late:
        turns = [questions.dialogue(rng, shown[0], 1)[0], turns[0]]
    elif rng.random() < ONE_TURN:
        turns = turns[:1]
    text = writer.write(turns, shown, room, late)
    if late and text[0].count(writer.image) < 2 * IMAGE_TOKENS:  # no room was left for the second turn
        text = writer.write(turns[1:], shown, room)
    frames = [sight.frame(pictures.weather(rng, picture.image)) for picture in shown] if render else []
    return *text, [sight.labels(picture.canvas) for picture in shown], frames


def collate(rows, pad: int):
    """(ids, labels, spots, tables, frames).

    (B, T) int64 three times, (B * images, patches, cells) uint8, (B * images, 336, 336, 3) uint8 or None.
    """
    length = max(len(row[0]) for row in rows)
    ids, labels, spots = (torch.full((len(rows), length), fill) for fill in (pad, IGNORE, NOWHERE))
    for i, row in enumerate(rows):
        for tensor, values in zip((ids, labels, spots), row):
            tensor[i, : len(values)] = torch.tensor(values)
    tables = np.stack([table for row in rows for table in row[3]])
    frames = [frame for row in rows for frame in row[4]]
    return (
        ids,
        labels,
        spots,
        torch.from_numpy(tables),
        torch.from_numpy(np.stack(frames)) if frames else None,
    )
