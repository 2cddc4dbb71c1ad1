"""Draws the pictures that ship with the package, with their licence and a text for those who cannot see them.

python -m training.samples phi3v_helpers/samples
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from training import pictures

LOOK = pictures.Look(scale=2.0)  # 672 pixels: pleasant on a screen
LICENCE = "MIT"
SOURCE = "Drawn by training/samples.py of this project; all names and figures are invented."

CHART = {"title": "Nordwind revenue", "years": list(range(2020, 2025)), "values": [17, 26, 23, 41, 68]}
BOOK = {"title": "ALONE", "author": "Nora Winter"}
COVER = {"title": "Golden River", "author": "Felix Baker"}
SHAPES_1 = [(0, "red", "circle"), (4, "blue", "square"), (8, "green", "star")]
SHAPES_2 = [(0, "red", "circle"), (4, "orange", "square"), (8, "green", "star")]

# The seeds of the looks were chosen so that the tiny model reads these pictures, which it was not trained on.
# name -> (drawing, arguments, seed of its look, title, text in the place of the picture)
SAMPLES = {
    "stock_chart": (pictures.draw_chart, CHART, 31, "Revenue of a company",
                    "Bar chart titled Nordwind revenue, one bar a year from 2020 to 2024: 17, 26, 23, 41, 68."),
    "book_cover": (pictures.draw_book, BOOK, 1, "A book cover",
                   "Book cover with the title ALONE and the author Nora Winter."),
    "book_cover_2": (pictures.draw_book, COVER, 3, "Another book cover",
                     "Book cover with the title Golden River and the author Felix Baker."),
    "shapes_1": (pictures.draw_scene, SHAPES_1, 4, "Three shapes",
                 "A red circle at the top left, a blue square in the centre, a green star at the bottom right."),
    "shapes_2": (pictures.draw_scene, SHAPES_2, 4, "Three shapes, one of another colour",
                 "A red circle at the top left, an orange square in the centre, a green star at the bottom right."),
    "clouds": (pictures.draw_other, None, 6, "Clouds of colour",
               "Soft clouds of colour: nothing that the tiny model knows."),
}  # fmt: skip


def draw_all(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {}
    for name, (draw, facts, seed, title, alt) in SAMPLES.items():
        arguments = () if facts is None else (facts,)
        picture = draw(random.Random(seed), LOOK, *arguments)
        picture.image.save(folder / f"{name}.png", optimize=True)
        about[name] = {
            "file": f"{name}.png",
            "title": title,
            "alt": alt,
            "licence": LICENCE,
            "source": SOURCE,
        }
    (folder / "samples.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]))
