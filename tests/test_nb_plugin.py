"""The picture plugin, and what nbval makes of changed notebooks when it is loaded."""

import io
import os
import re
import subprocess
import sys

import nbformat
import nbimages
import nbtools
import numpy as np
import pytest
from nbval.plugin import get_sanitize_patterns
from PIL import Image, ImageDraw, ImageFont

PICTURE = """
from PIL import Image, ImageDraw

picture = Image.new("RGB", (320, 200), "white")
ImageDraw.Draw(picture).rectangle((40, 40, 160, 120), fill="{colour}")
"""
IN_HTML = """
import base64, io
from IPython.display import HTML

file = io.BytesIO()
picture.save(file, "PNG")
HTML(f'<img alt="A box" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">')
"""


def lesson(colour="blue", answer="The title is ALONE.", seconds="0.9"):
    """A small notebook of five code cells, not yet run."""
    cells = [
        PICTURE.format(colour=colour),
        "picture",
        IN_HTML,
        f"print({answer!r}, '31 tokens out', '{seconds} s')",
        "'done'",
    ]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What pytest says of each cell: {notebook: {cell number: "PASSED" or "FAILED"}}."""
    folder = tmp_path_factory.mktemp("lessons")
    lessons = [lesson(), lesson("red"), lesson(answer="It is ALINE."), lesson(seconds="7")]
    plain, red, other, slow = [nbtools.run(nb, folder) for nb in lessons]
    changes = {
        "unchanged": plain,
        "swapped": with_outputs_of(plain, red, [1]),
        "swapped_in_html": with_outputs_of(plain, red, [2]),
        "added": with_outputs_of(plain, plain, [1], twice=True),
        "answer": with_outputs_of(plain, other, [3]),
        "slower": with_outputs_of(plain, slow, [3]),
    }
    for name, nb in changes.items():
        nbformat.write(nb, str(folder / f"{name}.ipynb"))
    return run_nbval(folder)


def with_outputs_of(nb, other, numbers, twice=False):
    """A copy of a notebook in which some cells store what another's cells printed and showed."""
    nb = nbformat.from_dict(nb)
    for number in numbers:
        nb.cells[number].outputs = other.cells[number].outputs * (2 if twice else 1)
    return nb


def run_nbval(folder):
    command = [sys.executable, "-m", "pytest", "-c", str(nbtools.ROOT / "pyproject.toml"), "-p", "nbimages"]
    command += ["-p", "no:cacheprovider", "--nbval", "-rA", "-n", "2", "--dist", "loadfile", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(nbtools.ROOT / "tests")}
    result = subprocess.run(
        command, cwd=nbtools.ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    verdicts = {}
    line = re.compile(r"^(PASSED|FAILED) .*?(\w+)\.ipynb::Cell (\d+)", re.MULTILINE)
    for verdict, name, cell in line.findall(result.stdout):
        verdicts.setdefault(name, {})[int(cell)] = verdict
    assert verdicts, result.stdout + result.stderr
    return verdicts


def failed(cells):
    assert len(cells) == 5
    return [number for number, verdict in sorted(cells.items()) if verdict == "FAILED"]


def test_unchanged_notebook_passes(verdicts):
    assert failed(verdicts["unchanged"]) == []


def test_swapped_picture_fails(verdicts):
    assert failed(verdicts["swapped"]) == [1]


def test_swapped_picture_in_html_fails(verdicts):
    assert failed(verdicts["swapped_in_html"]) == [2]


def test_added_picture_fails(verdicts):
    assert failed(verdicts["added"]) == [1]


def test_changed_answer_fails(verdicts):
    assert failed(verdicts["answer"]) == [3]


def test_another_time_passes(verdicts):
    assert failed(verdicts["slower"]) == []


# --- How alike pictures must be -------------------------------------------------------------------


def chart(value="27", kind="PNG", size=(600, 400), **options):
    """A picture with a number in it, as bytes."""
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((100, 100, 140, 300), fill="steelblue")
    draw.text((105, 80), value, fill="black", font=ImageFont.load_default(size=16))
    return encoded(image, kind, **options)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_other_compression_is_alike():
    fast, small = chart(compress_level=1), chart(compress_level=9)
    assert fast != small and nbimages.compare_pictures([fast], [small]) is None
    coarse, fine = chart(kind="JPEG", quality=90), chart(kind="JPEG", quality=95)
    assert coarse != fine and nbimages.compare_pictures([coarse], [fine]) is None


def test_faint_noise_is_alike():
    clean = nbimages.pixels(chart())
    noisy = clean + np.random.default_rng(0).integers(-3, 4, clean.shape)
    picture = encoded(Image.fromarray(noisy.clip(0, 255).astype(np.uint8)))
    assert nbimages.compare_pictures([picture], [chart()]) is None


def test_one_changed_digit_is_told():
    assert "Picture 1 differs" in nbimages.compare_pictures([chart("27")], [chart("21")])


def test_a_change_in_the_last_column_is_told():
    image = Image.new("RGB", (33, 33), "white")
    changed = image.copy()
    ImageDraw.Draw(changed).line((32, 0, 32, 32), fill="black")
    assert nbimages.compare_pictures([encoded(changed)], [encoded(image)])


def test_another_size_is_told():
    complaint = nbimages.compare_pictures([chart(size=(500, 400))], [chart()])
    assert complaint == "Picture 1 is stored as 600x400 pixels and is now 500x400."


def test_transparency_counts_as_white():
    clear, white = Image.new("RGBA", (20, 20), (0, 0, 0, 0)), Image.new("RGB", (20, 20), "white")
    assert nbimages.compare_pictures([encoded(clear)], [encoded(white)]) is None


# --- What is left out of the comparison -----------------------------------------------------------


def sanitised(text):
    patterns = get_sanitize_patterns((nbtools.ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8"))
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    "answer",
    [
        'The title of the book is "ALONE" and the author is Morgan Maxwell.',
        "The bar chart shows revenue of 2017 to 2019: 0.8, 1.9 and 2.9 billion. The highest is 2.9 in 2019.",
        "There are 3 squares and 2 small circles; 1 star is at the top left.",
        "757 image tokens, grid 2 x 2, 8.29 GB in bfloat16, 0.375 MiB a token",
        "tiny phi3v (embedded) · 142 tokens in, 31 out",
    ],
)
def test_answers_are_compared_whole(answer):
    assert sanitised(answer) == answer


def test_times_and_addresses_are_left_out():
    text = "0.9 s · 35.2 tokens/s · 14:02:59 · <object at 0x7f3a> · ipykernel_123/456 · torch 2.13.0+cpu"
    assert sanitised(text) == "TIME · PACE · CLOCK · <object at ADDRESS> · KERNEL · torch VERSION"
