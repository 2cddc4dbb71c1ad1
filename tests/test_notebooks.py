"""Every stored lesson is fit to be published, its last cell works by itself, and the checks find problems.

That the stored outputs are what the cells give today is nbval's part, with the pictures by nbimages.py.
"""

import base64
import copy
import io
import os
import subprocess
import sys

import nbformat
import nbtools
import pytest
from PIL import Image

NOTEBOOKS = nbtools.notebooks()
LESSONS = ["00_start_here", "01_image_analysis", "02_ocr", "03_compare_images"]
LESSONS += ["04_playground", "05_chat", "06_fast_and_small", "11_serve_and_scale", "13_inside_the_model"]
LESSONS += ["10_small_gpus", "12_fine_tune"]


def by_name(path):
    return path.stem


def test_the_lessons_are_there():
    assert set(LESSONS) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_notebook_has_no_problem(path):
    assert nbtools.problems(path) == []


def test_nothing_else_lies_beside_the_lessons():
    others = [path.name for path in nbtools.FOLDER.glob("*") if path not in NOTEBOOKS and path.name[0] != "."]
    assert others == []


def test_readme_table_is_up_to_date():
    readme = nbtools.README.read_text(encoding="utf-8")
    assert len(nbtools.TABLE.findall(readme)) == 1
    assert readme == nbtools.with_table(readme, NOTEBOOKS), "run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=by_name)
