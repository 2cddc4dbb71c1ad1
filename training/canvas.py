"""A canvas that remembers what it drew.

Coordinates are in units: the longer side of a picture is 336 units, whatever its size in pixels, because the image
processor scales every picture to that (``num_crops=1``).  Beside the pixels the canvas keeps **dense labels** on
the processor's 336 x 336 frame: which character, which shape and which colour lies where.  They teach the tiny
model's eye directly (``training/train.py``).
"""

from __future__ import annotations

import string
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.shape import VISION

FRAME = 336
CHARS = (
    string.ascii_uppercase + string.ascii_lowercase + string.digits + "&.,-'"
)  # class i + 1; 0 is "none here"
CHAR_CLASS = {char: i + 1 for i, char in enumerate(CHARS)}
PATCHES = FRAME // VISION["patch_size"]  # along a side of the frame
TOKENS = PATCHES // 2  # image tokens along a side: 2 x 2 patches each
# Label cells in a patch, (rows, columns): about 12 x 8 units for characters, which are taller than wide, and about
# 12 x 12 for shapes and colours.
CHAR_SLOTS = (VISION["patch_size"] // 12, round(VISION["patch_size"] / 8))
AREA_SLOTS = (VISION["patch_size"] // 12,) * 2
CHAR_ROWS, CHAR_COLS = PATCHES * CHAR_SLOTS[0], PATCHES * CHAR_SLOTS[1]
NOWHERE = -1
AREA_CELLS = PATCHES * AREA_SLOTS[0]
KINDS = ("circle", "square", "triangle", "star", "diamond", "cross")
COLOURS = {
    "red": (215, 35, 35), "orange": (245, 140, 20), "yellow": (245, 215, 30), "green": (40, 155, 65),
    "blue": (40, 85, 205), "purple": (130, 50, 165), "black": (25, 25, 25), "pink": (250, 150, 200),
}  # fmt: skip
FONT_FOLDER = Path(__file__).parent / "fonts"
FONTS = sorted(path.name for path in FONT_FOLDER.glob("*.[ot]tf"))


@lru_cache(maxsize=512)
def font_at(name: str, pixels: float) -> ImageFont.FreeTypeFont:
    """The font at a height of ``pixels``; basic layout, so that widths add up without an extra library."""
    return ImageFont.truetype(str(FONT_FOLDER / name), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def advance(name: str, char: str) -> float:
    """How far the pen moves for a character, for a font of height 1."""
    return font_at(name, 64).getlength(char) / 64


def token_at(row: int, col: int) -> int:
    """Which image token of a crop holds a character cell, counted row by row."""
    return row * TOKENS // CHAR_ROWS * TOKENS + col * TOKENS // CHAR_COLS


class Canvas:
    """``width`` x ``height`` units; ``scale`` pixels a unit.  With ``render=False`` only the labels are made."""

    def __init__(self, width: int, height: int, background, scale: float = 1.0, render: bool = True):
        self.width, self.height, self.scale = width, height, scale
        self.image = self.pen = None
        if render:
            self.image = Image.new("RGB", (round(width * scale), round(height * scale)), background)
            self.pen = ImageDraw.Draw(self.image)
        # Where the processor puts the picture on its square frame: scaled to 336, white on both short sides.
        self.frame_scale = FRAME / max(width, height)
        self.left = (FRAME - width * self.frame_scale) / 2
        self.top = (FRAME - height * self.frame_scale) / 2
        self.printed: list[
            tuple[str, list[int]]
        ] = []  # every line of text, and what `point` was told; for each character `token_at`
        self.chars = np.zeros((CHAR_ROWS, CHAR_COLS), np.uint8)
        self.kinds = np.zeros((AREA_CELLS, AREA_CELLS), np.uint8)
        self.colours = np.zeros((AREA_CELLS, AREA_CELLS), np.uint8)

    def _pixels(self, points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def text_width(self, text: str, font: str, size: float) -> float:
        """In units, the same at every scale: the sum of the characters' advances."""
        return size * sum(advance(font, char) for char in text)

    def text(
        self, x: float, y: float, text: str, font: str, size: float, fill, align: str = "middle"
    ) -> None:
        """One line with its baseline at ``y``; ``x`` is its middle, left or right end."""
        width = self.text_width(text, font, size)
        x -= {"left": 0, "middle": width / 2, "right": width}[align]
        if self.pen:
            self.pen.text(
                (x * self.scale, y * self.scale), text, fill, font_at(font, round(size * self.scale, 1)), "ls"
            )
        spots = []
        for char in text:
            step = size * advance(font, char)
            spots.append(self._label_char(x + step / 2, y - 0.34 * size, char) if char in CHARS else NOWHERE)
            x += step
        self.printed.append((text, spots))

    def point(self, x: float, y: float, words: str) -> None:
        """What stands at a place, in the words that answers have for it: an answer with them is read from there."""
        row, col = (self.top + y * self.frame_scale) / FRAME, (self.left + x * self.frame_scale) / FRAME
        spot = token_at(int(row * CHAR_ROWS), int(col * CHAR_COLS))
        self.printed.append((words, [spot] * len(words)))

    def _label_char(self, x: float, y: float, char: str) -> int:
        """Label the cell, and return its `token_at`.  A character that finds its cell taken goes to the next."""
        col = int((self.left + x * self.frame_scale) * CHAR_COLS / FRAME)
        row = int((self.top + y * self.frame_scale) * CHAR_ROWS / FRAME)
        if not (0 <= row < CHAR_ROWS and 0 <= col < CHAR_COLS):
            return NOWHERE
        while col < CHAR_COLS - 1 and self.chars[row, col]:
            col += 1
        self.chars[row, col] = CHAR_CLASS[char]
        return token_at(row, col)

    def rectangle(self, x0, y0, x1, y1, fill=None, outline=None, width: float = 1) -> None:
        if self.pen:
            box = self._pixels([(x0, y0), (x1, y1)])
            self.pen.rectangle(box, fill, outline, max(1, round(width * self.scale)))

    def line(self, points, fill, width: float = 1) -> None:
        if self.pen:
            self.pen.line(self._pixels(points), fill, max(1, round(width * self.scale)))

    def ellipse(self, x0, y0, x1, y1, fill=None, outline=None, width: float = 1) -> None:
        if self.pen:
            box = self._pixels([(x0, y0), (x1, y1)])
            self.pen.ellipse(box, fill, outline, max(1, round(width * self.scale)))

    def shape(self, kind: str, colour: str, x: float, y: float, radius: float, fill) -> None:
        """A labelled shape around (x, y): ``colour`` is its name, ``fill`` its shade in this picture."""
        points = outline_of(kind, x, y, radius)
        if self.pen:
            self.pen.polygon(self._pixels(points), fill)
        cells = FRAME / AREA_CELLS
        mask = Image.new("1", (AREA_CELLS, AREA_CELLS))
        on_frame = [
            (
                (self.left + px * self.frame_scale) / cells - 0.5,
                (self.top + py * self.frame_scale) / cells - 0.5,
            )
            for px, py in points
        ]
        ImageDraw.Draw(mask).polygon(on_frame, 1)
        covered = np.asarray(mask)
        self.kinds[covered] = KINDS.index(kind) + 1
        self.colours[covered] = list(COLOURS).index(colour) + 1


def outline_of(kind: str, x: float, y: float, r: float) -> list[tuple[float, float]]:
    """The corners of a shape of about the same visual size whatever its kind."""

    def around(n, start, radii):
        angles = np.deg2rad(start) + np.arange(n) * 2 * np.pi / n
        return [(x + q * np.cos(a), y + q * np.sin(a)) for a, q in zip(angles, np.resize(radii, n))]

    if kind == "circle":
        return around(48, 0, [r])
    if kind == "square":
        return around(4, 45, [1.2 * r])
    if kind == "triangle":
        return around(3, -90, [1.2 * r])
    if kind == "star":
        return around(10, -90, [1.2 * r, 0.5 * r])
    if kind == "diamond":
        return around(4, 0, [0.85 * r, 1.25 * r])
    if kind == "cross":
        a, b = 1.05 * r, 0.38 * r
        corners = [
            (-b, -a),
            (b, -a),
            (b, -b),
            (a, -b),
            (a, b),
            (b, b),
            (b, a),
            (-b, a),
            (-b, b),
            (-a, b),
            (-a, -b),
            (-b, -b),
        ]
        return [(x + dx, y + dy) for dx, dy in corners]
    raise ValueError(f"There is no shape {kind!r}: take one of {', '.join(KINDS)}.")
