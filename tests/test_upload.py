"""The upload-and-ask cell, without a browser: buttons are clicked and values set from here."""

import io
import sys
import threading
import time
import types

import ipywidgets
import pytest
from PIL import Image
from random_model import random_folder

import phi3v_helpers as p3v
from phi3v_helpers.upload import Asker, ask_in_cell, uploaded_files

LONG = 3000


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = png("red"), png("blue")


@pytest.fixture(scope="module")
def model():
    return p3v.load(random_folder(), verbose=False)


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


# --- the value of a FileUpload ---


def test_the_value_of_ipywidgets_8_and_of_7():
    eight = (
        {
            "name": "a.png",
            "type": "image/png",
            "size": 3,
            "content": memoryview(b"abc"),
            "last_modified": None,
        },
        {"name": "b.png", "type": "image/png", "size": 1, "content": memoryview(b"d"), "last_modified": None},
    )
    seven = {
        "a.png": {"metadata": {"name": "a.png", "type": "image/png", "size": 3}, "content": b"abc"},
        "b.png": {"metadata": {"name": "b.png", "type": "image/png", "size": 1}, "content": b"d"},
    }
    for value in (eight, seven):
        assert uploaded_files(value) == [("a.png", b"abc"), ("b.png", b"d")]
    assert uploaded_files(()) == uploaded_files({}) == []


def test_what_this_ipywidgets_gives():
    assert uploaded_files(ipywidgets.FileUpload().value) == []


# --- the work, apart from the layout ---


class Page:
    """What an Asker shows, and when."""

    def __init__(self):
        self.shown = []
        self.done = threading.Event()

    def __call__(self, text, note, busy):
        self.shown.append((time.monotonic(), text, note, busy))
        if not busy:
            self.done.set()


def test_an_answer_grows_and_is_signed(model):
    page = Page()
    asker = Asker(model, page, max_new_tokens=300)
    started = time.monotonic()
    asker.ask([RED], "What is this?")
    assert time.monotonic() - started < 0.5, "a callback must return at once"
    assert page.done.wait(30)
    texts = [text for _, text, _, _ in page.shown]
    assert texts[0] == "" and texts[-1] == model.ask(RED, "What is this?", max_new_tokens=300)
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert len(set(texts)) > 3
    assert model.name in page.shown[-1][2] and "300 out" in page.shown[-1][2]
    times = [moment for moment, *_ in page.shown[:-1]]
    assert all(later - earlier > 0.045 for earlier, later in zip(times, times[1:], strict=False))


def test_stop_is_prompt_and_keeps_what_was_said(model):
    page = Page()
    asker = Asker(model, page, max_new_tokens=LONG)
    asker.ask([RED], "What is this?")
    until(lambda: page.shown[-1][1])
    started = time.monotonic()
    asker.stop()
    assert page.done.wait(10)
    assert time.monotonic() - started < 2
    assert page.shown[-1][1] and "cut short" in page.shown[-1][2]


def test_one_question_at_a_time(model):
    page = Page()
    asker = Asker(model, page, max_new_tokens=LONG)
    asker.ask([RED], "One?")
    until(lambda: page.shown and page.shown[-1][1])
    threads = threading.active_count()
    asker.ask([BLUE], "Two?")
    assert threading.active_count() == threads
    asker.stop()
    assert page.done.wait(5)
    page.done.clear()
    asker.ask([BLUE], "Three?")
    asker.stop()
    assert page.done.wait(5)


def test_errors_are_shown_and_the_next_question_works(model):
    page = Page()
    asker = Asker(model, page, max_new_tokens=5)
    for sources, question, words in (
        (["nowhere.png"], "What?", "There is no file 'nowhere.png'."),
        ([b"text"], "What?", "is not a picture"),
        ([RED], " ", "The question is empty."),
    ):
        asker.ask(sources, question)
        assert page.done.wait(10)
        assert words in page.shown[-1][2] and page.shown[-1][3] is False
        page.done.clear()
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    asker.ask([RED], "What?")
    assert page.done.wait(10)
    handle.remove()
    assert "ZeroDivisionError" in page.shown[-1][2]
    page.done.clear()
    asker.ask([], "Without a picture?")
    assert page.done.wait(10)
    assert "5 out" in page.shown[-1][2]


# --- the form ---


def find(widget, name):
    """The widget with the class p3v-<name> in a form."""
    if f"p3v-{name}" in widget._dom_classes:
        return widget
    found = (find(child, name) for child in getattr(widget, "children", ()))
    return next((widget for widget in found if widget is not None), None)


