"""The comparison without a browser: buttons are clicked and values set from here."""

import ast
import gc
import threading
import time
import weakref

import ipywidgets
import pytest
from forms import BLUE, LONG, RED, find, find_all, text_of, until
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers.widgets import markup
from phi3v_helpers.widgets.compare import WAYS, Comparison, compare_ui

LEFT, RIGHT = ("left-answer", "right-answer")


def form_with(model, *pictures, way=None, question="What is this?", length=12, other=None):
    form = compare_ui(model, other, list(pictures), question)
    if way:
        find(form, "way").value = way
    for field in find_all(form, "length"):
        field.value = length
    return form


def ask(form):
    """The answers on both sides."""
    jobs = form.run()
    assert jobs[1].wait(60) and jobs[0].over
    return [job.answer for job in jobs]


def shown(form):
    return [find(form, name).value for name in (LEFT, RIGHT)]


def is_seen(widget):
    return widget.layout.display != "none"


# --- what may differ ---


def test_two_pictures_under_one_question(model, kind):
    form = form_with(model, RED, "shapes_1")
    assert find(form, "way").value == "pictures"
    left, right = ask(form)
    assert left == model.ask(RED, "What is this?", max_new_tokens=12)
    assert right == model.ask(p3v.samples["shapes_1"], "What is this?", max_new_tokens=12)
    assert "Left: picture of 40 x 30" in find(form, "left-heading").value
    assert f"Right: {p3v.samples.info('shapes_1')['title']}" in find(form, "right-heading").value
    cards = [text_of(card) for card in find_all(form, "card")]
    tokens = [model.count_tokens(picture).image_tokens for picture in (RED, p3v.samples["shapes_1"])]
    assert all(f"{count:,} tokens" in card for count, card in zip(tokens, cards))
    find(form, "later").click()
    assert ask(form) == [right, left]


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_other_numbers_of_pictures_are_refused_in_place(model, pictures):
    form = form_with(model, *[RED] * pictures, way="pictures")
    assert form.run() is None
    assert f"Two pictures are to be compared; the number of pictures here is {pictures}." in text_of(
        find(form, "trouble")
    )
    assert shown(form) == ["", ""] and form.results == [] and not find(form, "run").disabled
    with pytest.raises(p3v.ImageError, match="Two pictures"):
        form.code()
    find(form, "way").value = "questions"
    assert find(form, "trouble").value == ""
    assert all(ask(form))


def test_one_picture_under_two_questions(model):
    form = form_with(model, RED, question="What is this?")
    assert find(form, "way").value == "questions"
    one, two = find_all(form, "question")
    assert is_seen(one) and is_seen(two) and [one.value, two.value] == ["What is this?"] * 2
    two.value = "What <b>colour</b> is it?"
    assert ask(form) == [model.ask(RED, field.value, max_new_tokens=12) for field in (one, two)]
    assert "Left: What is this?" in find(form, "left-heading").value
    assert "Right: What &lt;b&gt;colour" in find(form, "right-heading").value


def test_one_picture_with_two_settings(model):
    form = form_with(model, RED, way="settings")
    lengths, temperatures, crops = (find_all(form, name) for name in ("length", "temperature", "crops"))
    crops[0].value = 4
    crops[0].value = 0
    assert [field.index for field in crops] == [0, 0], "else the page shows an empty choice"
    lengths[1].value, temperatures[1].value, crops[1].value = 20, 1.2, 4
    find_all(form, "system")[1].value = "Be brief."
    left, right = ask(form)
    (result,) = form.results
    options = result["right"]["options"]
    assert result["left"]["options"] == {"max_new_tokens": 12}
    assert options == {
        "max_new_tokens": 20, "num_crops": 4, "temperature": 1.2, "system": "Be brief.", "seed": options["seed"],
    }  # fmt: skip
    assert left == model.ask(RED, "What is this?", max_new_tokens=12)
    assert right == model.ask(RED, "What is this?", **options)
    assert "Left: max_new_tokens 12" in find(form, "left-heading").value
    assert "temperature 1.2" in find(form, "right-heading").value


