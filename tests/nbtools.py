"""Keeps the notebooks: `make notebooks` runs and refreshes them, tests/test_notebooks.py checks them.

A notebook's tags say what a cell is for:

* ``navigation``: a markdown cell whose text is made here (previous, all, next); every notebook ends with one.
* ``copy-this``: the last code cell, complete in itself; the tests run it in a fresh process.
* ``nbval-ignore-output`` and ``raises-exception``: exempt from nbval, so few of them are allowed.

The opening cell is one H1, a paragraph with the goal, "You'll learn" with its bullets, and the line
``Needs: … · Time: … · Model: …``.  README.md's table is made of it.
"""

import argparse
import ast
import base64
import copy
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
README = ROOT / "README.md"
TABLE = re.compile(r"(?<=<!-- notebooks: begin -->\n).*?(?=<!-- notebooks: end -->)", re.DOTALL)
# The first paragraph below the title that is no row of badges.
GOAL = re.compile(r"^# .+\n(?:\s*\[?!\[.*\n)*\s*((?!\**You'll learn|Needs:|\[?!\[)\S.*)$", re.MULTILINE)

# Lessons are run and tested like this: without a network and without a GPU, the same everywhere.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}

MAX_BYTES = 200_000  # of a notebook
MAX_LINES = 12  # of a code cell
MAX_WIDTH = 700  # pixels, of a picture as shown
MAX_EXEMPT = 2  # cells of a notebook that nbval may pass over
EXEMPT_TAGS = {"nbval-ignore-output", "raises-exception"}
TAGS = EXEMPT_TAGS | {"navigation", "copy-this", "setup", "parameters"}
NBVAL_COMMENT = re.compile(r"#\s*(NBVAL|PYTEST_VALIDATE)_\w+")
PRIVATE_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users|tmp|work)/|[A-Z]:\\Users\\|ipykernel_\d+")
WARNING = re.compile(r"\b\w*Warning:|Traceback \(most recent call last\)|^WARNING\b", re.MULTILINE)
UNWANTED_CODE = {
    r"^\s*!": "uses a shell line; write %pip, or Python",
    r"^\s*%pip (?!install -q )": "lets pip talk; write `%pip install -q …`",
    r"^\s*(import|from) google\.colab": "imports google.colab, which is only there on Colab",
    r"trust_remote_code": "names trust_remote_code, which nothing here needs",
    r"sys\.path": "changes sys.path; lessons use the installed package",
}


def notebooks(folder=FOLDER):
    """The lessons' paths, in reading order."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))


def read(path):
    return nbformat.read(str(path), as_version=4)


# --- What is made: bars, the README's table, stored outputs ---------------------------------------


def opening(nb):
    """What the first cell says of a notebook, as a dict: title, goal, learn (bullets), needs, time, model.

    Raises:
        ValueError: the first cell lacks one of them.
    """
    text = nb.cells[0].source if nb.cells else ""
    about = {
        "title": re.search(r"^# (.+)$", text, re.MULTILINE),
        "goal": GOAL.search(text),
        "learn": re.search(r"You'll learn.*\n+((?:[-*] .+\n?)+)", text),
        "needs": re.search(r"^Needs: (.+?) · ", text, re.MULTILINE),
        "time": re.search(r"^Needs: .* · Time: (.+?) · ", text, re.MULTILINE),
        "model": re.search(r"^Needs: .* · Model: (.+)$", text, re.MULTILINE),
    }
    missing = [name for name, match in about.items() if not match]
    if missing:
        raise ValueError(f"the first cell lacks: {', '.join(missing)}")
    about = {name: match[1].strip() for name, match in about.items()}
    about["learn"] = [line[2:].strip() for line in about["learn"].splitlines()]
    return about


def bar(path, paths):
    """The navigation bar of one notebook among all: previous, all, next."""
    place = paths.index(path)
    parts = ["[All lessons](../README.md#the-lessons)"]
    if place > 0:
        parts.insert(0, f"[← {opening(read(paths[place - 1]))['title']}]({paths[place - 1].name})")
    if place + 1 < len(paths):
        parts.append(f"[{opening(read(paths[place + 1]))['title']} →]({paths[place + 1].name})")
    return " · ".join(parts)


def table(paths):
    """The lessons as a markdown table, for README.md."""
    rows = ["| Lesson | What you do | Needs | Time |", "|---|---|---|---|"]
    for path in paths:
        about = opening(read(path))
        link = f"[{about['title']}](notebooks/{path.name})"
        rows.append(f"| {link} | {about['goal']} | {about['needs']} | {about['time']} |")
    return "\n".join(rows) + "\n"


def with_table(readme, paths):
    """README.md's text with the table between its two marks renewed."""
    return TABLE.sub(lambda _: table(paths), readme)