def set_upload(form, *contents):
    """As if a reader had chosen files, in the shape of the ipywidgets that is installed."""
    upload = find(form, "upload")
    files = [
        {"name": f"{i}.png", "type": "image/png", "size": len(c), "content": c}
        for i, c in enumerate(contents)
    ]
    if int(ipywidgets.__version__.split(".")[0]) >= 8:
        import datetime

        now = datetime.datetime.now(datetime.timezone.utc)
        upload.value = tuple(
            {**file, "content": memoryview(file["content"]), "last_modified": now} for file in files
        )
    else:
        upload.set_trait(
            "value", {file["name"]: {"metadata": file, "content": file["content"]} for file in files}
        )


def test_upload_ask_and_stop(model):
    form = p3v.upload_and_ask(model, "What is this?", max_new_tokens=LONG)
    ask, stop, answer, status = (find(form, name) for name in ("ask", "stop", "answer", "status"))
    assert find(form, "question").value == "What is this?"
    assert not ask.disabled and stop.disabled
    set_upload(form, RED, BLUE)
    assert [type(child) for child in find(form, "preview").children] == [ipywidgets.Image] * 2
    ask.click()
    until(lambda: "kilu" in answer.value or "<div" in answer.value and len(answer.value) > 150)
    assert ask.disabled and not stop.disabled
    ask.click()  # nothing happens
    stop.click()
    until(lambda: stop.disabled)
    assert not ask.disabled
    assert model.name in status.value and "cut short" in status.value
    assert f"{model.count_tokens([RED, BLUE], 'What is this?'):,} tokens in" in status.value


def test_a_path_or_address_instead(model, tmp_path):
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    form = p3v.upload_and_ask(model, max_new_tokens=4)
    find(form, "address").value = f"  {path} "
    find(form, "ask").click()
    until(lambda: " out" in find(form, "status").value)
    assert (
        f"{model.count_tokens(path, find(form, 'question').value):,} tokens in" in find(form, "status").value
    )


def test_what_the_reader_and_the_model_write_is_escaped(model):
    form = p3v.upload_and_ask(model, max_new_tokens=4)
    find(form, "address").value = "<img src=x onerror=alert(1)>.png"
    find(form, "ask").click()
    until(lambda: "no file" in find(form, "status").value)
    assert "<img" not in find(form, "status").value
    set_upload(form, b"<script>alert(1)</script>")
    note = find(form, "preview").children[0]
    assert isinstance(note, ipywidgets.HTML) and "<script" not in note.value and "not a picture" in note.value


# --- on Colab ---


def test_the_blocking_form(model, capsys):
    typed = iter(["", "And now?", ""])
    answer = ask_in_cell(
        model, "What?", lambda: {"red.png": RED}, lambda prompt: next(typed), max_new_tokens=6
    )
    out = capsys.readouterr().out
    expected = [model.ask(RED, question, max_new_tokens=6) for question in ("What?", "And now?")]
    assert answer == expected[1]
    assert all(text in out for text in expected) and out.count("6 out") == 2


def test_the_blocking_form_tells_errors_and_goes_on(model, capsys):
    typed = iter(["What is <|image_9|>?", "What?", ""])
    answer = ask_in_cell(model, "", lambda: {"red.png": RED}, lambda prompt: next(typed), max_new_tokens=3)
    assert "<|image_9|>" in capsys.readouterr().out
    assert answer.new_tokens == 3
    assert ask_in_cell(model, "", lambda: {}, lambda prompt: pytest.fail("asked")) is None
    assert "No picture" in capsys.readouterr().out


def test_the_blocking_form_can_be_interrupted(model, capsys):
    import _thread

    typed = iter(["What?", ""])
    threading.Timer(0.5, _thread.interrupt_main).start()
    answer = ask_in_cell(model, "", lambda: {"r.png": RED}, lambda _: next(typed), max_new_tokens=LONG)
    assert answer and not answer.finished
    assert "cut short" in capsys.readouterr().out


def test_colab_gets_the_blocking_form(model, monkeypatch, capsys):
    colab = types.SimpleNamespace(files=types.SimpleNamespace(upload=lambda: {}))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    assert p3v.upload_and_ask(model) is None
    assert "No picture was chosen" in capsys.readouterr().out


def test_the_form_has_a_plain_text_for_pages_without_widgets(model):
    assert "Run this cell" in repr(p3v.upload_and_ask(model))
