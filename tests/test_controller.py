"""The queue behind the forms, without widgets: first with streams made up here, then with a model."""

import _thread
import gc
import sys
import threading
import time
import tracemalloc
import weakref

import pytest
from forms import LONG, until
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers.answers import Answer
from phi3v_helpers.widgets.controller import PAUSE, Controller


class Talker:
    """A stream that says `count` pieces, one every `pause` seconds, until it is stopped or something goes wrong."""

    def __init__(self, stop, count=5, pause=0.0, word="word ", error=None, first=0.0):
        self.answer = None
        self._pieces = self._say(stop, count, pause, word, error, first)

    def __iter__(self):
        return self._pieces

    def _say(self, stop, count, pause, word, error, first):
        said = 0
        time.sleep(first)
        while said < count and not stop.is_set():
            said += 1
            yield word
            time.sleep(pause)
        if error:
            raise error
        self.answer = Answer(
            word * said, model="talker", prompt_tokens=7, new_tokens=said, seconds=0.1, finished=said == count
        )


def talk(**options):
    return lambda stop: Talker(stop, **options)


class Record:
    """What an on_change sees, and when."""

    def __init__(self):
        self.seen = []

    def __call__(self, job):
        self.seen.append((time.monotonic(), job.state, job.text, job.over))

    @property
    def states(self):
        return [state for _, state, _, _ in self.seen]

    @property
    def texts(self):
        return [text for _, _, text, _ in self.seen]


# --- one question ---


def test_an_answer_grows_and_is_told_at_the_end():
    record, controller = Record(), Controller()
    started = time.monotonic()
    job = controller.submit(talk(count=40, pause=0.01, first=0.1), record)
    assert time.monotonic() - started < 0.3, "a callback must return at once"
    assert controller.busy and not job.over and not job.wait(0.01)
    assert job.wait(10) and not controller.busy
    assert (job.state, job.error, job.over) == ("done", None, True)
    assert job.text == str(job.answer) == "word " * 40
    assert record.states == ["looking", *["writing"] * (len(record.seen) - 2), "done"]
    assert record.texts[0] == "" and record.texts[-1] == job.text
    assert all(later.startswith(earlier) for earlier, later in zip(record.texts, record.texts[1:]))
    assert 4 <= len(set(record.texts)) < 30
    assert 0.1 <= job.seconds_to_text < 5


def test_a_growing_text_is_told_at_most_20_times_a_second():
    record = Record()
    started = time.monotonic()
    assert Controller().submit(talk(count=2000, pause=0.0005), record).wait(20)
    took = time.monotonic() - started
    times = [moment for moment, state, _, _ in record.seen if state == "writing"]
    assert len(times) >= 5
    assert all(later - earlier > 0.9 * PAUSE for earlier, later in zip(times, times[1:]))
    assert len(record.seen) <= took * 20 + 2  # and the beginning, and the end


def test_what_it_took_is_a_line_for_people():
    job = Controller().submit(talk(count=11, pause=0.02, first=0.2))
    assert job.wait(10)
    start, _, rest = job.note.partition(" · first words after ")
    assert start == job.answer.summary() and "talker" in start
    first, rate = rest.split(" s, then ")
    assert 0.2 <= float(first) < 5
    # 10 tokens after the first one, in 0.2 s or a little more; the answer's own seconds do not count the waiting
    assert 2 <= int(rate.removesuffix(" tokens/s")) <= 50


def test_an_answer_in_one_piece_has_no_rate():
    job = Controller().submit(talk(count=1))
    assert job.wait(10)
    assert "first words" in job.note and "tokens/s" not in job.note


def test_an_answer_without_a_word():
    job = Controller().submit(talk(count=0))
    assert job.wait(10)
    assert (job.state, job.text, job.error, job.seconds_to_text) == ("done", "", None, None)
    assert job.note == job.answer.summary()


def test_without_anyone_who_listens():
    assert Controller().submit(talk()).wait(10)


# --- stop ---


def test_stop_is_prompt_and_nothing_comes_after():
    record, controller = Record(), Controller()
    job = controller.submit(talk(count=100_000, pause=0.002), record)
    until(lambda: "writing" in record.states)
    started = time.monotonic()
    controller.stop()
    assert time.monotonic() - started < 0.1
    assert job.wait(0.5)
    said, told = job.text, len(record.seen)
    assert job.state == "stopped" and said == str(job.answer) == record.texts[-1]
    assert "cut short" in job.note and not controller.busy
    time.sleep(0.3)
    assert job.text == said and len(record.seen) == told


