"""The chat form without a browser."""

import json
import time

import pytest
from forms import BLUE, LONG, RED, find, find_all, live_widgets, text_of, until

import phi3v_helpers as p3v


def form_with(model, *pictures, length=5, **options):
    form = p3v.chat_ui(model, list(pictures), **options)
    find(form, "length").value = length
    return form


def ask(form, question):
    job = form.ask(question)
    assert job.wait(30)
    return job


def test_turns_follow_one_another_as_in_a_chat(model):
    form, chat = form_with(model, RED, system="Be brief."), model.chat(RED, "Be brief.")
    for question in ("What?", "Why?", "Sure?"):
        assert ask(form, question).answer == chat.ask(question, max_new_tokens=5)
    assert form.history == chat.history
    turns = [text_of(turn) for turn in find_all(form, "turn")]
    assert len(turns) == 3 and "Why?" in turns[1] and model.name in turns[1]
    assert find(form, "question").value == ""


def test_a_question_asked_before_the_last_answer_has_become_a_turn(model):
    """The model is free a moment earlier than the form: no turn may get lost in between."""
    form, hasty = form_with(model), []
    show = form._view.show

    def slowly(job):
        show(job)
        if job.over and not hasty:
            hasty.append(form.ask("Too early?"))
            form.clear()

    form._view.show = slowly
    ask(form, "What?")
    assert hasty == [None] and "still being written" in find(form, "said").value
    ask(form, "Why?")
    assert [question for question, _ in form.history] == ["What?", "Why?"]


def test_a_picture_is_added_midway(model):
    form, chat = form_with(model, RED), model.chat(RED)
    ask(form, "What?")
    chat.ask("What?", max_new_tokens=5)
    form._panel._take_file("blue.png", BLUE)
    chat.add(BLUE)
    assert ask(form, "And this?").answer == chat.ask("And this?", max_new_tokens=5)
    assert chat.image_counts == [1, 1] == form._talk.counts
    tags = chat.prompt("Hm?")
    assert (
        tags.index("<|image_1|>") < tags.index("What?") < tags.index("<|image_2|>") < tags.index("And this?")
    )
    assert not find_all(form, "remove"), "pictures that were talked about must stay"


def test_pictures_that_no_turn_has_used_may_be_moved(model):
    form = form_with(model, RED)
    ask(form, "What?")
    form._panel._take_file("blue.png", BLUE)
    form._panel._take_file("red.png", RED)
    assert len(find_all(form, "remove")) == 2
    find_all(form, "earlier")[0].click()  # not before the one that is fixed
    assert form._tray.images[0].getpixel((0, 0)) == (255, 0, 0) and form._tray.pictures[1].name == "blue.png"
    find_all(form, "earlier")[1].click()
    assert form._tray.pictures[1].name == "red.png"


def test_edit_and_ask_again(model):
    form = form_with(model, RED)
    for question in ("One?", "Two?", "Three?"):
        ask(form, question)
    first = form.history[0]
    find_all(form, "edit")[1].click()
    assert find(form, "question").value == "Two?" and find(form, "cancel").layout.display == ""
    ask(form, "Second?")
    assert [question for question, _ in form.history] == ["One?", "Second?"] and form.history[0] == first
    assert form.history[1][1] == model.chat(RED, history=[first]).ask("Second?", max_new_tokens=5)
    assert find(form, "cancel").layout.display == "none"


def test_an_edit_that_fails_or_is_left_changes_nothing(model):
    form = form_with(model, RED)
    ask(form, "One?")
    ask(form, "Two?")
    before = form.history
    find_all(form, "edit")[0].click()
    assert ask(form, "<|image_1|> <|image_1|>?").state == "failed"
    assert form.history == before and find(form, "question").value == "<|image_1|> <|image_1|>?"
    assert "<|image_1|>" not in find(form, "answer-trouble").value.replace("&lt;|image_1|&gt;", "")
    find(form, "cancel").click()
    assert find(form, "question").value == "" and form.history == before
    ask(form, "Three?")
    assert [question for question, _ in form.history] == ["One?", "Two?", "Three?"]


def test_a_turn_stays_as_long_as_it_looks_the_same(model):
    form = form_with(model, RED)
    for question in ("One?", "Two?"):
        ask(form, question)
    one, two = find_all(form, "turn")
    find(form, "temperature").value = 0.5
    ask(form, "Three?")
    assert find_all(form, "turn")[:2] == [one, two]
    find_all(form, "edit")[1].click()
    assert [turn is old for turn, old in zip(find_all(form, "turn"), (one, two))] == [True, False]
    assert one.comm and not two.comm


def test_no_turn_is_left_behind(model):
    form = form_with(model, RED)
    for question in ("One?", "Two?"):
        ask(form, question)
    before = live_widgets()
    for number in range(20):
        find(form, "length").value = 5 + number
        find_all(form, "edit")[0].click()
        find(form, "cancel").click()
    assert len(find_all(form, "turn")) == 2 and live_widgets() == before


