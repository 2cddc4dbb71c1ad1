"""The playground without a browser: buttons are clicked and values set from here."""

import _thread
import json
import threading
import time

import pytest
from forms import BLUE, LONG, RED, find, find_all, live_widgets, png, text_of, until
from server import send, serve

import phi3v_helpers as p3v
from phi3v_helpers.images import addresses
from phi3v_helpers.widgets import markup, parts
from phi3v_helpers.widgets.playground import READY


def form_with(model, *pictures, question="What is this?", length=5):
    form = p3v.playground(model, list(pictures), question)
    find(form, "length").value = length
    return form


def ask(form):
    job = form.run()
    assert job.wait(30)
    return job


def captions(form):
    return [text_of(card) for card in find_all(form, "card")]


# --- pictures ---


@pytest.fixture
def on_the_internet(monkeypatch):
    """Servers on this machine count as public ones, which forms alone fetch from."""
    monkeypatch.setattr(addresses, "is_public", lambda address: True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_pictures_stand_in_order_with_size_and_tokens(model, kind):
    form = form_with(model, RED, "shapes_1")
    tokens = model.count_tokens([RED, p3v.samples["shapes_1"]]).per_image
    one, two = captions(form)
    assert "1 · picture of 40 x 30" in one and f"40 × 30 · {tokens[0]:,} tokens" in one
    assert f"2 · {p3v.samples.info('shapes_1')['title']}" in two and f"{tokens[1]:,} tokens" in two


def test_move_and_remove(model, kind):
    form = form_with(model, RED, BLUE, "shapes_1")
    find_all(form, "later")[0].click()
    assert [picture.image.getpixel((0, 0)) for picture in form._tray.pictures][:2] == [
        (0, 0, 255),
        (255, 0, 0),
    ]
    find_all(form, "earlier")[0].click()  # the first one cannot go further
    find_all(form, "remove")[1].click()
    assert [picture.kind for picture in form._tray.pictures] == ["upload", "sample"]
    assert "2 · Three shapes" in captions(form)[1]
    assert ask(form).answer == model.ask([BLUE, p3v.samples["shapes_1"]], "What is this?", max_new_tokens=5)


def test_a_card_stays_as_long_as_it_says_the_same(model, kind):
    form = form_with(model, RED, BLUE, "shapes_1")
    cards, views = find_all(form, "card"), find_all(form, "thumbnail")
    find(form, "temperature").value = 0.5
    assert find_all(form, "card") == cards
    find_all(form, "later")[0].click()
    one, two, three = find_all(form, "card")
    assert one not in cards and two not in cards and three is cards[2]
    assert find_all(form, "thumbnail") == [views[1], views[0], views[2]]
    assert views[0].comm and not cards[0].comm


def test_no_card_is_left_behind(model, kind):
    form = form_with(model, RED)
    before = live_widgets()
    for number in range(20):
        find(form, "temperature").value = number % 2
        find(form, "crops").value = 4 * (number % 2)
        form._panel._take_file("blue.png", BLUE)
        find_all(form, "later")[0].click()
        find_all(form, "remove")[0].click()
    assert len(find_all(form, "card")) == 1 and live_widgets() == before


def test_a_path_and_an_address(model, tmp_path, on_the_internet):
    path = tmp_path / "red.png"
    path.write_bytes(RED)
    form = form_with(model)
    find(form, "address").value = f"  {path} "
    find(form, "add").click()
    until(lambda: find_all(form, "card"))
    until(lambda: find(form, "address").value == "")
    assert "1 · red.png" in captions(form)[0]
    with serve(lambda handler: send(handler, BLUE, Content_Type="image/png")) as site:
        find(form, "address").value = f"{site.url}/blue.png?size=2"
        find(form, "address")._handle_custom_msg({"event": "submit"}, [])  # Enter
        until(lambda: len(find_all(form, "card")) == 2)
    assert "2 · blue.png" in captions(form)[1]
    assert ask(form).answer == model.ask([path, BLUE], "What is this?", max_new_tokens=5)


def test_enter_that_comes_before_the_last_letters(model):
    form = form_with(model)
    find(form, "address").value = "shap"
    find(form, "address")._handle_custom_msg({"event": "submit"}, [])
    time.sleep(0.1)
    find(form, "address").value = "shapes_1"
    until(lambda: find_all(form, "card") and "Fetching" not in find(form, "trouble").value)
    assert find(form, "trouble").value == "" and "1 · Three shapes" in captions(form)[0]


@pytest.mark.parametrize(
    "typed, words", [("nowhere.png", "There is no file"), ("", "The path is empty"), (".", "folder")]
)
def test_a_wrong_path_is_told_in_place(model, typed, words):
    form = form_with(model, RED)
    find(form, "address").value = typed
    find(form, "add").click()
    until(lambda: words in find(form, "trouble").value)
    assert len(find_all(form, "card")) == 1 and find(form, "address").value == typed


def test_a_site_that_refuses_is_told_in_place(model, on_the_internet):
    form = form_with(model, RED)
    with serve(lambda handler: send(handler, b"no", 403)) as site:
        find(form, "address").value = f"{site.url}/x.png"
        find(form, "add").click()
        until(lambda: "403" in find(form, "trouble").value)
    assert len(find_all(form, "card")) == 1


def test_an_address_on_this_machine_is_refused_in_place(model):
    form = form_with(model, RED)
    find(form, "address").value = "http://127.0.0.1:8888/x.png"
    find(form, "add").click()
    until(lambda: "allow_private=True" in find(form, "trouble").value)


def test_a_slow_site_keeps_no_button_waiting(model, on_the_internet):
    form, go_on = form_with(model, RED), threading.Event()
    with serve(lambda handler: go_on.wait(20) and send(handler, BLUE)) as site:
        find(form, "address").value = f"{site.url}/x.png"
        started = time.monotonic()
        find(form, "add").click()
        assert time.monotonic() - started < 0.5
        assert ask(form).state == "done"
        go_on.set()
        until(lambda: len(find_all(form, "card")) == 2)


def test_a_file_comes_through_the_zone_and_one_that_is_no_picture_is_told(model, kind):
    form = form_with(model)
    form._panel._take_file("a.png", RED)
    with pytest.raises(p3v.ImageError):  # the zone tells it, see test_zone.py
        form._panel._take_file("b.png", b"text")
    assert len(find_all(form, "card")) == 1 and "1 · a.png" in captions(form)[0]


def test_the_gallery_adds_a_sample(model, kind):
    form = form_with(model)
    find(form, "samples").value = True
    assert len(find_all(form, "sample")) == len(p3v.samples) and find(form, "gallery").layout.display == ""
    find_all(form, "sample")[1].click()
    assert form._tray.pictures[0].source == p3v.samples.names()[1]
    find(form, "samples").value = False
    assert find(form, "gallery").layout.display == "none"


# --- what the model sees ---


def test_the_prompt_and_its_cost_follow_what_is_typed(model):
    form = form_with(model, RED, length=100)
    find(form, "question").value = "Is <b>this</b> red?"
    find(form, "system").value = "Be brief."
    prompt = p3v.build_prompt("Is <b>this</b> red?", 1, "Be brief.")
    assert markup.escape(prompt) in find(form, "prompt").value
    count = model.count_tokens(RED, "Is <b>this</b> red?", system="Be brief.")
    line = find(form, "facts").value
    assert f"{int(count):,} tokens: {count.image_tokens:,} of pictures" in line
    assert f"{count / model.context:.1%} of the context of {model.context:,}" in line
    assert " MB weights" in line


def test_tiles_change_the_cost(model):
    form = form_with(model, "shapes_1")
    before = find(form, "facts").value
    find(form, "crops").value = 16
    count = model.count_tokens(p3v.samples["shapes_1"], "What is this?", num_crops=16)
    assert find(form, "facts").value != before and f"{int(count):,} tokens" in find(form, "facts").value
    assert f"{count.image_tokens:,} tokens" in captions(form)[0]


def test_too_many_pictures_are_told_before_and_after(model):
    form = form_with(model, *["shapes_1"] * 12, length=model.context)
    assert "more than the model can hold" in find(form, "facts").value
    job = ask(form)
    assert job.state == "failed" and "more than the" in text_of(form._view.widget)
    find(form, "length").value = 3
    while "more than" in find(form, "facts").value:
        find(form, "remove").click()
    assert ask(form).state == "done"


def test_a_ready_question_takes_the_place_of_the_text(model):
    form = form_with(model)
    for question in READY.values():
        find(form, "ready").value = question
        assert find(form, "question").value == question and find(form, "ready").value == ""
    assert "Could you please introduce this stock to me?" in READY.values()


# --- run and stop ---


def test_an_answer_is_shown_signed_and_kept(model, kind):
    form = form_with(model, RED, length=20)
    job = ask(form)
    assert job.answer == model.ask(RED, "What is this?", max_new_tokens=20)
    assert markup.markdown(job.text) == find(form, "answer").value
    status = find(form, "status").value
    assert (
        model.name in status and "20 out" in status and "tokens/s" in status and "first words after" in status
    )
    (entry,) = form.history
    assert entry["question"] == "What is this?" and entry["answer"] == job.text and entry["state"] == "done"
    assert "What is this?" in find(form, "history").value


def test_settings_reach_the_model(model):
    form = form_with(model, RED, length=12)
    find(form, "temperature").value, find(form, "system").value = 0.7, "Be brief."
    find(form, "crops").value = 4
    job = ask(form)
    options = form.history[0]["options"]
    assert options == {
        "max_new_tokens": 12, "num_crops": 4, "temperature": 0.7, "system": "Be brief.", "seed": options["seed"],
    }  # fmt: skip
    assert job.answer == model.ask(RED, "What is this?", **options)


def test_run_pressed_twice_and_stop_between(model):
    form = form_with(model, RED, length=LONG)
    run, stop = find(form, "run"), find(form, "stop")
    run.click()
    run.click()
    until(lambda: len(find(form, "answer").value) > 150)
    assert run.disabled and not stop.disabled
    run.click()
    assert form.run() is None
    stopped = time.monotonic()
    stop.click()
    until(lambda: not run.disabled)
    assert time.monotonic() - stopped < 0.5
    shown = find(form, "answer").value
    time.sleep(0.2)
    assert find(form, "answer").value == shown and stop.disabled
    assert [entry["state"] for entry in form.history] == ["stopped"]
    find(form, "length").value = 4
    assert ask(form).answer == model.ask(RED, "What is this?", max_new_tokens=4)


def test_an_interrupted_kernel_loses_nothing(model):
    form = form_with(model, RED, length=LONG)
    job = form.run()
    until(lambda: job.text)
    with pytest.raises(KeyboardInterrupt):
        _thread.interrupt_main()
        time.sleep(5)
    form.stop()
    assert job.wait(5) and form.history[0]["answer"] == job.text
    find(form, "length").value = 3
    assert ask(form).state == "done" and len(form.history) == 2


def test_the_line_of_costs_does_not_wait_for_the_model(model):
    form = form_with(model, RED, length=LONG)
    job = form.run()
    until(lambda: job.text)
    started = time.monotonic()
    find(form, "question").value = "Something else?"
    assert time.monotonic() - started < 0.5 and "counted when" in find(form, "facts").value
    form.stop()
    assert job.wait(5)
    until(lambda: "tokens:" in find(form, "facts").value)


def test_an_empty_question_is_told_in_place(model):
    form = form_with(model, RED, question="  ")
    job = ask(form)
    assert job.state == "failed" and "The question is empty." in find(form, "answer-trouble").value
    find(form, "question").value = "What?"
    assert ask(form).state == "done" and find(form, "answer-trouble").value == ""


def test_an_error_in_the_model_stands_where_the_answer_would(model):
    form = form_with(model, RED)
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        ask(form)
    finally:
        handle.remove()
    assert "ZeroDivisionError" in find(form, "answer-trouble").value and not find(form, "run").disabled
    assert form.history[0]["state"] == "failed" and "ZeroDivisionError" in form.history[0]["note"]
    assert ask(form).state == "done"


def test_what_is_written_is_never_obeyed(model):
    form = form_with(model, RED, question="<script>alert(1)</script>")
    ask(form)
    form.history.append(form.history[0] | {"answer": "<img src=x onerror=alert(1)>", "pictures": ["<b>"]})
    ask(form)
    for name in ("prompt", "history", "facts", "answer", "status"):
        assert not any(tag in find(form, name).value for tag in ("<script", "<img", "<b>&", "<b><"))


# --- code ---


def test_the_code_gives_the_same_answer(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = form_with(model, RED, question='Is it "red"?', length=15)
    form._panel._take_file("my photo.png", BLUE)
    find(form, "temperature").value = 1.0
    job = ask(form)
    code = form.code()
    assert find(form, "code").value == code and find(form, "code").layout.display == ""
    names = {}
    exec(code, names)
    assert names["answer"] == job.answer
    assert sorted(path.name for path in (tmp_path / "phi3v-pictures").iterdir()) == [
        "my-photo.png", "picture-of-40-x-30.png",
    ]  # fmt: skip


def test_code_that_cannot_be_made_is_told(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi3v-pictures").write_text("a file in the way")
    form = form_with(model, RED)
    with pytest.raises(p3v.Phi3VError, match="could not be written beside the notebook"):
        form.code()


# --- the rest ---


def test_no_uploaded_picture_is_in_the_state_that_a_notebook_saves(model):
    pytest.importorskip("anywidget")
    content = png("red", (400, 300))
    form = form_with(model)
    form._panel._take_file("secret.png", content)
    states = json.dumps([widget.get_state() for widget in every(form)], default=repr)
    assert "base64" not in states and repr(content[:20])[2:-1] not in states and "JFIF" not in states


def every(widget):
    return [widget] + [hit for child in getattr(widget, "children", ()) for hit in every(child)]


def test_every_control_has_a_label_or_a_tooltip(model, kind):
    form = form_with(model, RED)
    find(form, "samples").value = True
    for widget in every(form):
        if hasattr(widget, "description") and not isinstance(widget, parts.widgets.HTML):
            assert widget.description or getattr(widget, "tooltip", ""), widget


def test_a_page_without_widgets_gets_a_sentence(model):
    assert repr(form_with(model)) == "A form to choose pictures and ask about them. Run this cell to use it."


def test_a_wrong_picture_to_begin_with_is_an_error_in_the_cell(model):
    with pytest.raises(p3v.ImageError, match="There is no file"):
        p3v.playground(model, "nowhere.png")
