"""Draws the pictures that the tiny model learns from: charts, book covers, scenes, pages, and others.

Every ``draw_*`` function takes a ``random.Random`` and returns a ``Picture``: the pixels, the facts that the questions
are about, and the dense labels of the canvas.  With ``render=False`` there are no pixels, only facts and labels.
"""

from __future__ import annotations

import colorsys
import io
import random
import string
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from training import words
from training.canvas import COLOURS, FONTS, KINDS, Canvas

PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the centre", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip


@dataclass
class Picture:
    """``kind`` is chart, book, scene, page or other; ``facts`` depend on it (see the draw functions)."""

    kind: str
    facts: dict
    canvas: Canvas

    @property
    def image(self) -> Image.Image:
        return self.canvas.image


@dataclass(frozen=True)
class Look:
    """How a picture is rendered: pixels a unit, and whether pixels are wanted at all."""

    scale: float = 1.0
    render: bool = True


def random_look(rng: random.Random, render: bool = True) -> Look:
    return Look(rng.choice((1.0, 1.0, rng.uniform(1.0, 2.5))), render)


# Colours ------------------------------------------------------------------------------------------------------------


def _rgb(hue, saturation, value) -> tuple[int, int, int]:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value))


def _luminance(rgb) -> float:
    return (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255


def random_colour(rng) -> tuple[int, int, int]:
    return _rgb(rng.random(), rng.random(), rng.choice((rng.random(), rng.uniform(0.8, 1.0))))


def ink_on(rng, background) -> tuple[int, int, int]:
    """A colour that people can read on the background."""
    if rng.random() < 0.5:
        return (255, 255, 255) if _luminance(background) < 0.5 else rng.choice(((0, 0, 0), (40, 40, 60)))
    while True:
        ink = random_colour(rng)
        if abs(_luminance(ink) - _luminance(background)) > 0.4:
            return ink


def paper_colour(rng) -> tuple[int, int, int]:
    """White and near-white most often, sometimes dark or coloured."""
    if rng.random() < 0.4:
        return (255, 255, 255)
    if rng.random() < 0.6:
        return _rgb(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.88, 1.0))
    return random_colour(rng)


def shade(rng, rgb) -> tuple[int, int, int]:
    return tuple(min(255, max(0, c + rng.randint(-14, 14))) for c in rgb)


# Scenes -------------------------------------------------------------------------------------------------------------


def random_shapes(rng, most: int = 5) -> list[tuple[int, str, str]]:
    """[(cell 0..8 in reading order, colour, kind)], one shape a cell."""
    cells = sorted(rng.sample(range(9), rng.randint(1, most)))
    return [(cell, rng.choice(list(COLOURS)), rng.choice(KINDS)) for cell in cells]


