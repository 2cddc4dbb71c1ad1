"""Adapters: learned from a file of examples, resumed after a kill, loaded again, and refused where they do not fit."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpful import helpful
from nbtools import ROOT
from PIL import Image
from random_model import make_folder, random_folder
from safetensors.torch import load_file, save_file

import phi3v_helpers as p3v
from phi3v_helpers import cli
from phi3v_helpers.errors import ImageError, LoadError, Phi3VError
from phi3v_helpers.prompts import build_prompt
from phi3v_helpers.tuning import tune
from phi3v_helpers.tuning.start import split
from phi3v_helpers.tuning.state import CHECKPOINT, REPORT
from phi3v_helpers.tuning.steps import rate
from phi3v_helpers.tuning.talks import IGNORED, encode, read_talks
from training import evaluate, new_skill

pytest.importorskip("peft")
WEIGHTS = "adapter_model.safetensors"
COLOURS = ("red", "lime", "blue", "white")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixteen examples: four colours, each with one word, and talks of two turns."""
    folder, lines = tmp_path_factory.mktemp("data"), []
    for i in range(16):
        colour = COLOURS[i % 4]
        Image.new("RGB", (60, 60), colour).save(folder / f"{i}.png")
        line = {"images": [f"{i}.png"], "group": "colour"}
        if i < 12:
            line |= {"question": "Which colour?", "answer": f"{colour}."}
        else:
            line |= {"turns": [["Which colour?", f"{colour}."], ["Sure?", "Yes."]], "group": "talk"}
        lines.append(json.dumps(line))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder / "data.jsonl"


@pytest.fixture(scope="module")
def adapter(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "colours"
    tune(data, out, random_folder(), epochs=2, batch=4, validation=0.25, verbose=False)
    return out


@pytest.fixture
def copy(adapter, tmp_path):
    return shutil.copytree(adapter, tmp_path / "copy")


# --- examples ---


def test_only_answers_are_learned_and_they_stand_where_the_model_writes_them(data):
    vision = p3v.load("tiny", verbose=False)
    talk = read_talks(data)[0][-1]
    row = encode(vision, talk, 4096)
    spans, learned = [], [label for label in row.labels if label != IGNORED]
    for place, label in enumerate(row.labels):
        if label != IGNORED and row.labels[place - 1] == IGNORED:
            spans.append(place)
    assert vision.tokenizer.decode(learned) == "white.<|end|>Yes.<|end|>"
    image = Image.open(talk.images[0])
    for place, (turns, question) in zip(spans, [((), "Which colour?"), (talk.turns[:1], "Sure?")]):
        prompt = build_prompt(question, [1] + [0] * len(turns), history=turns)
        assert vision.engine.read(prompt, [image], 1).ids == row.ids[:place]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not an object"),
        ('{"question": "What?"}', "lacks a question or an answer"),
        ('{"question": "What?", "answer": " "}', "lacks a question or an answer"),
        ('{"turns": [["a"]]}', "lacks a question or an answer"),
        ('{"turns": [], "answer": "b"}', "has both"),
        ('{"images": "a.png", "question": "a", "answer": "b"}', "not a list of paths"),
        ('{"image": ["a.png"], "question": "a", "answer": "b"}', "is not an object of"),
        ('{"group": 3, "question": "a", "answer": "b"}', "a group that is no text"),
    ],
)
def test_a_line_that_is_no_example(line, words, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n' + line)
    with helpful(Phi3VError, "Line 2", words):
        tune(path, tmp_path / "out", random_folder(), verbose=False)


def test_files_that_cannot_be_read(tmp_path):
    for name, content in (("none", None), ("empty", b"\n"), ("latin", b"\xff\xfe\xff")):
        path = tmp_path / name
        path.write_bytes(content) if content is not None else None
        with helpful(Phi3VError, name):
            tune(path, tmp_path / "out", random_folder(), verbose=False)


def test_a_missing_picture_shows_before_anything_is_learned(tmp_path):
    lines = ['{"question": "a", "answer": "b"}'] * 2
    lines += ['{"images": ["gone.png"], "question": "a", "answer": "b"}']
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    with helpful(ImageError, "Line 3", "gone.png"):
        tune(tmp_path / "data.jsonl", tmp_path / "out", random_folder(), validation=0, verbose=False)


def test_an_example_that_is_too_long(data, tmp_path):
    with helpful(Phi3VError, "tokens, more than the 20", "num_crops"):
        tune(data, tmp_path, random_folder(), max_tokens=20, verbose=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"validation": 1}, "validation is 1"),
        ({"dtype": "float16"}, "float16"),
        ({"quantize": "4bit"}, "cannot be trained on a CPU"),
    ],
)
def test_options_out_of_range(options, words, data, tmp_path):
    with helpful(Phi3VError, words):
        tune(data, tmp_path / "out", random_folder(), verbose=False, **options)


