"""The upload-and-ask cell, without a browser: buttons are clicked and values set from here."""

import datetime
import json

import ipywidgets
import pytest
from forms import BLUE, LONG, RED, find, find_all, live_widgets, png, text_of, until

import phi3v_helpers as p3v
from phi3v_helpers.widgets.zone import uploaded_files

IS_8 = int(ipywidgets.__version__.split(".")[0]) >= 8


def set_upload(form, *contents):
    """As if a reader had chosen files, in the shape of the ipywidgets that is installed."""
    upload = find(form, "upload")
    files = [
        {"name": f"{i}.png", "type": "image/png", "size": len(c), "content": c}
        for i, c in enumerate(contents)
    ]
    if IS_8:
        now = datetime.datetime.now(datetime.timezone.utc)
        upload.value = tuple(
            {**file, "content": memoryview(file["content"]), "last_modified": now} for file in files
        )
    else:
        upload.set_trait(
            "value", {file["name"]: {"metadata": file, "content": file["content"]} for file in files}
        )


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


# --- the form ---


def test_upload_ask_and_stop(model, kind):
    form = p3v.upload_and_ask(model, "What is this?", max_new_tokens=LONG)
    ask, stop, answer, status = (find(form, name) for name in ("ask", "stop", "answer", "status"))
    assert find(form, "question").value == "What is this?"
    assert not ask.disabled and stop.disabled
    set_upload(form, RED, BLUE)
    assert len(find_all(find(form, "preview"), "thumbnail")) == 2
    ask.click()
    until(lambda: len(answer.value) > 150)
    assert ask.disabled and not stop.disabled
    ask.click()  # nothing happens
    assert form.ask() is None
    stop.click()
    until(lambda: stop.disabled)
    assert not ask.disabled
    until(lambda: "cut short" in status.value)
    assert model.name in status.value
    assert f"{model.count_tokens([RED, BLUE], 'What is this?'):,} tokens in" in status.value


def test_the_pictures_chosen_last_count(model):
    form = p3v.upload_and_ask(model, "What is this?", max_new_tokens=4)
    set_upload(form, RED, BLUE)
    set_upload(form, BLUE)
    assert len(find(form, "preview").children) == 1
    job = form.ask()
    assert job.wait(20) and job.answer == model.ask(BLUE, "What is this?", max_new_tokens=4)
    again = form.ask()  # they are still there
    assert again.wait(20) and again.answer == job.answer


def test_no_thumbnail_is_left_behind(model):
    form = p3v.upload_and_ask(model)
    set_upload(form, RED)
    before = live_widgets()
    for _ in range(20):
        set_upload(form, BLUE)
    assert len(find(form, "preview").children) == 1 and live_widgets() == before


def test_without_a_picture(model):
    job = p3v.upload_and_ask(model, "Who are you?", max_new_tokens=4).ask()
    assert job.wait(20) and job.answer == model.ask(None, "Who are you?", max_new_tokens=4)


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
    assert form.ask().wait(20)
    assert "There is no file" in find(form, "answer-trouble").value and "<img" not in text_of(form)
    set_upload(form, b"<script>alert(1)</script>")
    note = find(form, "preview").children[0]
    assert isinstance(note, ipywidgets.HTML) and "<script" not in note.value and "not a picture" in note.value


def test_errors_stand_in_place_and_the_next_question_works(model):
    form = p3v.upload_and_ask(model, " ", max_new_tokens=4)
    for content, words in ((b"text", "is not a picture"), (RED, "The question is empty.")):
        set_upload(form, content)
        assert form.ask().wait(20)
        assert words in find(form, "answer-trouble").value and not find(form, "ask").disabled
    find(form, "question").value = "What?"
    job = form.ask()
    assert job.wait(20) and job.state == "done" and find(form, "answer-trouble").value == ""


def test_no_uploaded_picture_is_in_the_state_that_a_notebook_saves(model):
    pytest.importorskip("anywidget")
    form = p3v.upload_and_ask(model)
    set_upload(form, png("red", (400, 300)))
    assert not find(form, "upload").value

    def states(widget):
        return [widget.get_state()] + [s for child in getattr(widget, "children", ()) for s in states(child)]

    saved = json.dumps(states(form), default=repr)
    assert not any(mark in saved for mark in ("IHDR", "JFIF", "base64", "RIFF"))


def test_the_form_has_a_plain_text_for_pages_without_widgets(model):
    assert "Run this cell" in repr(p3v.upload_and_ask(model))
