"""Many threads at once, interrupts at any moment, processes that are killed: the same answers, and nothing broken.

`INTERRUPTS=200 KILLS=50 pytest tests/test_threads_and_signals.py` does so more often.
"""

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image
from random_model import random_folder
from server import send, serve

import phi3v_helpers as p3v

INTERRUPTS = int(os.environ.get("INTERRUPTS", 12))
KILLS = int(os.environ.get("KILLS", 3))
PICTURES = [Image.new("RGB", (60 + 20 * number, 50), (40 * number, 90, 30)) for number in range(4)]
QUESTIONS = ["What?", "Which colour is it?", "And why is that so?"]


@pytest.fixture(scope="module")
def expected(model):
    """The answer to each picture and question, one by one and with nothing known."""
    answers = {}
    for place, picture in enumerate(PICTURES):
        for question in QUESTIONS:
            model.forget()
            answers[place, question] = str(model.ask(picture, question, max_new_tokens=12))
    return answers


def test_eight_threads_and_every_way_of_asking(model, expected):
    wrong, rng = [], random.Random(1)

    def work(seed):
        mine = random.Random(seed)
        for _ in range(6):
            place, question, way = mine.randrange(4), mine.choice(QUESTIONS), mine.randrange(4)
            picture = PICTURES[place]
            if way == 0:
                got = str(model.ask(picture, question, max_new_tokens=12))
            elif way == 1:
                got = "".join(model.stream(picture, question, max_new_tokens=12))
            elif way == 2:
                got = str(
                    next(iter(model.ask_many([(picture, question)], max_new_tokens=12, progress=False)))
                )
            else:
                got = str(model.chat(picture).ask(question, max_new_tokens=12))
            if got != expected[place, question]:
                wrong.append((place, question, way, got))

    threads = [threading.Thread(target=work, args=(rng.random(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_streams_that_nobody_reads_to_the_end(model, expected):
    before = threading.active_count()
    for number in range(20):
        stream = model.stream(PICTURES[number % 4], "What?", max_new_tokens=200)
        next(stream)
        del stream
    assert str(model.ask(PICTURES[0], "What?", max_new_tokens=12)) == expected[0, "What?"]
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.skipif(os.name == "nt", reason="signals differ on Windows")
def test_interrupts_at_any_moment(model, expected):
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs begin with it ignored
    rng, interrupted, chat = random.Random(2), 0, model.chat(PICTURES[0])
    ways = [
        lambda: model.ask(PICTURES[1], "What?", max_new_tokens=150),
        lambda: list(model.stream(PICTURES[2], "What?", max_new_tokens=150)),
        lambda: list(model.ask_many([(PICTURES[0], "What?")] * 3, max_new_tokens=100, progress=False)),
        lambda: chat.ask("What?", max_new_tokens=150),
    ]
    for number in range(INTERRUPTS):
        turns = len(chat.history)
        timer = threading.Timer(rng.uniform(0, 0.15), os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            ways[number % 4]()
            timer.join()
            time.sleep(0.05)  # where it was too late for the question
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        assert len(chat.history) in (turns, turns + 1)
        place, question = rng.randrange(4), rng.choice(QUESTIONS)
        assert str(model.ask(PICTURES[place], question, max_new_tokens=12)) == expected[place, question]
    assert interrupted >= INTERRUPTS - 1


BATCH = """
import sys, phi3v_helpers as p3v
from phi3v_helpers import load_image
folder, *addresses = sys.argv[1:]
model = p3v.load(folder, verbose=False)
pairs = [(load_image(address, allow_private=True), "What?") for address in addresses]
for answer in model.ask_many(pairs, max_new_tokens=30, at_once=2, progress=False):
    print(answer, flush=True)
print("done")
"""


def test_a_batch_that_is_killed_can_be_run_again(tmp_path):
    """The answers are those of a batch that nobody killed."""
    files = {f"/{number}.png": png(picture) for number, picture in enumerate(PICTURES)}

    def answer(handler):
        send(handler, files[handler.path])

    def start(server, cache):
        command = [sys.executable, "-c", BATCH, str(random_folder()), *(server.url + path for path in files)]
        environment = {**os.environ, "PHI3V_CACHE": str(cache), "NO_PROXY": "127.0.0.1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    rng = random.Random(3)
    with serve(answer) as server:
        whole, _ = start(server, tmp_path / "other").communicate(timeout=60)
        for _ in range(KILLS):
            process = start(server, tmp_path / "cache")
            time.sleep(rng.uniform(1, 6))
            process.kill()
            process.communicate()
        again, _ = start(server, tmp_path / "cache").communicate(timeout=60)
    assert whole.endswith("done\n") and again == whole


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_several_threads_load_at_once():
    got = []
    threads = [threading.Thread(target=lambda: got.append(p3v.load("tiny", verbose=False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 4
    assert (
        len({str(vision.ask(p3v.samples["shapes_1"], "What shapes are in the image?")) for vision in got})
        == 1
    )