def draw_scene(rng, look: Look, shapes=None) -> Picture:
    """Facts: ``shapes`` as ``random_shapes`` gives them."""
    shapes = shapes or random_shapes(rng)
    width, height = rng.choice(
        ((336, 336), (336, 336), (336, 336), (336, 252), (336, 280), (252, 336), (280, 336))
    )
    # The rim of a white picture cannot be told from the processor's white padding: then the picture is square.
    background = scene_background(rng, shapes, white=width == height)
    canvas = Canvas(width, height, background, look.scale, look.render)
    cell_w, cell_h = width / 3, height / 3
    for cell, colour, kind in shapes:
        radius = min(cell_w, cell_h) * rng.uniform(0.27, 0.38)
        slack_x, slack_y = cell_w / 2 - 1.2 * radius, cell_h / 2 - 1.2 * radius
        x = (cell % 3 + 0.5) * cell_w + rng.uniform(-1, 1) * max(0, slack_x)
        y = (cell // 3 + 0.5) * cell_h + rng.uniform(-1, 1) * max(0, slack_y)
        canvas.shape(kind, colour, x, y, radius, shade(rng, COLOURS[colour]))
        canvas.point(x, y, f"{colour} {kind} {PLACES[cell]}")
    return Picture("scene", {"shapes": shapes}, canvas)


def scene_background(rng, shapes, white: bool):
    """White, or a pale or dark tone far from every shape's colour."""
    if white and rng.random() < 0.5:
        return (255, 255, 255)
    while True:
        tone = _rgb(
            rng.random(), rng.uniform(0, 0.25), rng.choice((rng.uniform(0.75, 0.95), rng.uniform(0.4, 0.55)))
        )
        if all(sum(abs(a - b) for a, b in zip(tone, COLOURS[colour])) > 110 for _, colour, _ in shapes):
            return tone


# Charts -------------------------------------------------------------------------------------------------------------


def random_chart(rng, most: int = 5) -> dict:
    n = rng.randint(3, most)
    first = rng.randint(1995, 2026 - n)
    low, high = rng.choice(((1, 99), (1, 99), (1, 99), (100, 999)))
    return {
        "title": f"{rng.choice(words.COMPANIES)} {rng.choice(words.METRICS)}",
        "years": list(range(first, first + n)),
        "values": rng.sample(
            range(low, high + 1), n
        ),  # no two alike, so that highest and lowest are one year each
    }


def draw_chart(rng, look: Look, facts=None) -> Picture:
    """A bar chart with its values on it.  Facts: ``title``, ``years``, ``values``."""
    facts = facts or random_chart(rng)
    width, height = 336, rng.randint(250, 336)
    if rng.random() < 0.15:
        width, height = rng.randint(310, 335), 336
    paper = paper_colour(rng)
    canvas = Canvas(width, height, paper, look.scale, look.render)
    ink, font = ink_on(rng, paper), rng.choice(FONTS)
    bold = font if rng.random() < 0.6 else rng.choice(FONTS)
    title_size = fit(canvas, facts["title"], bold, rng.uniform(25, 34), width - 16)
    title_y = rng.uniform(1.0, 1.5) * title_size + 2
    align = rng.choice(("middle", "middle", "left"))
    canvas.text(width / 2 if align == "middle" else 8, title_y, facts["title"], bold, title_size, ink, align)

    n = len(facts["years"])
    left, right = rng.uniform(4, 14), width - rng.uniform(4, 14)
    slot = (right - left) / n
    year_size = fit(canvas, "0000", font, rng.uniform(21, 28), slot - 6)
    value_size = fit(canvas, "0" * len(str(max(facts["values"]))), font, rng.uniform(24, 34), slot - 6)
    base = height - rng.uniform(1.5, 2.0) * year_size
    roof = title_y + 1.8 * value_size
    if rng.random() < 0.4:
        faint = tuple((3 * p + i) // 4 for p, i in zip(paper, ink))
        for k in range(1, rng.randint(4, 6)):
            y = base - (base - roof) * k / 4
            canvas.line([(left, y), (right, y)], faint)
    fills = bar_fills(rng, paper, n)
    top = max(facts["values"])
    bar = slot * rng.uniform(0.45, 0.8)
    for i, (year, value) in enumerate(zip(facts["years"], facts["values"])):
        x = left + (i + 0.5) * slot
        y = base - (base - roof) * value / top
        canvas.rectangle(x - bar / 2, min(y, base - 2), x + bar / 2, base, fills[i])
        canvas.text(x, y - 4, str(value), font, value_size, ink)
        canvas.text(x, base + 1.15 * year_size, str(year), font, year_size, ink)
    canvas.line([(left, base), (right, base)], ink, rng.uniform(1, 2))
    return Picture("chart", facts, canvas)


def bar_fills(rng, paper, n):
    def one():
        while True:
            fill = _rgb(rng.random(), rng.uniform(0.4, 1), rng.uniform(0.4, 0.95))
            if sum(abs(a - b) for a, b in zip(fill, paper)) > 120:
                return fill

    return [one() for _ in range(n)] if rng.random() < 0.25 else [one()] * n


def fit(canvas, text, font, size, room) -> float:
    """The size, or the largest smaller one at which the text has room."""
    return min(size, room / max(canvas.text_width(text, font, 1.0), 1e-6))


# Book covers --------------------------------------------------------------------------------------------------------


LINE = 1.2  # from baseline to baseline, in sizes of the font


def random_title(rng) -> str:
    one, two = rng.sample(words.TITLE_WORDS, 2)
    pattern = rng.choices(
        ("{0}", "{0} {1}", "The {0}", "The {0} {1}", "{0} of {1}", "{0} and {1}"), (9, 6, 2, 1, 1, 1)
    )[0]
    return pattern.format(one, two)


def random_book(rng) -> dict:
    title = random_title(rng)
    author = f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.LAST_NAMES)}"
    return {
        "title": title.upper() if rng.random() < 0.5 else title,
        "author": author.upper() if rng.random() < 0.3 else author,
    }


