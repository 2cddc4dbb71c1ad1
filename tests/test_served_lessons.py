"""Our own lessons, unchanged, with the model on a server: the same answers as with the model on this machine."""

import re

import nbtools
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from serving import command
from traitlets.config import Config

from phi3v_helpers.remote import RemoteVision

LESSONS = ["01_image_analysis", "02_ocr", "03_compare_images"]
LOADED = re.compile(r"^(Phi3Vision|RemoteVision): .*\n?", re.MULTILINE)
SECONDS = re.compile(r"\b\d+\.\d+ s\b")


@pytest.fixture(scope="module")
def address():
    with command("tiny") as process:
        yield process.address


def what_it_shows(cells, model, monkeypatch):
    """The text that each code cell shows where "auto" is `model`, and that model."""
    monkeypatch.setenv("PHI3V_MODEL", model)
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    return [shown(shell, cell.source) for cell in cells], shell.user_ns["model"]


def shown(shell, source):
    with capture_output() as captured:
        result = shell.run_cell(source)
    assert result.success, f"{source}\n\n{captured.stdout}"
    texts = [captured.stdout, *(output.data["text/plain"] for output in captured.outputs)]
    # What differs: who answered, and in what time.
    text = LOADED.sub("", "\n".join(texts)).replace("tiny phi3v (embedded)", "tiny")
    return SECONDS.sub("TIME", text)


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_says_the_same_with_a_model_on_a_server(name, address, monkeypatch):
    cells = nbtools.code_cells(nbtools.read(nbtools.FOLDER / f"{name}.ipynb"))
    here, _ = what_it_shows(cells, "tiny", monkeypatch)
    there, model = what_it_shows(cells, address, monkeypatch)
    assert isinstance(model, RemoteVision) and sum(len(text) for text in here) > 500
    for cell, mine, served in zip(cells, here, there):
        if "nbval-ignore-output" not in nbtools.tags(cell):
            assert served == mine, cell.source
