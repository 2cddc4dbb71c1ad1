"""The forms that ask and answer within a running cell, as on Colab."""

import _thread
import contextlib
import sys
import threading
import time
import types

import pytest
from forms import LONG
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers.widgets import cell, markup
from phi3v_helpers.widgets.cell import HINT, chat_in_cell, compare_in_cell, playground_in_cell

RED, BLUE = (Image.new("RGB", (40, 30), colour) for colour in ("red", "blue"))


@pytest.fixture
def files(tmp_path):
    """What a file chooser gives: {name: bytes}."""
    for name, image in (("red.png", RED), ("blue.png", BLUE)):
        image.save(tmp_path / name)
    return {name: (tmp_path / name).read_bytes() for name in ("red.png", "blue.png")}


class Reader:
    """Types these lines; an Exception among them is raised instead, a function is called first."""

    def __init__(self, *lines):
        self.lines, self.prompts = list(lines), []

    def __call__(self, prompt):
        self.prompts.append(prompt)
        line = self.lines.pop(0)
        if isinstance(line, type):
            raise line
        return line


def nothing():
    pytest.fail("the file chooser was opened")


@pytest.fixture
def interrupt(monkeypatch):
    """The cell is interrupted as soon as a part of the first answer was printed."""
    pending = [_thread.interrupt_main]

    def printing(*words, end="\n", **options):
        print(*words, end=end, **options)
        if end == "" and words[0] and pending:
            pending.pop()()

    monkeypatch.setattr(cell, "print", printing, raising=False)


# --- one question after the other ---


def test_question_after_question_about_uploaded_pictures(model, files, capsys):
    read = Reader("", "And now?", "")
    answer = playground_in_cell(model, None, "What?", lambda: files, read, max_new_tokens=6)
    out = capsys.readouterr().out
    expected = [model.ask([RED, BLUE], question, max_new_tokens=6) for question in ("What?", "And now?")]
    assert answer == expected[1]
    assert all(text in out for text in expected)
    assert out.count(f"[{model.name} · ") == out.count(" 6 out · ") == 2
    assert "Picture 1: red.png, 40 x 30" in out and "Picture 2: blue.png" in out and out.count(HINT) == 1
    assert read.prompts == ["Question (empty: 'What?'): ", *["Next question (empty: end): "] * 2]


def test_the_text_is_printed_as_it_comes(model, monkeypatch):
    printed = []
    monkeypatch.setattr(
        cell, "print", lambda *words, **_: printed.append((time.monotonic(), *words)), raising=False
    )
    answer = playground_in_cell(model, [RED], "What?", nothing, Reader("", ""), max_new_tokens=300)
    pieces = [(moment, piece) for moment, piece in printed if piece and piece in answer]
    assert "".join(piece for _, piece in pieces) == answer
    assert len(pieces) > 3 and pieces[-1][0] - pieces[0][0] > 0.1


def test_given_pictures_need_no_upload(model, capsys):
    for images in (RED, [RED], "shapes_1", []):
        asked = None if images == [] else p3v.samples["shapes_1"] if images == "shapes_1" else images
        answer = playground_in_cell(model, images, "What?", nothing, Reader("", ""), max_new_tokens=4)
        assert answer == model.ask(asked, "What?", max_new_tokens=4)


def test_without_an_upload_nothing_is_asked(model, capsys):
    assert playground_in_cell(model, None, "What?", dict, lambda _: pytest.fail("asked")) is None
    assert capsys.readouterr().out == "No picture was chosen. Run the cell again to choose one.\n"


@pytest.mark.parametrize("lines", [("",), ("   ",), (KeyboardInterrupt,)])
def test_an_empty_line_or_an_interrupt_ends_it(model, lines, capsys):
    assert playground_in_cell(model, [RED], "", nothing, Reader(*lines)) is None
    asked = playground_in_cell(model, [RED], "What?", nothing, Reader("Why?", *lines), max_new_tokens=2)
    assert asked == model.ask(RED, "Why?", max_new_tokens=2)


def test_an_interrupt_at_the_first_question_asks_nothing(model, capsys):
    assert playground_in_cell(model, [RED], "What?", nothing, Reader(KeyboardInterrupt)) is None
    assert "out" not in capsys.readouterr().out


def test_errors_are_told_and_it_goes_on(model, files, capsys):
    read = Reader("What is <|image_1|> <|image_1|>?", "What?", "+ nowhere.png", "")
    broken = {"notes.txt": b"text", **files}
    answer = playground_in_cell(model, None, "", lambda: broken, read, max_new_tokens=3)
    out = capsys.readouterr().out
    assert "notes.txt: " in out and "not a picture" in out
    assert "The question names <|image_1|>, <|image_1|>" in out
    assert "There is no file 'nowhere.png'." in out
    assert answer == model.ask([RED, BLUE], "What?", max_new_tokens=3)