def tidy(nb):
    """Strip in place what differs between machines: versions, times, widgets, paths in tracebacks."""
    language = {"name": "python"}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nb.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": language})
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {output.evalue}"]
            # Without the state of a widget, its view is an error message; its text stays.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return nb


def renew_bars(nb, path, paths):
    for cell in nb.cells:
        if "navigation" in tags(cell):
            cell.source = bar(path, paths)
    return nb


def run(nb, folder=FOLDER):
    """Execute a notebook in place, from a fresh kernel, and keep its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient  # only refreshing needs it

    client = NotebookClient(
        nb,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    )
    client.execute()
    return nb


def refresh(chosen=(), folder=FOLDER):
    """Run the chosen notebooks (all, if none is named), and renew every bar and the README's table."""
    paths = notebooks(folder)
    chosen = {Path(path).resolve() for path in chosen} or set(paths)
    for path in paths:
        nb = renew_bars(read(path), path, paths)
        if path in chosen:
            print(f"running {path.name}", flush=True)
            run(nb, folder)
        nbformat.write(tidy(nb), str(path))
    README.write_text(with_table(README.read_text(encoding="utf-8"), paths), encoding="utf-8")


# --- What is checked ------------------------------------------------------------------------------


def problems(path, paths=None):
    """Everything wrong with a stored notebook, as sentences; an empty list means that it may be published."""
    nb = read(path)
    found = []
    if path.stat().st_size > MAX_BYTES:
        found.append(f"the file has {path.stat().st_size} bytes, {MAX_BYTES} are allowed")
    found += text_problems(nb)
    found += order_problems(nb)
    found += tag_problems(nb)
    for number, cell in enumerate(nb.cells):
        found += [f"cell {number}: {problem}" for problem in cell_problems(cell)]
    if tidy(copy.deepcopy(nb)) != nb:
        found.append("it carries marks of the machine it ran on; run `make notebooks`")
    return found + bar_problems(nb, path, paths or notebooks(path.parent))


def text_problems(nb):
    titles = [line for cell in nb.cells if cell.cell_type == "markdown" for line in headings(cell.source, 1)]
    found = [] if len(titles) == 1 else [f"{len(titles)} H1 headings: {titles}; one is wanted"]
    try:
        opening(nb)
    except ValueError as error:
        found.append(str(error))
    return found