def test_copy_this_runs_by_itself(path, tmp_path):
    result = run_alone(nbtools.copy_this(nbtools.read(path)), tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip(), "it prints nothing, so a reader who runs it as a script sees nothing"


def run_alone(code, folder):
    """Run code in a fresh Python in an empty folder, where only what is installed can be imported."""
    script = folder / "copied.py"
    script.write_text(code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


# --- The checks themselves, on small notebooks made here -------------------------------------------

OPENING = """# {title}

See what {title} is about.

**You'll learn**

- one thing
- another

Needs: a CPU · Time: 1 minute · Model: the tiny one"""


def lesson(title):
    """A small notebook that has no problem, but for its bar."""
    cells = [
        nbformat.v4.new_markdown_cell(OPENING.format(title=title)),
        nbformat.v4.new_code_cell("answer = 'ALONE'\nprint(answer)"),
        nbformat.v4.new_code_cell("print('a copy')", metadata={"tags": ["copy-this"]}),
        nbformat.v4.new_markdown_cell("", metadata={"tags": ["navigation"]}),
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory):
    """Two lessons and a README as `make notebooks` leaves them."""
    root = tmp_path_factory.mktemp("tree")
    folder = root / "notebooks"
    folder.mkdir()
    readme = root / "README.md"
    readme.write_text(
        "# Top\n<!-- notebooks: begin -->\nold\n<!-- notebooks: end -->\nend\n", encoding="utf-8"
    )
    for name, title in (("00_first", "First"), ("01_second", "Second")):
        nbformat.write(lesson(title), str(folder / f"{name}.ipynb"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nbtools, "README", readme)
        nbtools.refresh(folder=folder)
    return root


@pytest.fixture
def first(refreshed):
    """The first of the two notebooks, free to be spoilt."""
    return nbtools.read(refreshed / "notebooks" / "00_first.ipynb")


def problems(nb, refreshed, tmp_path):
    """What is found wrong with a spoilt first notebook that lies beside the good second one."""
    path = tmp_path / "00_first.ipynb"
    nbformat.write(nb, str(path))
    (tmp_path / "01_second.ipynb").write_bytes((refreshed / "notebooks" / "01_second.ipynb").read_bytes())
    return nbtools.problems(path)


def test_refreshed_notebooks_have_no_problem(refreshed):
    paths = nbtools.notebooks(refreshed / "notebooks")
    assert [nbtools.problems(path) for path in paths] == [[], []]
    assert nbtools.read(paths[0]).cells[-1].source == (
        "[All lessons](../README.md#the-lessons) · [Second →](01_second.ipynb)"
    )
    assert nbtools.read(paths[1]).cells[-1].source == (
        "[← First](00_first.ipynb) · [All lessons](../README.md#the-lessons)"
    )


def test_refreshed_readme_lists_them(refreshed):
    readme = (refreshed / "README.md").read_text(encoding="utf-8")
    assert "| [First](notebooks/00_first.ipynb) | See what First is about. | a CPU | 1 minute |\n" in readme
    assert (
        readme.startswith("# Top\n")
        and readme.endswith("<!-- notebooks: end -->\nend\n")
        and "old" not in readme
    )


def test_copied_cell_knows_nothing_of_the_notebook(refreshed, tmp_path):
    nb = nbtools.read(refreshed / "notebooks" / "00_first.ipynb")
    assert run_alone(nbtools.copy_this(nb), tmp_path).stdout == "a copy\n"
    nb.cells[2].source = "print(answer)"
    assert "NameError" in run_alone(nbtools.copy_this(nb), tmp_path).stderr


def stream(name, text):
    return nbformat.v4.new_output("stream", name=name, text=text)


def shown(kind, value, **metadata):
    return nbformat.v4.new_output("display_data", {kind: value}, metadata=metadata)


def png(width):
    file = io.BytesIO()
    Image.new("RGB", (width, 10)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def set_source(cell, text):
    return lambda nb: nb.cells[cell].update(source=text)


def add_output(output):
    return lambda nb: nb.cells[1].outputs.append(output)


def add_tags(cell, *tags):
    return lambda nb: nb.cells[cell].metadata.update(tags=list(tags))


def exempt_three(nb):
    for _ in range(3):
        nb.cells.insert(1, nbformat.v4.new_code_cell("1", metadata={"tags": ["nbval-ignore-output"]}))


SPOILT = {
    "two titles": (set_source(3, "# Another"), "2 H1 headings"),
    "no goal": (set_source(0, "# First\n\nNeeds: a · Time: b · Model: c"), "lacks: goal, learn"),
    "not executed": (lambda nb: nb.cells[1].update(execution_count=None), "not executed in order"),
    "executed twice": (lambda nb: nb.cells[2].update(execution_count=7), "not executed in order"),
    "unknown tag": (add_tags(1, "nbval-skip"), "unknown tags"),
    "too many exempt": (exempt_three, "3 cells are exempt"),
    "comment marker": (set_source(1, "# NBVAL_IGNORE_OUTPUT\nprint(1)"), "by a comment"),
    "no copy": (add_tags(2), "must have the tag copy-this"),
    "copy not last": (
        lambda nb: nb.cells.insert(3, nbformat.v4.new_code_cell("1")),
        "must have the tag copy-this",
    ),
    "empty cell": (set_source(1, ""), "is empty"),
    "long cell": (set_source(1, "x = 1\n" * 13), "13 lines of code"),
    "shell": (set_source(1, "!ls"), "shell line"),
    "loud pip": (set_source(1, "%pip install phi3v-helpers"), "lets pip talk"),
    "colab only": (set_source(1, "from google.colab import files"), "only there on Colab"),
    "remote code": (set_source(1, "load(trust_remote_code=True)"), "trust_remote_code"),
    "private path in code": (set_source(1, "open('/home/ann/x.png')"), "path of one machine"),
    "private path in output": (add_output(stream("stdout", "/Users/ann/x.png")), "path of one machine"),
    "stderr": (add_output(stream("stderr", "loading")), "stores stderr"),
    "warning": (add_output(stream("stdout", "UserWarning: old")), "stores a warning"),
    "error": (
        add_output(nbformat.v4.new_output("error", ename="E", evalue="v", traceback=[])),
        "stores an error",
    ),
    "picture without alt": (add_output(shown("image/png", png(9))), "no alternative text"),
    "html without alt": (add_output(shown("text/html", "<p><img src='x.png'></p>")), "no alternative text"),
    "markdown without alt": (set_source(3, "![](x.png)"), "no alternative text"),
    "wide picture": (
        add_output(shown("image/png", png(900), **{"image/png": {"alt": "a"}})),
        "wider than 700",
    ),
    "wide html": (
        add_output(shown("text/html", f"<img alt='a' src='data:image/png;base64,{png(900)}'>")),
        "wider than 700",
    ),
    "too large": (add_output(stream("stdout", "x" * 200_000)), "200000 are allowed"),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), "marks of the machine"),
    "widget view": (
        add_output(shown("application/vnd.jupyter.widget-view+json", {"model_id": "1f"})),
        "marks of the machine",
    ),
    "cell timing": (lambda nb: nb.cells[1].metadata.update(execution={}), "marks of the machine"),
    "no bar": (lambda nb: nb.cells.pop(), "must be a markdown cell with the tag navigation"),
    "old bar": (set_source(3, "[Second →](01_second.ipynb)"), "bar is not up to date"),
}


@pytest.mark.parametrize("spoil, complaint", SPOILT.values(), ids=SPOILT)
def test_problem_is_found(spoil, complaint, first, refreshed, tmp_path):
    spoil(first)
    assert any(complaint in problem for problem in problems(first, refreshed, tmp_path))


def test_good_pictures_are_no_problem(first, refreshed, tmp_path):
    first.cells[1].outputs += [
        shown("image/png", png(700), **{"image/png": {"alt": "A black bar"}}),
        shown("image/png", png(1400), **{"image/png": {"alt": "A black bar", "width": 600}}),
        shown("text/html", f"<img width='600' alt='A bar' src='data:image/png;base64,{png(1400)}'>"),
    ]
    found = problems(first, refreshed, tmp_path)
    # Only that metadata is what an output of ours would not carry is of no interest here.
    assert not [problem for problem in found if "picture" in problem]


def test_tidy_shortens_tracebacks(first):
    error = nbformat.v4.new_output(
        "error", ename="Phi3VError", evalue="no such file", traceback=["/home/ann/x.py"]
    )
    first.cells[1].outputs.append(error)
    assert nbtools.tidy(copy.deepcopy(first)).cells[1].outputs[-1].traceback == ["Phi3VError: no such file"]