def test_an_error_in_the_model_is_told_and_it_goes_on(model, capsys):
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)

    def read(prompt, lines=("One?", "Two?", "")):
        if len(seen) == 1:
            handle.remove()
        seen.append(prompt)
        return lines[len(seen) - 1]

    seen = []
    answer = playground_in_cell(model, [RED], "", nothing, read, max_new_tokens=3)
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert answer == model.ask(RED, "Two?", max_new_tokens=3)


def test_an_error_does_not_take_the_last_answer(model, capsys):
    answer = playground_in_cell(
        model, [RED], "", nothing, Reader("What?", "<|image_1|> <|image_1|>", ""), max_new_tokens=3
    )
    assert answer == model.ask(RED, "What?", max_new_tokens=3)


def test_pictures_are_added_on_the_way(model, files, tmp_path, capsys):
    uploads = iter([{"red.png": files["red.png"]}, {"blue.png": files["blue.png"]}])
    read = Reader("One?", "+", f"+ {tmp_path / 'red.png'}", "+shapes_1", "All?", "")
    answer = playground_in_cell(model, None, "", lambda: next(uploads), read, max_new_tokens=3)
    assert answer == model.ask([RED, BLUE, RED, p3v.samples["shapes_1"]], "All?", max_new_tokens=3)
    out = capsys.readouterr().out
    assert "Picture 2: blue.png" in out and "Picture 3: red.png" in out and "Picture 4: Three" in out


def test_an_interrupted_answer_is_kept_as_far_as_it_was_said(model, interrupt, capsys):
    started = time.monotonic()
    answer = playground_in_cell(model, [RED], "What?", nothing, Reader("", ""), max_new_tokens=LONG)
    assert time.monotonic() - started < 5
    assert answer and not answer.finished
    out = capsys.readouterr().out
    assert "cut short" in out and str(answer) in out
    assert model.ask(RED, "What?", max_new_tokens=answer.new_tokens) == answer


def test_interrupted_again_and_again(model, capsys):
    """Wherever two interrupts come: the model is free afterwards."""
    for delay in (0.01, 0.05, 0.2):
        for more in (0, 0.001, 0.02):
            timers = [threading.Timer(when, _thread.interrupt_main) for when in (delay, delay + more)]
            try:
                for timer in timers:
                    timer.start()
                playground_in_cell(model, [RED], "What?", nothing, Reader("", ""), max_new_tokens=LONG)
                time.sleep(0.3)
            except KeyboardInterrupt:
                pass  # it came before the form began, or after its end
            while any(timer.is_alive() for timer in timers):
                with contextlib.suppress(KeyboardInterrupt):
                    time.sleep(0.01)
    assert model.ask(RED, "What?", max_new_tokens=3).new_tokens == 3


# --- a conversation ---


def test_a_conversation(model, capsys):
    read = Reader("Who?", "+ shapes_1", "What?", "<|image_1|>", "Why?", "")
    chat = chat_in_cell(model, [RED], "Be brief.", nothing, read, max_new_tokens=4)
    twin = model.chat(RED, "Be brief.")
    twin.ask("Who?", max_new_tokens=4)
    twin.add(p3v.samples["shapes_1"])
    twin.ask("What?", max_new_tokens=4)
    twin.ask("Why?", max_new_tokens=4)
    assert chat.history == twin.history and chat.image_counts == [1, 1, 0]
    out = capsys.readouterr().out
    assert all(answer in out for _, answer in chat.history) and "names <|image_1|> again" in out


def test_a_conversation_about_uploads_or_about_nothing(model, files, capsys):
    chat = chat_in_cell(model, None, None, lambda: files, Reader("Who?", ""), max_new_tokens=3)
    assert chat.image_counts == [2]
    chat = chat_in_cell(model, None, None, dict, Reader("Who?", "+ shapes_1", "What?", ""), max_new_tokens=3)
    assert chat.image_counts == [0, 1]


def test_an_interrupted_conversation_goes_on(model, interrupt, capsys):
    chat = chat_in_cell(model, [RED], None, nothing, Reader("Who?", ""), max_new_tokens=1500)
    assert len(chat.history) == 1 and chat.history[0][1]
    assert "cut short" in capsys.readouterr().out
    chat.rewind()  # in letters, as this model reads it, what was said may be longer than its context
    assert chat.ask("And?", max_new_tokens=3).new_tokens == 3


# --- comparisons ---


def compared(result):
    return [result[side]["answer"] for side in ("left", "right")]


def test_two_pictures(model, files, capsys):
    read = Reader("", "", "Why?", "")
    results = compare_in_cell(model, None, None, "What?", lambda: files, read, max_new_tokens=9)
    out = capsys.readouterr().out
    assert "1  two pictures, one question\n2  two questions\n3  two settings\n" in out and "models" not in out
    assert "What differs (empty: 1): " in read.prompts
    assert [result["differs"] for result in results] == ["pictures"] * 2
    for result, question in zip(results, ("What?", "Why?")):
        expected = [model.ask(image, question, max_new_tokens=9) for image in (RED, BLUE)]
        assert compared(result) == expected
        assert result["verdict"] == markup.verdict(*expected) and result["verdict"] in out
        assert all(text in out for text in expected)
        assert all(text in out for text in markup.bracketed(*expected))
    assert "--- left: red.png ---" in out and "--- right: blue.png ---" in out