def test_two_models(model, other):
    form = form_with(model, RED, other=other)
    assert find(form, "way").value == "models"
    left, right = ask(form)
    assert left == model.ask(RED, "What is this?", max_new_tokens=12) and left.model == model.name
    assert right == other.ask(RED, "What is this?", max_new_tokens=12) and right.model == "other"
    assert left != right
    assert "Right: other" in find(form, "right-heading").value
    assert f"You are asking {model.name} and other." in text_of(form)


def test_two_models_are_offered_where_there_are_two(model, other):
    def ways(form):
        return [way for _, way in find(form, "way").options]

    assert ways(form_with(model)) == ["pictures", "questions", "settings"]
    assert ways(form_with(model, other=other)) == list(WAYS)
    assert ways(form_with(model, other=model)) == list(WAYS)[:3]


def test_what_does_not_differ_is_there_once(model):
    form = form_with(model, RED, RED)
    for way in WAYS:
        if way == "models":
            continue
        find(form, "way").value = way
        questions, lengths = find_all(form, "question"), find_all(form, "length")
        settings = [column for column in find(form, "more").children[0].children]
        assert [is_seen(field) for field in questions] == [True, way == "questions"]
        assert [is_seen(column) for column in settings] == [True, way == "settings"]
        assert questions[0].description == ("Left question" if way == "questions" else "Question")
        assert len(lengths) == 2
    assert find(form, "more").selected_index == 0, "the settings are open where they are what differs"
    find(form, "way").value = "pictures"
    questions[1].value, lengths[1].value = "Not seen", 1
    assert all(answer.new_tokens == 12 for answer in ask(form))
    assert form.results[0]["right"]["question"] == "What is this?"


def test_both_sides_get_one_seed(model):
    form = form_with(model, RED, RED)
    find(form, "temperature").value = 1.0
    left, right = ask(form)
    assert left == right
    seeds = [form.results[0][side]["options"]["seed"] for side in ("left", "right")]
    assert seeds[0] == seeds[1]
    assert left == model.ask(RED, "What is this?", max_new_tokens=12, temperature=1.0, seed=seeds[0])


# --- how it is shown ---


def test_differing_words_are_marked_on_both_sides(model):
    form = form_with(model, RED, BLUE, length=40)
    left, right = ask(form)
    assert left != right
    count = markup.differing(left, right)
    assert count and f"{count} words differ." in find(form, "verdict").value
    assert shown(form) == list(markup.difference(left, right))
    assert all("<mark" in html for html in shown(form))
    assert form.results[0]["verdict"] == f"{count} words differ."


def test_the_same_answers_are_told_to_be_so(model):
    form = form_with(model, RED, RED)
    left, right = ask(form)
    assert left == right and "The answers are the same." in find(form, "verdict").value
    assert shown(form) == [markup.markdown(left)] * 2


def test_each_column_says_who_answered_and_what_it_took(model):
    form = form_with(model, RED, BLUE)
    ask(form)
    statuses = [status.value for status in find_all(form, "status")]
    assert len(statuses) == 2 and all(model.name in line and "12 out" in line for line in statuses)


def test_the_right_side_says_that_it_waits(model):
    form = form_with(model, RED, BLUE, length=LONG)
    ask_again = form_with(model, RED, BLUE, length=3)
    ask(ask_again)
    jobs = form.run()
    until(lambda: jobs[0].text and shown(form)[0])
    statuses = [status.value for status in find_all(form, "status")]
    assert "Writing…" in statuses[0] and "Waiting for the answer on the left" in statuses[1]
    form.stop()
    assert jobs[1].wait(5)


def test_the_columns_wrap_where_there_is_no_room(model):
    form = form_with(model)
    pairs = find_all(form, "columns")
    assert len(pairs) == 3
    for pair in pairs:
        assert "wrap" in pair.layout.flex_flow and len(pair.children) == 2
        assert all(column.layout.flex == "1 1 320px" for column in pair.children)