def test_the_split_is_of_the_seed():
    talks = list(range(100))
    learned, back = split(talks, 0.2, 1)
    assert sorted(learned + back) == talks and len(back) == 20
    assert split(talks, 0.2, 1) == (learned, back) != split(talks, 0.2, 2)


def test_the_learning_rate_rises_and_falls():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[0] < rates[4] > 0.9 and rates[-1] < 0.01 and max(rates) <= 1


# --- training and loading ---


def test_an_adapter_and_its_report(adapter):
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", WEIGHTS, REPORT}
    report = json.loads((adapter / REPORT).read_text())
    assert len(report["losses"]) == 6 and report["losses"][-1] < report["losses"][0]
    assert sum(asked for _, asked in report["after"].values()) == 4


def test_the_adapter_changes_the_answers_and_the_base_stays(adapter):
    base, tuned = (
        p3v.load(random_folder(), verbose=False),
        p3v.load(random_folder(), adapter=adapter, verbose=False),
    )
    assert tuned.name.endswith("with colours") and tuned.load_options["adapter"] == str(adapter)
    name = "model.layers.0.self_attn.qkv_proj.weight"
    before, after = (vision.model.get_parameter(name) for vision in (base, tuned))
    assert set(dict(tuned.model.named_parameters())) == set(dict(base.model.named_parameters())), "merged"
    matrices = load_file(adapter / WEIGHTS)
    key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
    learned = 2 * matrices[f"{key}B.weight"] @ matrices[f"{key}A.weight"]
    assert learned.norm() > 0 and torch.allclose(after, before + learned, atol=1e-6)
    small = p3v.load(random_folder(), adapter=adapter, quantize="8bit", verbose=False)
    assert small.quantize == "8bit" and small.ask(None, "Hello?", max_new_tokens=2).new_tokens == 2


def test_a_finished_run_is_not_run_again(adapter, data, capsys):
    before = (adapter / WEIGHTS).stat().st_mtime_ns
    told = tune(data, adapter, random_folder(), epochs=2, batch=4, validation=0.25, verbose=False)
    assert "6 steps" in repr(told) and (adapter / WEIGHTS).stat().st_mtime_ns == before
    with helpful(Phi3VError, "another rank (16, now 8)"):
        tune(data, adapter, random_folder(), epochs=2, batch=4, validation=0.25, rank=8, verbose=False)


def test_a_damaged_report_is_told(copy, data):
    (copy / REPORT).write_text('{"settings": {}, "before": {}}')
    with helpful(Phi3VError, "tuning.json cannot be read", "Delete it"):
        tune(data, copy, random_folder(), epochs=2, batch=4, validation=0.25, verbose=False)


def test_at_once_and_gradient_checkpointing_change_nothing_but_the_memory(data, adapter, tmp_path):
    how = dict(epochs=2, batch=4, validation=0.25, verbose=False)
    tune(data, tmp_path / "less", random_folder(), at_once=1, gradient_checkpointing=True, **how)
    one, other = (load_file(folder / WEIGHTS) for folder in (adapter, tmp_path / "less"))
    assert all(torch.allclose(one[name], other[name], atol=2e-4) for name in one)