def test_two_questions(model, capsys):
    read = Reader("2", "What?", "Why?", "What?", "What?", "")
    results = compare_in_cell(model, None, [RED, BLUE], "", nothing, read, max_new_tokens=6)
    expected = [model.ask([RED, BLUE], question, max_new_tokens=6) for question in ("What?", "Why?")]
    assert [compared(result) for result in results] == [expected, [expected[0]] * 2]
    out = capsys.readouterr().out
    assert "The answers are the same." in out and "--- right: Why? ---" in out
    assert read.prompts.count("The other question: ") == 2


def test_two_settings(model, capsys):
    read = Reader(
        "3",
        "",
        "",
        "max_new_tokens=3, temperature=0.5 seed=1",
        "What?",
        "warmth=2",
        "What?",
        "num_crops=x",
        "",
    )
    results = compare_in_cell(model, None, RED, "What?", nothing, read, max_new_tokens=6)
    (result,) = results
    assert result["left"]["options"] == {"max_new_tokens": 6}
    assert result["right"]["options"] == {"max_new_tokens": 3, "temperature": 0.5, "seed": 1}
    assert compared(result) == [
        model.ask(RED, "What?", **result[side]["options"]) for side in ("left", "right")
    ]
    out = capsys.readouterr().out
    assert "'warmth=2' is no setting. Use temperature, " in out and "'num_crops=x' is no setting." in out


def test_two_models(model, other, capsys):
    (result,) = compare_in_cell(model, other, RED, "What?", nothing, Reader("", "", ""), max_new_tokens=6)
    assert result["differs"] == "models" and result["right"]["model"] == "other"
    assert compared(result) == [each.ask(RED, "What?", max_new_tokens=6) for each in (model, other)]


def test_what_is_wrong_with_a_comparison_is_told(model, capsys):
    read = Reader("1", "What?", "+ shapes_1", "What?", "")
    (result,) = compare_in_cell(model, None, RED, "", nothing, read, max_new_tokens=3)
    assert "the number of pictures here is 1" in capsys.readouterr().out and result["verdict"]
    read = Reader("2", "What?", "<|image_1|> <|image_1|>", "")
    (result,) = compare_in_cell(model, None, RED, "", nothing, read, max_new_tokens=3)
    assert (result["left"]["state"], result["right"]["state"]) == ("done", "failed")
    assert "There are not two whole answers to compare." in capsys.readouterr().out


@pytest.mark.parametrize("typed", ["", "0", "4", "x", " "])
def test_an_unknown_way_is_the_usual_one(model, typed, capsys):
    read = Reader(typed, "")
    assert compare_in_cell(model, None, RED, "", nothing, read) == []
    assert "What differs (empty: 2): " in read.prompts


def test_an_interrupt_ends_both_answers_and_keeps_the_results(model, interrupt, capsys):
    read = Reader("2", "What?", "Why?", "Again?", KeyboardInterrupt)
    started = time.monotonic()
    (result,) = compare_in_cell(model, None, RED, "", nothing, read, max_new_tokens=LONG)
    assert time.monotonic() - started < 5
    assert [result[side]["state"] for side in ("left", "right")] == ["stopped"] * 2
    assert result["left"]["answer"] and result["right"]["answer"] == ""
    assert "Stopped before it began." in capsys.readouterr().out


# --- on Colab ---


@pytest.fixture
def colab(monkeypatch, files):
    module = types.SimpleNamespace(files=types.SimpleNamespace(upload=lambda: files))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    return module


def test_colab_gets_the_blocking_forms(model, colab, monkeypatch, capsys):
    lines = []
    monkeypatch.setattr("builtins.input", lambda prompt: lines.pop(0))
    expected = model.ask([RED, BLUE], "What?", max_new_tokens=3)
    lines[:] = ["What?", ""]
    assert p3v.upload_and_ask(model, max_new_tokens=3) == expected
    monkeypatch.setattr(type(model), "stream", _short(type(model).stream))
    lines[:] = ["What?", ""]
    assert p3v.playground(model) == expected
    lines[:] = ["", ""]
    assert p3v.playground(model, RED, "What?") == model.ask(RED, "What?", max_new_tokens=3)
    lines[:] = ["1", "What?", ""]
    assert [len(result) for result in p3v.compare_ui(model)] == [4]
    monkeypatch.setattr(p3v.Chat, "stream", _short(p3v.Chat.stream))
    lines[:] = ["What?", ""]
    assert p3v.chat_ui(model).history == [("What?", expected)]


def _short(stream):
    return lambda self, *question, **options: stream(self, *question, **options | {"max_new_tokens": 3})


def test_colab_without_a_picture(model, colab, capsys):
    colab.files.upload = dict
    assert p3v.upload_and_ask(model) is None
    assert "No picture was chosen" in capsys.readouterr().out
