"""What a question will need, against what it needed; and what happens where there is less."""

import argparse
import json
import subprocess
import sys
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from helpful import helpful
from nbtools import ROOT
from PIL import Image
from random_model import random_folder

import phi3v_helpers as p3v
from phi3v_helpers import devices, full_memory, loading
from phi3v_helpers.errors import ImageError, LoadError, Phi3VError
from phi3v_helpers.footprint import Footprint
from phi3v_helpers.model import Phi3VConfig
from phi3v_helpers.weights import KNOWN

RED = Image.new("RGB", (640, 480), "red")
WIDE = Image.new("RGB", (1344, 336), "blue")


def run(script, *arguments):
    """What a Python process of its own prints."""
    process = subprocess.run(
        [sys.executable, *script, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures as Linux does")
@pytest.mark.parametrize("case", ["float32 16 1 5", "bfloat16 4 3 5", "float32 1 0 2500"])
def test_estimates_are_within_15_percent_of_what_was_needed(case):
    found = json.loads(run([ROOT / "tests/needed_memory.py"], *case.split()))
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)


def test_tokens_are_those_that_the_model_counts(model):
    for images in (None, RED, [RED, WIDE]):
        told = p3v.estimate(model, images, "What is this?", system="Be brief.", max_new_tokens=7)
        counted = model.count_tokens(images, "What is this?", system="Be brief.")
        assert (told.prompt_tokens, sum(told.image_tokens)) == (counted, counted.image_tokens)
        assert told.answer_tokens == 7 and told.exact
        assert told.kv_cache == model.memory(counted + 7)[1]


def test_before_and_after_loading_it_is_the_same(model):
    before = p3v.estimate(random_folder(), RED, "What?", device="cpu", num_crops=1)
    after = p3v.estimate(model, RED, "What?", num_crops=1)
    names = ("image_tokens", "prompt_tokens", "weights", "kv_cache", "work", "peak", "context")
    assert [getattr(before, name) for name in names] == [getattr(after, name) for name in names]
    assert before.needed == before.peak and after.needed == after.peak - after.weights
    assert "(loaded)" in str(after) and "(loaded)" not in str(before)


def test_the_published_models_without_their_files():
    config = Phi3VConfig(max_position_embeddings=131072, original_max_position_embeddings=4096)
    assert Footprint(config, "cpu", 2).weights == KNOWN["phi-3-vision"].size
    told = p3v.estimate("phi-3-vision", [RED] * 2, "What is the difference?", device="cpu", dtype="bfloat16")
    assert told.weights == KNOWN["phi-3-vision"].size and told.context == 131072
    assert told.image_tokens == [757, 757] and not told.exact and "about" in str(told)
    one = p3v.estimate("phi-3.5-vision", RED, "?", device="cpu", num_crops=16)
    assert one.image_tokens == [1921] and one.weights == 2 * told.weights, "float32 is a CPU's format"
    assert told.kv_cache == pytest.approx((told.prompt_tokens + 500) * 0.375 * 2**20)


def test_it_says_whether_it_fits(model, monkeypatch):
    told = p3v.estimate(model, RED, "What?")
    assert told.fits and "\nFits: " in str(told)
    monkeypatch.setattr("phi3v_helpers.estimates.free_memory", lambda device: told.needed - 1)
    less = p3v.estimate(model, RED, "What?")
    assert not less.fits and "\nDoes not fit: " in str(less)
    assert not p3v.estimate(model, RED, "What?", max_new_tokens=10**6).fits, "beyond the context"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("no/such-model",), LoadError, ("no/such-model is not on this machine",)),
        (("nonsense",), LoadError, ("no model 'nonsense'",)),
        (("tiny", "missing.png"), ImageError, ("missing.png",)),
        (("tiny", Image.new("RGB", (50_000, 10))), ImageError, ("Picture 1", "too long and thin")),
    ],
)
def test_what_cannot_be_estimated(arguments, kind, words):
    with helpful(kind, *words):
        p3v.estimate(*arguments)


# --- too little memory ---