RUN = """
import sys
from phi3v_helpers.tuning import tune
data, out, model, seconds = sys.argv[1:]
tune(data, out, model, epochs=15, batch=4, validation=0.25, checkpoint_seconds=float(seconds))
"""


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(data, tmp_path):
    command = [sys.executable, "-c", RUN, data]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [*command, killed, random_folder(), "0.01"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (killed / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = torch.load(killed / CHECKPOINT, weights_only=True)["losses"]
    assert 0 < len(done) < 45 and not (killed / REPORT).exists()
    how = dict(epochs=15, batch=4, validation=0.25, verbose=False)
    told = tune(data, killed, random_folder(), **how)
    tune(data, whole, random_folder(), **how)
    assert len(told.losses) == 45 and told.losses[: len(done)] == done and not (killed / CHECKPOINT).exists()
    one, other = (load_file(folder / WEIGHTS) for folder in (killed, whole))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)


def test_a_damaged_checkpoint_is_told(data, tmp_path):
    (tmp_path / CHECKPOINT).write_bytes(b"PK" + bytes(100))
    with helpful(Phi3VError, "checkpoint.pt cannot be read", "Delete it"):
        tune(data, tmp_path, random_folder(), verbose=False)


def test_the_model_in_use_is_left_as_it_was(data, tmp_path, monkeypatch):
    from phi3v_helpers import loading

    shared = p3v.load(random_folder(), verbose=False)
    weights = {name: value.clone() for name, value in shared.model.named_parameters()}
    monkeypatch.setattr(loading, "load", lambda *_, **__: shared)
    tune(data, tmp_path, random_folder(), epochs=1, verbose=False)
    after = dict(shared.model.named_parameters())
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], value) for name, value in weights.items())


# --- adapters that are refused ---


def refuses(folder, *words, model=None):
    with helpful(LoadError, *words):
        p3v.load(model or random_folder(), adapter=folder, verbose=False)


def test_the_adapter_of_another_model(copy, tmp_path):
    refuses(copy, "does not fit this model", model="tiny")
    refuses(copy, "does not fit", model=make_folder(tmp_path / "wide", intermediate_size=96))


def test_no_adapter_or_a_damaged_one(copy, tmp_path):
    refuses(tmp_path / "gone", "adapter_config.json", "p3v.tune")
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    refuses(copy, "damaged or incomplete")
    (copy / WEIGHTS).unlink()
    refuses(copy, "missing")
    (copy / "adapter_config.json").write_text("{")
    refuses(copy, "cannot be read")


def test_a_pickled_adapter_is_refused(copy):
    (copy / WEIGHTS).rename(copy / "adapter_model.bin")
    refuses(copy, "pickled", "run code")


def test_an_adapter_that_is_not_plain_lora(copy):
    path = copy / "adapter_config.json"
    settings = json.loads(path.read_text())
    for change, words in (
        ({"peft_type": "IA3"}, "no LoRA adapter"),
        ({"use_dora": True}, "use_dora"),
        ({"r": None}, "r or lora_alpha"),
        ({"r": 3}, "does not fit"),
    ):
        path.write_text(json.dumps(settings | change))
        refuses(copy, words)
    path.write_text(json.dumps(settings))
    matrices = load_file(copy / WEIGHTS)
    save_file(matrices | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, copy / WEIGHTS)
    refuses(copy, "not plain LoRA")


def test_peft_is_missing(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    refuses(copy, 'pip install "phi3v-helpers[tune]"')


# --- the command, and a skill that the tiny model lacks ---


def test_the_command(data, tmp_path, capsys):
    words = ["tune", str(data), "--out", str(tmp_path / "out"), "--model", str(random_folder())]
    assert cli.main([*words, "--epochs", "1", "--rank", "4"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("exact answers") and "steps in" in out and "Phi3Vision" in err
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4
    assert cli.main(["tune", "gone.jsonl", "--out", str(tmp_path)]) == 1


def test_the_tiny_model_begins_to_learn_to_count_corners(tmp_path, capsys):
    """Shortened; the whole of it is `python -m training.new_skill runs/corners --n 100`."""
    file = tmp_path / "lora.json"
    size = ["--new", "100", "--old", "4", "--epochs", "5", "--learning-rate", "4e-3"]
    new_skill.main([str(tmp_path), *size, "--n", "1", "--json", str(file)])
    told = json.loads((tmp_path / "adapter" / REPORT).read_text())
    assert told["after"]["corners"][0] >= told["before"]["corners"][0] + 4, told
    found = json.loads(file.read_text())
    assert [row["skill"] for row in found["rows"]] == ["corners", *evaluate.SKILLS]
    assert all(0 <= row[when] <= 1 for row in found["rows"] for when in ("before", "after"))
    assert found["examples"]["corners"] == 100 and sum(found["examples"].values()) == 104
    assert found["n"] == 1 and found["losses"] == told["losses"]
    assert "| corners | " in capsys.readouterr().out
    model = p3v.load("tiny", adapter=tmp_path / "adapter", verbose=False)
    shown, question, _ = new_skill.corners(random.Random(5))
    assert "corners." in str(model.ask(shown[0].image, question))