def draw_book(rng, look: Look, facts=None) -> Picture:
    """A cover.  Facts: ``title`` and ``author``, as printed, and ``lines``, everything printed in reading order."""
    facts = dict(facts or random_book(rng))
    width, height = rng.randint(240, 336), 336
    background = random_colour(rng)
    canvas = Canvas(width, height, background, look.scale, look.render)
    decorate(rng, canvas, background)
    title_font, author_font = rng.choice(FONTS), rng.choice(FONTS)
    title, author = wrap(rng, facts["title"]), wrap(rng, facts["author"])
    size, author_size = rng.uniform(40, 64), rng.uniform(30, 42)
    size = min(fit(canvas, line, title_font, size, width - 32) for line in title)
    author_size = min(
        fit(canvas, line, author_font, min(author_size, 0.9 * size), width - 32) for line in author
    )
    # Baselines are LINE sizes apart; what is too high for the cover shrinks.
    shrink = min(1.0, (height - 50) / (LINE * (size * len(title) + author_size * len(author))))
    size, author_size = size * shrink, author_size * shrink
    title_ink = ink_on(rng, background)
    author_ink = title_ink if rng.random() < 0.7 else ink_on(rng, background)
    x, align = (width / 2, "middle") if rng.random() < 0.75 else (16, "left")
    blocks = [(title, title_font, size, title_ink), (author, author_font, author_size, author_ink)]
    if rng.random() < 0.25:
        blocks.reverse()
    # What is left of the height lies above, between and below the two blocks, some of it in each place.
    spare = height - 20 - LINE * (size * len(title) + author_size * len(author))
    cuts = sorted((rng.uniform(0, 0.4), rng.uniform(0.5, 1)))
    tops = (10 + spare * cuts[0], 10 + spare * cuts[1] + LINE * blocks[0][2] * len(blocks[0][0]))
    for top, (lines, font, height_of, ink) in zip(tops, blocks):
        for i, line in enumerate(lines):
            canvas.text(x, top + height_of * (LINE * i + 1), line, font, height_of, ink, align)
    if rng.random() < 0.3:
        rule_y = tops[1] - 0.1 * spare * (cuts[1] - cuts[0])
        canvas.line([(width * 0.3, rule_y), (width * 0.7, rule_y)], title_ink, rng.uniform(1, 3))
    facts["lines"] = [line for block in blocks for line in block[0]]
    return Picture("book", facts, canvas)


def wrap(rng, text: str) -> list[str]:
    """Lines of about ten letters; sometimes a line a word."""
    lines, room = [], 0 if rng.random() < 0.3 else 10
    for word in text.split():
        small = room == 0 and lines and lines[-1].lower() in ("the", "of", "and")
        if lines and (small or len(lines[-1]) + 1 + len(word) <= room):
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def decorate(rng, canvas, background) -> None:
    """A frame, rings or bands, near enough to the background not to hide the letters."""
    tone = tuple(min(255, max(0, c + rng.choice((-1, 1)) * rng.randint(12, 34))) for c in background)
    w, h = canvas.width, canvas.height
    style = rng.choice(("plain", "plain", "frame", "bands", "rings", "sun"))
    if style == "frame":
        canvas.rectangle(8, 8, w - 8, h - 8, outline=ink_on(rng, background), width=rng.uniform(1, 3))
    elif style == "bands":
        step = rng.randint(30, 80)
        for y in range(0, h, 2 * step):
            canvas.rectangle(0, y, w, y + step, tone)
    elif style == "rings":
        cx, cy = rng.uniform(0, w), rng.uniform(0, h)
        for r in range(160, 10, -40):
            canvas.ellipse(cx - r, cy - r, cx + r, cy + r, outline=tone, width=6)
    elif style == "sun":
        cx, cy, r = rng.uniform(0.2, 0.8) * w, rng.uniform(0.2, 0.8) * h, rng.uniform(40, 100)
        canvas.ellipse(cx - r, cy - r, cx + r, cy + r, tone)