def headings(markdown, level):
    """The headings of one level, those in code fences left out."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^#{{{level}}} (.+)$", prose, re.MULTILINE)


def order_problems(nb):
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        return [f"not executed in order from 1: {counts}; run `make notebooks`"]
    return []


def tag_problems(nb):
    found = []
    unknown = {tag for cell in nb.cells for tag in tags(cell)} - TAGS
    if unknown:
        found.append(f"unknown tags: {sorted(unknown)}")
    exempt = [cell for cell in nb.cells if EXEMPT_TAGS & set(tags(cell))]
    if len(exempt) > MAX_EXEMPT:
        found.append(f"{len(exempt)} cells are exempt from comparison, {MAX_EXEMPT} may be")
    copies = [cell for cell in nb.cells if "copy-this" in tags(cell)]
    if len(copies) != 1 or code_cells(nb)[-1] is not copies[0]:
        found.append("the last code cell, and no other, must have the tag copy-this")
    return found


def cell_problems(cell):
    found = picture_problems(cell)
    source = cell.source
    if cell.cell_type == "code":
        lines = [line for line in source.splitlines() if line.strip()]
        if not lines:
            found.append("is empty")
        if len(lines) > MAX_LINES and "copy-this" not in tags(cell):
            found.append(f"has {len(lines)} lines of code, {MAX_LINES} are allowed")
        if NBVAL_COMMENT.search(source):
            found.append("steers nbval by a comment; use a tag")
        found += [why for pattern, why in UNWANTED_CODE.items() if re.search(pattern, source, re.MULTILINE)]
        found += output_problems(cell)
    if PRIVATE_PATH.search(source):
        found.append(f"names a path of one machine: {PRIVATE_PATH.search(source)[0]}")
    return found


def output_problems(cell):
    found = []
    for output in cell.outputs:
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            found.append(f"stores an error: {output.ename}")
        if output.output_type == "stream" and output.name == "stderr":
            found.append(f"stores stderr: {output.text[:80]!r}")
        text = text_of(output)
        if WARNING.search(text):
            found.append(f"stores a warning: {WARNING.search(text)[0]!r}")
        if PRIVATE_PATH.search(text):
            found.append(f"stores a path of one machine: {PRIVATE_PATH.search(text)[0]}")
    return found


def text_of(output):
    """All text of an output, without the pictures within it."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    texts = [value for kind, value in output.data.items() if kind.startswith("text/")]
    return re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=\s]+", "", "\n".join(texts))


def picture_problems(cell):
    """Pictures without an alternative text, or wider than the page."""
    found = []
    if cell.cell_type == "markdown":
        if re.search(r"!\[\s*\]\(", cell.source):
            found.append("a picture in the text has no alternative text")
        found += html_picture_problems(cell.source)
        return found
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        found += html_picture_problems(data.get("text/html", ""))
        for kind in ("image/png", "image/jpeg"):
            about = output.get("metadata", {}).get(kind, {})
            if kind in data and not about.get("alt"):
                found.append("a picture has no alternative text")
            if kind in data and (about.get("width") or width_of(data[kind])) > MAX_WIDTH:
                found.append(f"a picture is wider than {MAX_WIDTH} pixels")
    return found


def html_picture_problems(html):
    parser = _Pictures()
    parser.feed(html)
    found = []
    for picture in parser.found:
        if not (picture.get("alt") or "").strip():
            found.append("a picture has no alternative text")
        embedded = re.match(r"data:image/\w+;base64,(.*)", picture.get("src") or "", re.DOTALL)
        if embedded and not picture.get("width") and width_of(embedded[1]) > MAX_WIDTH:
            found.append(f"a picture is wider than {MAX_WIDTH} pixels")
        if (picture.get("width") or "").isdigit() and int(picture["width"]) > MAX_WIDTH:
            found.append(f"a picture is wider than {MAX_WIDTH} pixels")
    return found


class _Pictures(HTMLParser):
    """Collects the attributes of all <img> in `found`."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.found.append(dict(attrs))


def width_of(encoded):
    """The width in pixels of a picture given in base64."""
    return Image.open(io.BytesIO(base64.b64decode(encoded))).width


def bar_problems(nb, path, paths):
    bars = [cell for cell in nb.cells if "navigation" in tags(cell)]
    if not bars or nb.cells[-1] is not bars[-1]:
        return ["the last cell must be a markdown cell with the tag navigation"]
    try:
        wanted = bar(path, paths)
    except ValueError as error:
        return [f"its bar cannot be made, since a neighbour's opening is incomplete: {error}"]
    if any(cell.source != wanted for cell in bars):
        return ["its navigation bar is not up to date; run `make notebooks`"]
    return []


def copy_this(nb):
    """The code of the cell that is complete in itself; checked to be plain Python.

    Raises:
        SyntaxError: it is not.
    """
    (source,) = [cell.source for cell in nb.cells if "copy-this" in tags(cell)]
    ast.parse(source)
    return source


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the notebooks, renew their bars and the README.")
    parser.add_argument("notebook", nargs="*", help="run only these; default: all")
    os.environ.update(ENVIRONMENT)
    refresh(parser.parse_args().notebook)