def test_stop_keeps_what_was_said_and_the_talk_goes_on(model):
    form = form_with(model, RED, length=LONG)
    job = form.ask("What?")
    until(lambda: job.text)
    assert form.ask("Another?") is None and "still being written" in find(form, "said").value
    assert find(form, "question").value == "Another?", "what was typed must not be lost"
    find(form, "stop").click()
    assert job.wait(0.5) and job.state == "stopped"
    assert form.history == [("What?", job.text)]
    find(form, "length").value = 3
    assert ask(form, "And?").state == "done" and len(form.history) == 2


def test_stopped_before_the_first_word_the_question_comes_back(model):
    form = form_with(model, RED)
    with model.lock:  # the model is busy elsewhere
        job = form.ask("What?")
        until(lambda: job.state == "looking")
        assert find(form, "question").value == ""
        form.stop()
        assert job.wait(5)
    assert form.history == [] and find(form, "question").value == "What?"


def test_an_error_keeps_the_talk_and_the_question(model):
    form = form_with(model, RED)
    ask(form, "One?")
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        ask(form, "Two?")
    finally:
        handle.remove()
    assert "ZeroDivisionError" in find(form, "answer-trouble").value
    assert [question for question, _ in form.history] == ["One?"] and find(form, "question").value == "Two?"
    assert ask(form, "Two?").state == "done" and find(form, "answer-trouble").value == ""


def test_buttons_that_must_wait_say_so(model):
    form = form_with(model, RED)
    ask(form, "One?")
    find(form, "length").value = LONG
    job = form.ask("Two?")
    until(lambda: job.text)
    find(form, "clear").click()
    find_all(form, "edit")[0].click()
    assert (
        len(form.history) == 1 and form._editing is None and "still being written" in find(form, "said").value
    )
    form.stop()
    assert job.wait(5)
    find(form, "clear").click()
    assert form.history == [] and not find_all(form, "turn") and len(find_all(form, "card")) == 1


def test_save_as_json(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = form_with(model, "shapes_1")
    ask(form, "Ünd?")
    find(form, "save").click()
    saved = json.loads((tmp_path / "phi3v-chat.json").read_text(encoding="utf-8"))
    assert saved["model"] == model.name and saved["pictures"] == ["Three shapes"]
    assert saved["turns"][0]["question"] == "Ünd?" and saved["turns"][0]["answer"] == form.history[0][1]
    assert "phi3v-chat.json" in find(form, "said").value
    (tmp_path / "phi3v-chat.json").unlink()
    (tmp_path / "phi3v-chat.json").mkdir()
    find(form, "save").click()
    assert "could not be written" in find(form, "said").value


def test_a_kept_talk_survives_a_new_kernel(model, tmp_path):
    path = tmp_path / "talk.json"
    form = form_with(model, RED, keep=path)
    ask(form, "One?")
    again = form_with(model, RED, keep=path)
    assert again.history == form.history and "One?" in text_of(find(again, "turn"))
    ask(again, "Two?")
    assert len(json.loads(path.read_text())["turns"]) == 2
    find(again, "clear").click()
    assert form_with(model, RED, keep=path).history == []
    path.write_text('{"turns": 7}')
    with pytest.raises(p3v.Phi3VError, match="holds no conversation"):
        p3v.chat_ui(model, keep=path)


def test_the_code_gives_the_same_talk(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = form_with(model, "shapes_1", system='Say "yes".')
    ask(form, "What?")
    form._panel._take_file("blue.png", BLUE)
    ask(form, "And this?\nReally?")
    names = {}
    exec(form.code(), names)
    assert names["chat"].history == form.history


def test_the_costs_are_those_of_the_whole_talk(model):
    form = form_with(model, RED)
    ask(form, "What?")
    find(form, "question").value = "Why?"
    chat = model.chat(RED, history=form.history)
    count = model.measure(chat.prompt("Why?"), chat.images)
    assert f"{int(count):,} tokens" in find(form, "facts").value


def test_typing_does_not_wait_for_the_model(model):
    form = form_with(model, RED, length=LONG)
    job = form.ask("What?")
    until(lambda: job.text)
    started = time.monotonic()
    find(form, "question").value = "Next?"
    assert time.monotonic() - started < 0.5
    form.stop()
    assert job.wait(5) and find(form, "question").value == "Next?"


def test_the_code_of_a_talk_that_leaves_it_to_chance(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = form_with(model, "shapes_1", length=12)
    find(form, "temperature").value = 1.0
    ask(form, "What?")
    ask(form, "Why?")
    names = {}
    exec(form.code(), names)
    assert names["chat"].history == form.history