# Pages of text ------------------------------------------------------------------------------------------------------


def random_word(rng, wild: float) -> str:
    """A word of the lists in some case, a number, or (``wild`` of the time) letters at random."""
    if rng.random() < wild:
        letters = rng.choice(
            (string.ascii_lowercase, string.ascii_uppercase, string.ascii_letters, string.digits)
        )
        return "".join(rng.choice(letters) for _ in range(rng.randint(1, 7)))
    if rng.random() < 0.2:
        return str(rng.randint(1, 10 ** rng.randint(1, 4)))
    word = rng.choice(
        rng.choice(
            (words.TITLE_WORDS, words.TITLE_WORDS, words.FIRST_NAMES, words.LAST_NAMES, words.COMPANIES)
        )
    )
    return rng.choice((str.upper, str.lower, str))(word)


def draw_page(rng, look: Look, dense: bool = False) -> Picture:
    """Lines of large text.  Facts: ``lines``.  A dense page is for the eye alone: small type, all over."""
    width, height = rng.choice(((336, 336), (336, 252), (252, 336), (336, 200)))
    paper = paper_colour(rng)
    canvas = Canvas(width, height, paper, look.scale, look.render)
    font, ink, y, lines = rng.choice(FONTS), ink_on(rng, paper), rng.uniform(6, 24), []
    most = 40 if dense else rng.randint(1, 4)
    while len(lines) < most:
        if dense or rng.random() < 0.2:
            font, ink = rng.choice(FONTS), ink_on(rng, paper)
        size = rng.uniform(20, 48) if dense else rng.uniform(26, 46)
        y += size * rng.uniform(1.0, 1.3) if dense else size * rng.uniform(1.1, 1.7)
        if y > height - 0.3 * size:
            break
        line, left = "", rng.uniform(4, 20)
        while True:
            longer = f"{line} {random_word(rng, 0.4 if dense else 0.25)}".strip()
            if canvas.text_width(longer, font, size) > width - left - 6:
                break
            line = longer
            if not dense and rng.random() < 0.5:
                break
        if line:
            canvas.text(left, y, line, font, size, ink, "left")
            lines.append(line)
    return Picture("page", {"lines": lines}, canvas) if lines else draw_page(rng, look, dense)


# Pictures of another kind -------------------------------------------------------------------------------------------


def draw_other(rng, look: Look) -> Picture:
    """What the tiny model cannot tell: noise, gradients, textures, soft blobs like a photograph, windows, nothing."""
    width, height = rng.choice(((336, 336), (336, 252), (252, 336), (336, 189)))
    canvas = Canvas(width, height, random_colour(rng), look.scale, look.render)
    style = rng.choice(
        ("noise", "gradient", "stripes", "checks", "photo", "photo", "window", "scribble", "blank")
    )
    if look.render:
        pixels = np.random.default_rng(rng.getrandbits(32))
        size = canvas.image.size
        if style in ("noise", "gradient", "photo"):
            canvas.image.paste(_texture(pixels, style, size))
        elif style in ("stripes", "checks"):
            _pattern(rng, canvas, style)
        elif style == "window":
            _window(rng, canvas)
        elif style == "scribble":
            for _ in range(rng.randint(8, 40)):
                points = [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(rng.randint(2, 5))]
                canvas.line(points, random_colour(rng), rng.uniform(1, 5))
    return Picture("other", {"style": style}, canvas)