def test_while_it_stops_it_says_so():
    controller, go_on = Controller(), threading.Event()

    def slow(stop):
        go_on.wait(10)
        return Talker(stop)

    job = controller.submit(slow)
    until(lambda: job.state == "looking")
    assert job.note == "Looking…"
    job.stop()
    assert job.note == "Stopping…"
    go_on.set()
    assert job.wait(10) and job.state == "stopped" and job.text == ""


def test_stop_before_a_waiting_question_begins():
    controller, records, begun = Controller(), [Record(), Record(), Record()], []

    def start(number, **options):
        def begin(stop):
            begun.append(number)
            return Talker(stop, **options)

        return begin

    first = controller.submit(start(0, count=100_000, pause=0.002), records[0])
    second, third = (controller.submit(start(n), records[n]) for n in (1, 2))
    until(lambda: first.text)
    assert second.note == "Waiting for the answer before…" and second.state == "waiting"
    controller.stop()
    assert all(job.wait(1) for job in (first, second, third))
    assert [job.state for job in (first, second, third)] == ["stopped"] * 3
    assert begun == [0]
    assert records[1].states == records[2].states == ["stopped"]
    assert second.note == "Stopped before it began." and second.answer is None and second.text == ""
    fourth = controller.submit(start(3))
    assert fourth.wait(10) and fourth.state == "done"


def test_one_of_those_that_wait_can_be_stopped_alone():
    controller = Controller()
    first, second, third = (controller.submit(talk(count=20, pause=0.01)) for _ in range(3))
    second.stop()
    assert third.wait(10)
    assert [job.state for job in (first, second, third)] == ["done", "stopped", "done"]


def test_stop_without_a_question_does_no_harm():
    controller = Controller()
    controller.stop()
    job = controller.submit(talk())
    assert job.wait(10) and job.state == "done"
    controller.stop()
    job.stop()
    assert job.state == "done" and job.text == "word " * 5


def test_stop_at_the_very_end_leaves_a_whole_answer_whole():
    controller = Controller()

    def start(stop):
        talker = Talker(stop, count=3)
        talker._pieces = iter(list(talker._pieces))  # all is said already
        stop.set()
        return talker

    job = controller.submit(start)
    assert job.wait(10) and job.state == "done" and job.answer.finished


# --- what goes wrong ---


def test_errors_are_told_in_place_and_the_next_question_works():
    controller = Controller()

    def fails(stop):
        raise p3v.PromptError("The question is empty.", "Ask something.")

    for start, words in (
        (fails, "The question is empty. Ask something."),
        (talk(count=0, error=p3v.ImageError("No.", "Yes.")), "No. Yes."),
        (
            talk(count=0, error=ZeroDivisionError("by zero")),
            "(ZeroDivisionError: by zero). Please report it.",
        ),
        (lambda stop: None, "TypeError"),
        (lambda stop: 1 / 0, "ZeroDivisionError"),
        (lambda stop: sys.exit(), "SystemExit"),
    ):
        record = Record()
        job = controller.submit(start, record)
        assert job.wait(10)
        assert (job.state, job.answer, job.note) == ("failed", None, "No answer.")
        assert words in job.error
        assert record.states == ["looking", "failed"]
        after = controller.submit(talk())
        assert after.wait(10) and after.state == "done" and after.text == "word " * 5


def test_an_answer_that_breaks_off_keeps_what_was_said():
    job = Controller().submit(talk(count=3, error=RuntimeError("gone")))
    assert job.wait(10)
    assert (job.state, job.text, job.note) == ("failed", "word " * 3, "The answer broke off.")
    assert "RuntimeError: gone" in job.error


@pytest.mark.parametrize("bad_state", ["looking", "writing", "done"])
def test_a_page_that_fails_does_not_end_the_queue(bad_state, caplog):
    controller, record = Controller(), Record()

    def on_change(job):
        if job.state == bad_state:
            raise RuntimeError("the page is gone")

    first = controller.submit(talk(count=20, pause=0.01), on_change)
    second = controller.submit(talk(), record)
    assert first.wait(10) and second.wait(10)
    assert first.state == second.state == "done" and first.text == "word " * 20
    assert record.texts[-1] == "word " * 5
    assert "could not be shown" in caplog.text and "the page is gone" in caplog.text


def test_no_thread_is_left_where_nothing_is_to_do():
    controller = Controller()
    for _ in range(3):
        assert controller.submit(talk()).wait(10)
    until(lambda: not [t for t in threading.enumerate() if t.name == "phi3v-answers"])


# --- several at once ---