def test_old_answers_go_when_new_questions_begin(model):
    form = form_with(model, RED, BLUE)
    ask(form)
    for field in find_all(form, "length"):
        field.value = LONG
    jobs = form.run()
    until(lambda: jobs[0].text)
    assert find(form, "verdict").value == "" and shown(form)[1] == ""
    form.stop()
    assert jobs[1].wait(5)


def test_what_is_written_is_never_obeyed(model):
    nasty = "<script>alert(1)</script>"
    form = form_with(model, RED, question=nasty)
    find_all(form, "question")[1].value = f"{nasty}?"
    ask(form)
    form._panel._take_file("<img src=x onerror=alert(1)>.png", BLUE)
    find(form, "way").value = "pictures"
    ask(form)
    page = text_of(form)
    assert "<script" not in page and "<img src=x" not in page


# --- run and stop ---


def test_run_pressed_while_busy_does_nothing(model):
    form = form_with(model, RED, BLUE, length=LONG)
    run, stop = find(form, "run"), find(form, "stop")
    assert not run.disabled and stop.disabled
    run.click()
    until(lambda: shown(form)[0])
    assert run.disabled and not stop.disabled
    threads = threading.active_count()
    run.click()
    assert form.run() is None and threading.active_count() == threads
    stop.click()
    until(lambda: not run.disabled)
    assert stop.disabled and len(form.results) == 1