def test_a_question_beyond_the_memory_is_refused_with_what_would_fit(model, monkeypatch):
    need = p3v.estimate(model, [WIDE, WIDE], "What?", num_crops=16, max_new_tokens=400).needed
    monkeypatch.setattr("phi3v_helpers.estimates.free_memory", lambda device: need // 2)
    monkeypatch.setattr(full_memory, "_with_swap", lambda estimate: estimate.free)
    model.ask(RED, "Known.", max_new_tokens=2)
    with helpful(Phi3VError, "needs", "would fit", "num_crops=", 'p3v.load("tiny")') as caught:
        model.ask([WIDE, WIDE], "What?", num_crops=16, max_new_tokens=400)
    assert model.engine.kept.nbytes == 0, "what was known was not let go first"
    crops = int(caught.value.advice.partition("num_crops=")[2].split(",")[0].split(".")[0])
    assert model.ask([WIDE, WIDE], "What?", num_crops=crops, max_new_tokens=400).new_tokens
    with helpful(Phi3VError, "needs"):
        list(model.ask_many([([WIDE, WIDE], "What?")], num_crops=16, max_new_tokens=400, progress=False))


def test_a_question_beyond_the_memory_is_answered_once_what_was_known_is_gone(model, monkeypatch):
    need = p3v.estimate(model, RED, "What?", max_new_tokens=4).needed
    free = iter([need - 1, need + 1, need + 1])
    monkeypatch.setattr("phi3v_helpers.estimates.free_memory", lambda device: next(free))
    monkeypatch.setattr(full_memory, "_with_swap", lambda estimate: estimate.free)
    model.engine.kept.keep_picture(-1, torch.zeros(3, 3))
    assert model.ask(RED, "What?", max_new_tokens=4).new_tokens


OUT_OF_MEMORY = """
import resource, sys
import torch
torch.set_num_threads(1)
import phi3v_helpers as p3v
from PIL import Image
model = p3v.load(sys.argv[1], attention="eager", verbose=False)
picture = Image.new("RGB", (640, 480), "red")
expected = model.ask(picture, "What?", max_new_tokens=3)
used = 4096 * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + 80 * 2**20, -1))   # which no look at free memory can see
try:
    model.ask(None, "a" * 3000, max_new_tokens=500)   # whose attention weights alone are 144 MB
except p3v.Phi3VError as error:
    print("refused:", error)
print("kept:", model.engine.kept.nbytes, "same:", model.ask(picture, "What?", max_new_tokens=3) == expected)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_out_of_memory_is_caught_and_the_model_goes_on():
    lines = run(["-c", OUT_OF_MEMORY], str(random_folder())).splitlines()
    assert lines == [
        "refused: The memory of the device is full. End other programs that use memory, or take the tiny model: "
        'p3v.load("tiny").',
        "kept: 0 same: True",
    ]


def test_a_device_that_says_so_itself_is_let_try(model, monkeypatch):
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    full_memory.refuse_beyond_memory(model, request=None)


def test_the_error_does_not_hold_on_to_tensors(model):
    held = []

    def fail(*_):
        big = torch.zeros(1000)
        held.append(weakref.ref(big))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = model.model.register_forward_pre_hook(fail)
    try:
        with helpful(Phi3VError, "memory of the device is full") as caught:
            model.ask(RED, "What?")
    finally:
        handle.remove()
    assert caught.value.__cause__ is not None and held[0]() is None


def test_weights_beyond_the_memory_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(loading, "free_memory", lambda device: 50_000)
    monkeypatch.setattr(loading.psutil, "swap_memory", lambda: argparse.Namespace(free=0))
    monkeypatch.setattr(loading, "find_weights", lambda *_: pytest.fail("it was downloaded"))
    with helpful(LoadError, "The weights need 17 GB in float32", "cpu has", 'dtype="bfloat16"'):
        p3v.load("phi-3-vision", device="cpu", verbose=False)
    with helpful(LoadError, "8.3 GB in bfloat16", 'p3v.load("tiny")'):
        p3v.load("phi-3-vision", device="cpu", dtype="bfloat16", verbose=False)
    monkeypatch.undo()
    monkeypatch.setattr(loading, "free_memory", lambda device: 50_000)
    monkeypatch.setattr(loading.psutil, "swap_memory", lambda: argparse.Namespace(free=0))
    with helpful(LoadError, "The weights need", "cpu has"):
        p3v.load(random_folder(), verbose=False)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "max\n", "memory.current": "400\n"}, 7),
        ({"memory/memory.limit_in_bytes": "1000", "memory/memory.usage_in_bytes": "1"}, 999),
        ({}, 7),
    ],
)
def test_a_container_may_have_less_than_its_machine(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert devices._left_to_container(7, tmp_path) == expected


def test_free_memory_of_a_cpu():
    assert 10**7 < devices.free_memory(torch.device("cpu")) <= psutil.virtual_memory().total