def test_questions_are_answered_in_their_order_one_at_a_time():
    controller, order, at_work = Controller(), [], []

    def start(number):
        def begin(stop):
            order.append(number)
            at_work.append(number)
            assert len(at_work) == 1
            return Talker(stop, count=3, word=f"{number} ")

        return begin

    jobs = [controller.submit(start(n), lambda job: job.over and at_work.clear()) for n in range(50)]
    assert jobs[-1].wait(20)
    assert order == list(range(50))
    assert [job.text for job in jobs] == [f"{n} " * 3 for n in range(50)]


def test_only_if_free_starts_exactly_one():
    for _ in range(20):
        controller, start_line, jobs = Controller(), threading.Barrier(16), []

        def press(controller=controller, start_line=start_line, jobs=jobs):
            start_line.wait()
            jobs.append(controller.submit(talk(count=10_000, pause=0.002), only_if_free=True))

        threads = [threading.Thread(target=press) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        started = [job for job in jobs if job]
        assert len(jobs) == 16 and len(started) == 1
        controller.stop()
        assert started[0].wait(5)


def test_whoever_sees_the_end_may_ask_at_once():
    controller, followers = Controller(), []

    def on_change(job):
        if job.over and len(followers) < 20:
            followers.append(controller.submit(talk(count=1), on_change, only_if_free=True))

    first = controller.submit(talk(count=1), on_change)
    assert first.wait(10)
    until(lambda: len(followers) == 20)
    assert all(job is not None and job.wait(10) and job.state == "done" for job in followers)


def test_questions_submitted_together_stay_together():
    controller, order = Controller(), []

    def start(name):
        def begin(stop):
            order.append(name)
            return Talker(stop, count=1)

        return begin

    def pairs(letter):
        for number in range(25):
            name = f"{letter}{number}"
            controller.submit_all([(start(name), lambda job: None), (start(name), lambda job: None)])

    threads = [threading.Thread(target=pairs, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.submit(talk()).wait(20)
    assert len(order) == 200 and order[::2] == order[1::2] and len(set(order)) == 100


def test_a_pair_is_refused_or_stopped_as_a_whole():
    controller = Controller()
    pair = [(talk(count=100_000, pause=0.002), lambda job: None)] * 2
    jobs = controller.submit_all(pair, only_if_free=True)
    assert controller.submit_all(pair, only_if_free=True) is None
    assert controller.submit(talk(), only_if_free=True) is None
    controller.stop()
    assert [job.wait(1) and job.state for job in jobs] == ["stopped", "stopped"]


def test_a_callback_that_comes_back_in():
    """An interrupted callback may be run again, or another one within it, by the same thread."""
    controller = Controller()
    with controller._lock:
        assert not controller.busy
        job = controller.submit(talk())
        controller.stop()
    assert job.wait(10)


# --- with a model ---


def picture(colour):
    return Image.new("RGB", (40, 30), colour)


def asking(model, images, question, **options):
    return lambda stop: model.stream(images, question, stop=stop, **options)


def test_a_models_answer(model):
    record = Record()
    job = Controller().submit(asking(model, picture("red"), "What is this?", max_new_tokens=300), record)
    assert job.wait(60)
    assert job.text == job.answer == model.ask(picture("red"), "What is this?", max_new_tokens=300)
    assert model.name in job.note and "300 out" in job.note and "tokens/s" in job.note
    assert len(set(record.texts)) > 3


def test_a_models_answer_is_stopped_promptly(model):
    controller, record = Controller(), Record()
    job = controller.submit(asking(model, picture("red"), "What is this?", max_new_tokens=LONG), record)
    until(lambda: job.text)
    started = time.monotonic()
    controller.stop()
    assert job.wait(10)
    assert time.monotonic() - started < 0.5
    said = job.text
    assert said and said == job.answer and not job.answer.finished
    assert model.ask(picture("red"), "What is this?", max_new_tokens=job.answer.new_tokens) == said
    time.sleep(0.2)
    assert job.text == said and record.texts[-1] == said


def test_a_models_errors_leave_it_usable(model):
    controller = Controller()
    handle = model.model.register_forward_pre_hook(lambda *_: 1 / 0)
    failed = controller.submit(asking(model, None, "What?", max_new_tokens=3))
    assert failed.wait(20)
    handle.remove()
    empty = controller.submit(asking(model, None, " "))
    gone = controller.submit(asking(model, "nowhere.png", "What?"))
    well = controller.submit(asking(model, None, "What?", max_new_tokens=3))
    assert well.wait(20)
    assert "ZeroDivisionError" in failed.error
    assert "The question is empty." in empty.error
    assert "There is no file 'nowhere.png'." in gone.error
    assert well.state == "done" and well.answer.new_tokens == 3


def test_a_question_stopped_while_another_form_has_the_model(model):
    ours, theirs = Controller(), Controller()
    their_job = theirs.submit(asking(model, None, "Theirs?", max_new_tokens=LONG))
    until(lambda: their_job.text)
    job = ours.submit(asking(model, None, "Ours?", max_new_tokens=5))
    until(lambda: job.state == "looking")
    ours.stop()
    assert job.wait(0.5) and job.state == "stopped" and job.text == ""
    assert not their_job.over
    theirs.stop()
    assert their_job.wait(5)


def test_an_interrupted_kernel_leaves_all_well(model):
    """An interrupt reaches the main thread, wherever it is; the answers are written elsewhere."""
    controller, record = Controller(), Record()
    job = controller.submit(asking(model, picture("red"), "What is this?", max_new_tokens=600), record)
    until(lambda: job.text)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            _thread.interrupt_main()
            time.sleep(5)
    assert not job.over or job.state == "done"
    assert job.wait(60) and job.state == "done" and job.answer.new_tokens == 600
    assert not controller.busy
    after = controller.submit(asking(model, None, "And now?", max_new_tokens=3), only_if_free=True)
    assert after.wait(20) and after.state == "done"


def test_an_interrupt_while_a_question_is_submitted():
    """Whenever it comes: what was submitted is answered, and the next question is too."""
    controller, interrupted = Controller(), 0
    for number in range(40):
        timer = threading.Timer(0.0002 * (number % 10), _thread.interrupt_main)
        try:
            timer.start()
            for _ in range(5):
                controller.submit(talk(count=1))
            until(lambda: False)  # a long sleep would not be woken
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 40
    until(lambda: not controller.busy)
    after = controller.submit(talk(), only_if_free=True)
    assert after.wait(10) and after.state == "done"


def test_a_job_that_is_over_holds_no_pictures(model):
    controller, kept = Controller(), []
    for question, options in (
        ("What is this?", {"max_new_tokens": 3}),
        (" ", {}),
        ("What is this?", {"max_new_tokens": LONG}),
    ):
        image = picture("red")
        gone = weakref.ref(image)
        job = controller.submit(asking(model, [image], question, **options), lambda job, image=image: None)
        if options.get("max_new_tokens") == LONG:
            until(lambda job=job: job.text)
            job.stop()
        del image
        assert job.wait(20)
        kept.append(job)
        until(lambda gone=gone: not gc.collect() and gone() is None or gone() is None)
    assert [job.state for job in kept] == ["done", "failed", "stopped"]


def test_500_questions_from_4_threads(model):
    """None is lost, none is mixed with another, and the memory stays flat."""
    images = {colour: picture(colour) for colour in ("red", "blue", "green")}
    kinds = [
        (images.get(colour), f"Question {n}?", {"max_new_tokens": 3 + n % 3})
        for n in range(5)
        for colour in (*images, None)
    ]
    expected = [model.ask(image, question, **options) for image, question, options in kinds]
    assert len(set(expected)) > 10
    controller = Controller()

    def ask_all(count):
        """So many questions from four threads, as fast as they can: list of (kind, job, told)."""
        done = []

        def ask(thread):
            for n in range(thread, count, 4):
                image, question, options = kinds[n % len(kinds)]
                told = []
                job = controller.submit(
                    asking(model, image, question, **options),
                    lambda job, told=told: told.append((job.state, job.text)),
                )
                done.append((n % len(kinds), job, told))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(job.wait(120) for _, job, _ in done)
        return done

    def check(done, count):
        assert len(done) == count and len({id(job) for _, job, _ in done}) == count
        for kind, job, told in done:
            assert job.state == "done" and job.error is None
            assert job.text == job.answer == expected[kind]
            assert job.answer.prompt_tokens == expected[kind].prompt_tokens
            assert job.answer.new_tokens == expected[kind].new_tokens
            assert told[0] == ("looking", "") and told[-1] == ("done", job.text)
            assert [state for state, _ in told].count("done") == 1

    check(ask_all(100), 100)  # what is made once, is made
    tracemalloc.start()
    try:
        check(ask_all(40), 40)
        before = footprint()
        check(ask_all(500), 500)
        after = footprint()
    finally:
        tracemalloc.stop()
    assert after["threads"] == before["threads"]
    assert after["objects"] - before["objects"] < 250, "something is kept of every question"
    assert after["bytes"] - before["bytes"] < 200_000, "400 bytes a question, less than an Answer has"


def footprint():
    """What is in use, by this process's own objects."""
    until(lambda: not [t for t in threading.enumerate() if t.name == "phi3v-answers"])
    gc.collect()
    return {
        "threads": threading.active_count(),
        "objects": len(gc.get_objects()),
        "bytes": tracemalloc.get_traced_memory()[0],
    }