def test_run_pressed_in_many_threads_asks_one_pair(model):
    form = form_with(model, RED, BLUE, length=LONG)
    line, got = threading.Barrier(8), []

    def press():
        line.wait()
        got.append(form.run())

    threads = [threading.Thread(target=press) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (jobs,) = filter(None, got)
    form.stop()
    assert len(got) == 8 and jobs[1].wait(5) and len(form.results) == 1


def test_stop_ends_both(model):
    form = form_with(model, RED, BLUE, length=LONG)
    jobs = form.run()
    until(lambda: shown(form)[0])
    started = time.monotonic()
    find(form, "stop").click()
    assert all(job.wait(1) for job in jobs)
    assert time.monotonic() - started < 0.5
    assert [job.state for job in jobs] == ["stopped", "stopped"] and jobs[1].text == ""
    said = shown(form)
    time.sleep(0.2)
    assert shown(form) == said and said[0] and said[1] == ""
    (result,) = form.results
    assert result["verdict"] == "There are not two whole answers to compare."
    assert result["left"]["answer"] == jobs[0].text
    assert "Stopped before it began." in find_all(form, "status")[1].value
    for field in find_all(form, "length"):
        field.value = 4
    assert all(answer.new_tokens == 4 for answer in ask(form))


def test_stop_during_the_right_answer_keeps_the_left(model):
    form = form_with(model, RED, way="settings")
    find_all(form, "length")[1].value = LONG
    jobs = form.run()
    until(lambda: jobs[1].text)
    form.stop()
    assert jobs[1].wait(2) and [job.state for job in jobs] == ["done", "stopped"]
    assert shown(form)[0] == markup.markdown(jobs[0].text)


def test_stop_right_after_run(model):
    form = form_with(model, RED, BLUE, length=LONG)
    ask_first = form.run()
    form.stop()
    assert all(job.wait(5) and job.state == "stopped" for job in ask_first)
    assert not find(form, "run").disabled and len(form.results) == 1


# --- what goes wrong ---


def test_an_error_on_one_side_leaves_the_other_alone(model):
    form = form_with(model, RED)
    for place, field in enumerate(find_all(form, "question")):
        before, field.value = field.value, "  "
        left, right = ask(form)
        answers = [left, right]
        assert answers[place] is None and answers[1 - place].new_tokens == 12
        troubles = [find(form, f"{name}-trouble").value for name in (LEFT, RIGHT)]
        assert "The question is empty." in troubles[place] and troubles[1 - place] == ""
        assert shown(form)[place] == "" and shown(form)[1 - place] == markup.markdown(answers[1 - place])
        assert "not two whole answers" in find(form, "verdict").value
        side = form.results[-1][("left", "right")[place]]
        assert (side["state"], side["answer"]) == ("failed", "") and "empty" in side["note"]
        field.value = before
    assert all(ask(form)) and text_of(form).count('role="alert"') == 0


def test_an_error_in_the_model_stands_where_the_answer_would(model):
    form = form_with(model, RED, BLUE)
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        assert ask(form) == [None, None]
    finally:
        handle.remove()
    assert all("ZeroDivisionError" in find(form, f"{name}-trouble").value for name in (LEFT, RIGHT))
    assert not find(form, "run").disabled and all(ask(form))


def test_a_wrong_picture_is_refused_at_the_beginning(model):
    with pytest.raises(p3v.ImageError, match="nowhere.png"):
        compare_ui(model, images=["nowhere.png"])


# --- what is kept ---


def test_results_are_kept_in_order(model):
    form = form_with(model, RED, BLUE)
    ask(form)
    find(form, "way").value = "questions"
    ask(form)
    assert [result["differs"] for result in form.results] == ["pictures", "questions"]
    assert form.results[0]["left"]["pictures"] == ["picture of 40 x 30"]
    assert len(form.results[1]["left"]["pictures"]) == 2
    keys = {"model", "question", "pictures", "options", "answer", "state", "note"}
    assert all(set(result[side]) == keys for result in form.results for side in ("left", "right"))


def test_removed_pictures_are_not_kept(model):
    form = form_with(model)
    image = Image.new("RGB", (30, 30), "red")
    form._tray.add(image)
    gone = weakref.ref(form._tray.images[0])
    jobs = form.run()
    assert jobs[1].wait(30)
    find(form, "remove").click()
    until(lambda: gone() is None or (gc.collect() and False))
    assert jobs and form.results


# --- code ---


@pytest.mark.parametrize("way", ["pictures", "questions", "settings"])
def test_the_code_gives_the_same_answers(model, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    form = form_with(model, RED, BLUE, way=way)
    find_all(form, "question")[1].value = 'Why "this"?'
    find_all(form, "temperature")[1].value = 1.0
    find_all(form, "length")[1].value = 9
    answers = ask(form)
    code = form.code()
    assert find(form, "code").value == code and is_seen(find(form, "code"))
    ast.parse(code)
    names = {}
    exec(code, names)
    assert [names["left"], names["right"]] == answers
    assert sorted(path.name for path in (tmp_path / "phi3v-pictures").iterdir()) == [
        "picture-of-40-x-30-2.png", "picture-of-40-x-30.png",
    ]  # fmt: skip


def test_the_code_of_two_models(model, other):
    form = form_with(model, "shapes_1", other=other)
    answers, names = ask(form), {}
    exec(form.code(), names)
    assert [names["left"], names["right"]] == answers and names["other"].name == "other"
    find(form, "way").value = "settings"
    assert "other" not in form.code()


def test_the_code_is_of_what_was_asked_even_if_run_was_pressed_again(model):
    form = form_with(model, "shapes_1", length=40)
    for field in find_all(form, "temperature"):
        field.value = 1.0
    jobs = form.run()
    assert form.run() is None
    assert jobs[1].wait(30)
    names = {}
    exec(form.code(), names)
    assert [names["left"], names["right"]] == [job.answer for job in jobs]


# --- the rest ---


def test_every_control_has_a_label(model, kind):
    def controls(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from controls(child)

    wanting = (ipywidgets.Textarea, ipywidgets.Text, ipywidgets.Dropdown, ipywidgets.Button)
    for control in controls(form_with(model, RED, BLUE)):
        if isinstance(control, wanting):
            assert control.description or control.tooltip, control


def test_where_it_cannot_be_shown_it_is_a_sentence(model):
    form = p3v.compare_ui(model)
    assert isinstance(form, Comparison)
    assert repr(form) == "A form to compare two answers. Run this cell to use it."