def _texture(pixels: np.random.Generator, style: str, size) -> Image.Image:
    if style == "gradient":
        corners = pixels.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        return Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    if style == "noise":
        coarse = int(pixels.choice([1, 2, 4, 8]))
        grain = pixels.integers(0, 256, (size[1] // coarse + 1, size[0] // coarse + 1, 3), dtype=np.uint8)
        return Image.fromarray(grain).resize(size, Image.Resampling.NEAREST)
    picture = np.zeros((size[1], size[0], 3), np.float32)  # a photograph: the same field at several scales
    base = pixels.integers(40, 215, 3)
    for cells in (3, 6, 12, 24, 48):
        field = pixels.normal(0, 120 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        for c in range(3):
            layer = Image.fromarray(field[..., c]).resize(size, Image.Resampling.BICUBIC)
            picture[..., c] += np.asarray(layer)
    return Image.fromarray(np.clip(picture + base, 0, 255).astype(np.uint8))


def _pattern(rng, canvas, style) -> None:
    ink, step = random_colour(rng), rng.randint(8, 60)
    for i, x in enumerate(range(0, canvas.width, step)):
        if style == "stripes" and i % 2:
            canvas.rectangle(x, 0, x + step, canvas.height, ink)
        elif style == "checks":
            for j, y in enumerate(range(0, canvas.height, step)):
                if (i + j) % 2:
                    canvas.rectangle(x, y, x + step, y + step, ink)


def _window(rng, canvas) -> None:
    """A desktop window with bars where its text would be."""
    w, h = canvas.width, canvas.height
    x, y = rng.uniform(5, 60), rng.uniform(5, 50)
    canvas.rectangle(x, y, w - rng.uniform(5, 60), h - rng.uniform(5, 40), (248, 248, 248), (120, 120, 120))
    canvas.rectangle(x, y, w - 40, y + 18, random_colour(rng))
    for k in range(rng.randint(3, 9)):
        top = y + 30 + 18 * k
        canvas.rectangle(x + 10, top, x + 10 + rng.uniform(40, 190), top + 6, (150, 150, 160))


DRAW = {"scene": draw_scene, "chart": draw_chart, "book": draw_book, "page": draw_page, "other": draw_other}


def weather(rng, image: Image.Image) -> Image.Image:
    """What happens to pictures on their way: JPEG, a little blur, a little noise.  Most arrive as they were."""
    luck = rng.random()
    if luck < 0.12:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(55, 95))
        return Image.open(buffer).convert("RGB")
    if luck < 0.18:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7) * image.width / 336))
    if luck < 0.24:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(
            0, rng.uniform(2, 8), (image.height, image.width, 1)
        )
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image


def change(rng, picture: Picture, look: Look) -> Picture:
    """A second picture of the same kind with one thing changed, drawn afresh; or with nothing changed."""
    facts = dict(picture.facts)
    if rng.random() < 0.2:
        pass
    elif picture.kind == "scene":
        facts["shapes"] = _change_shapes(rng, list(facts["shapes"]))
    elif picture.kind == "chart":
        facts = _change_chart(rng, facts)
    elif picture.kind == "book":
        key = rng.choice(("title", "author"))
        facts[key] = random_book(rng)[key]
    arguments = (facts["shapes"],) if picture.kind == "scene" else (facts,)
    return DRAW[picture.kind](rng, look, *arguments)


def _change_shapes(rng, shapes):
    index = rng.randrange(len(shapes))
    cell, colour, kind = shapes[index]
    free = [c for c in range(9) if c not in [s[0] for s in shapes]]
    how = rng.choice(
        (
            "colour",
            "kind",
            "move",
            "add" if len(shapes) < 4 else "kind",
            "remove" if len(shapes) > 1 else "colour",
        )
    )
    if how == "colour":
        shapes[index] = (cell, rng.choice([c for c in COLOURS if c != colour]), kind)
    elif how == "kind":
        shapes[index] = (cell, colour, rng.choice([k for k in KINDS if k != kind]))
    elif how == "move":
        shapes[index] = (rng.choice(free), colour, kind)
    elif how == "add":
        shapes.append((rng.choice(free), rng.choice(list(COLOURS)), rng.choice(KINDS)))
    else:
        del shapes[index]
    return sorted(shapes)


def _change_chart(rng, facts):
    values = list(facts["values"])
    if rng.random() < 0.25:
        return {**facts, "title": random_chart(rng)["title"]}
    low, high = (100, 999) if max(values) > 99 else (1, 99)
    values[rng.randrange(len(values))] = rng.choice([v for v in range(low, high + 1) if v not in values])
    return {**facts, "values": values}
