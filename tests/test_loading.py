"""From a name to a model: what is chosen, where it runs, and what is said when it cannot be."""

import argparse
import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import hub
import pytest
import torch
from helpful import helpful
from PIL import Image
from random_model import random_folder
from safetensors.torch import load_file, save_file
from server import serve

import phi3v_helpers as p3v
from phi3v_helpers import loading, weights
from phi3v_helpers.devices import Gpu, choose_attention, choose_device, choose_dtype, find_gpus, is_built_for
from phi3v_helpers.errors import LoadError
from phi3v_helpers.loading import choose_model
from phi3v_helpers.weights import KNOWN, TINY_NAME, find_weights, known_model

A100 = Gpu(0, "NVIDIA A100", (8, 0), 78e9)
T4 = Gpu(0, "Tesla T4", (7, 5), 15.4e9)
FULL = Gpu(1, "NVIDIA A100", (8, 0), 4e9)
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")


@pytest.fixture
def folder(tmp_path):
    """A copy of a complete folder, to be damaged."""
    copy = tmp_path / "my-model"
    shutil.copytree(random_folder(), copy)
    return copy


# --- where and how ---


def test_auto_takes_the_gpu_with_most_room():
    assert choose_device("auto", [A100, FULL]) == torch.device("cuda", 0)
    assert choose_device("cuda", [FULL, T4]) == torch.device("cuda", 1)
    assert choose_device("cuda:0", [FULL, T4]) == choose_device(torch.device("cuda", 0), [T4]) == CUDA
    assert choose_device("cpu", [A100]) == CPU


@no_cuda
def test_this_machine_has_no_gpu():
    assert find_gpus() == []
    assert choose_device("auto", []).type in ("cpu", "mps")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", ("CUDA",)),
        ("cuda:1", ("CUDA",)),
        ("meta", ("'meta'",)),
        ("gpu", ("'gpu'",)),
        (None, ("None",)),
    ],
)
def test_no_such_device(device, words):
    with helpful(LoadError, *words, '"' if device in ("gpu", None) else ""):
        choose_device(device, [])


def test_no_such_gpu():
    with helpful(LoadError, "'cuda:3'", "GPUs here are cuda:0"):
        choose_device("cuda:3", [A100])


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without an Apple GPU")
def test_no_apple_gpu():
    with helpful(LoadError, "mps"):
        choose_device("mps", [])


def test_the_number_format_fits_the_device():
    assert choose_dtype("auto", CUDA, [A100]) == torch.bfloat16
    assert choose_dtype("auto", CUDA, [T4]) == torch.float16
    assert choose_dtype("auto", CPU, []) == torch.float32
    for name, dtype in (("bf16", torch.bfloat16), ("float16", torch.float16), (torch.float32, torch.float32)):
        assert choose_dtype(name, CPU, []) == dtype
    for wrong in ("int8", torch.int8, None):
        with helpful(LoadError, "dtype"):
            choose_dtype(wrong, CPU, [])


def test_flash_attention_where_it_is_and_the_gpu_can(monkeypatch, tmp_path):
    (tmp_path / "flash_attn.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_attention("auto", CUDA, torch.bfloat16, [A100]) == "flash_attention_2"
    assert choose_attention("auto", CUDA, torch.float32, [A100]) == "sdpa"
    assert choose_attention("auto", CUDA, torch.float16, [T4]) == "sdpa"
    assert choose_attention("auto", CPU, torch.float32, []) == "sdpa"
    assert choose_attention("eager", CUDA, torch.bfloat16, [A100]) == "eager"
    with helpful(LoadError, "Ampere"):
        choose_attention("flash_attention_2", CUDA, torch.float16, [T4])
    with helpful(LoadError, "cpu"):
        choose_attention("flash_attention_2", CPU, torch.float32, [])
    sys.modules.pop("flash_attn", None)


def test_a_flash_attention_that_does_not_import_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_attention("auto", CUDA, torch.bfloat16, [A100]) == "sdpa"
    with helpful(LoadError, "cannot be imported"):
        choose_attention("flash_attention_2", CUDA, torch.bfloat16, [A100])


def test_unknown_attention():
    with helpful(LoadError, "'flash'", "sdpa"):
        choose_attention("flash", CPU, torch.float32, [])


# --- what "auto" takes ---


@pytest.fixture
def at_hand(monkeypatch):
    monkeypatch.setattr(loading, "at_hand", lambda known: True)


def test_phi_3_vision_where_a_gpu_has_room(at_hand):
    assert choose_model("auto", [A100]) == ("phi-3-vision", "NVIDIA A100 has 78.0 GB free")
    assert choose_model("cuda", [T4])[0] == "phi-3-vision"
    assert choose_model("auto", [A100, FULL])[0] == "phi-3-vision"


@no_cuda
@pytest.mark.parametrize(
    ("device", "gpus", "reason"),
    [
        ("auto", [], "no CUDA GPU"),
        ("auto", [FULL], "NVIDIA A100 has 4.0 GB free, Phi-3-vision needs 10.3"),
        ("cuda:1", [A100, FULL], "NVIDIA A100 has 4.0 GB free, Phi-3-vision needs 10.3"),
        ("cpu", [A100], "device is cpu"),
    ],
)
def test_else_the_tiny_model_and_why(at_hand, device, gpus, reason):
    assert choose_model(device, gpus) == ("tiny", reason)


def test_the_tiny_model_where_the_weights_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name, reason = choose_model("auto", [A100])  # the tests are offline, so this is the real thing
    assert name == "tiny" and "cannot be reached" in reason
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**9))
    name, reason = choose_model("auto", [A100])
    assert name == "tiny" and "the disk has no 8.3 GB left" in reason


@no_cuda
def test_auto_says_what_it_took_and_why(capsys):
    model = p3v.load()
    assert model.name == TINY_NAME and model.is_tiny
    out = capsys.readouterr().out
    assert out == "Phi3Vision: tiny phi3v (embedded) on cpu, float32, sdpa (no CUDA GPU)\n"


def test_the_environment_can_say_what_auto_is(monkeypatch, capsys):
    monkeypatch.setenv("PHI3V_MODEL", str(random_folder()))
    assert p3v.load().name == random_folder().name
    assert "as PHI3V_MODEL says" in capsys.readouterr().out
    monkeypatch.setenv("PHI3V_MODEL", "no/such/model")
    assert p3v.load(random_folder()).name == random_folder().name


def test_a_big_model_is_loaded_once(monkeypatch, at_hand):
    repo = KNOWN["phi-3-vision"].repo
    monkeypatch.setattr(loading, "find_weights", lambda *_: (random_folder(), repo))
    first = p3v.load("phi-3-vision", device="cpu", verbose=False)
    second = p3v.load("phi-3-vision", device="cpu", num_crops=7, verbose=False)
    assert second.model is first.model and second.lock is first.lock
    assert (first.request(["picture"], "?").num_crops, second.request(["picture"], "?").num_crops) == (
        None,
        7,
    )
    assert p3v.load("phi-3-vision", device="cpu", dtype="bf16", verbose=False).model is not first.model
    monkeypatch.setattr(type(first), "device", CUDA)
    assert choose_model("auto", [FULL, Gpu(0, "T4", (7, 5), 1e9)])[0] == "tiny"
    assert choose_model("cuda:0", [Gpu(0, "T4", (7, 5), 1e9)]) == ("phi-3-vision", "loaded before")
    del first, second
    gc.collect()
    assert choose_model("cuda:0", [Gpu(0, "T4", (7, 5), 1e9)])[0] == "tiny"


def test_a_folder_is_read_anew_each_time():
    folder = random_folder()  # its files may have changed
    assert p3v.load(folder, verbose=False).model is not p3v.load(folder, verbose=False).model


# --- loading ---


def test_a_folder(folder, capfd):
    model = p3v.load(folder, verbose=False)
    assert model.name == "my-model"
    assert capfd.readouterr() == ("", "")
    assert p3v.load(str(folder)).ask(None, "Hello?", max_new_tokens=2).model == "my-model"
    out, err = capfd.readouterr()
    assert out == "Phi3Vision: my-model on cpu, float32, sdpa (as asked for)\n"
    assert "100%" in err  # the progress bar


def test_a_relative_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert p3v.load("my-model", verbose=False).name == "my-model"
    monkeypatch.chdir(folder)
    assert p3v.load(".", verbose=False).name == "my-model"


def test_the_tiny_model_is_silent_but_for_one_line(capfd):
    p3v.load("tiny")
    out, err = capfd.readouterr()
    assert out.count("\n") == 1 and err == ""


def test_progress_bars_are_left_as_they_were():
    from huggingface_hub import utils
    from transformers.utils import logging

    for shown in (False, True):
        loading._set_progress_bars(shown, shown)
        p3v.load(random_folder(), verbose=not shown)
        assert logging.is_progress_bar_enabled() == shown
        assert utils.are_progress_bars_disabled() != shown


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_format_and_attention_answers(dtype, attention):
    model = p3v.load(random_folder(), dtype=dtype, attention=attention, verbose=False)
    assert (model.dtype, model.attention) == (getattr(torch, dtype), attention)
    assert model.ask(Image.new("RGB", (40, 30), "red"), "What?", max_new_tokens=3).new_tokens == 3


def test_sharded_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    expected = p3v.load(random_folder(), verbose=False).ask(None, "Hello?", max_new_tokens=9)
    assert p3v.load(folder, verbose=False).ask(None, "Hello?", max_new_tokens=9) == expected
    (folder / "model-2.safetensors").unlink()
    with helpful(LoadError, "model-2.safetensors"):
        p3v.load(folder)


@pytest.mark.parametrize(
    ("capability", "usable"),
    [((7, 5), True), ((8, 9), True), ((5, 0), False), ((7, 0), False), ((12, 1), True)],
)
def test_what_pytorch_was_built_for(capability, usable):
    assert is_built_for(capability, ["sm_75", "sm_80", "sm_86", "sm_90a", "compute_90"]) == usable


def test_an_old_gpu_is_told_and_not_taken_by_itself():
    old, new = Gpu(0, "Tesla M60", (5, 2), 0, usable=False), Gpu(1, "NVIDIA A100", (8, 0), 9e9)
    assert choose_device("auto", [new, old]) == torch.device("cuda", 1)
    assert choose_device("auto", [old]).type != "cuda"
    with helpful(LoadError, "Tesla M60", "5.2", "not built"):
        choose_device("cuda:0", [new, old])


@pytest.mark.parametrize(
    "missing", ["tokenizer.json", "model.safetensors", "config.json", "preprocessor_config.json"]
)
def test_missing_files(folder, missing):
    (folder / missing).unlink(missing_ok=True)
    if missing == "preprocessor_config.json":  # newer transformers keep it in here
        (folder / "processor_config.json").unlink(missing_ok=True)
    with helpful(LoadError, "my-model", missing):
        p3v.load(folder)


def test_an_empty_folder(tmp_path):
    with helpful(LoadError, "config.json"):
        p3v.load(tmp_path)


def test_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with helpful(LoadError, "'llama'", "phi3_v"):
        p3v.load(folder)
    (folder / "config.json").write_text("[]")
    with helpful(LoadError, "None"):
        p3v.load(folder)
    (folder / "config.json").write_text("{ not json")
    with helpful(LoadError, "JSON"):
        p3v.load(folder)


def test_damaged_weights(folder):
    weights_file = folder / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-1000])
    with helpful(LoadError, "damaged or incomplete: model.safetensors", "again"):
        p3v.load(folder)


def test_weights_with_parts_missing(folder):
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "self_attn.qkv_proj" in name)
    tensors.pop(lost)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with helpful(LoadError, "lack 1 parts", lost):
        p3v.load(folder)


def test_bad_arguments_are_found_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(loading, "find_weights", lambda *_: pytest.fail("looked for weights"))
    for bad in ({"device": "gpu"}, {"dtype": "int3"}, {"attention": "fast"}):
        with helpful(LoadError):
            p3v.load("phi-3-vision", **bad)


# --- names ---


def test_known_models_are_pinned():
    for short, known in KNOWN.items():
        assert len(known.revision) == 40 and int(known.revision, 16)
        assert known_model(short) is known_model(short.upper()) is known_model(known.repo) is known
    assert known_model("phi-4") is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("phi-3-visoin", ("'phi-3-visoin'", "Did you mean 'phi-3-vision'?")),
        ("tini", ("Did you mean 'tiny'?",)),
        ("./no/such/folder", ("'./no/such/folder'", "folder")),
        ("~/nowhere", ("'~/nowhere'",)),
        ("/nowhere/at/all", ("'/nowhere/at/all'",)),
        (Path("no/folder"), ("folder",)),
        ("", ("''",)),
        (None, ("None",)),
        (7, ("7",)),
    ],
)
def test_names_that_lead_nowhere(name, words):
    with helpful(LoadError, *words):
        find_weights(name)


# --- the Hugging Face Hub ---


@pytest.fixture
def with_hub(tmp_path):
    """Evaluates expressions in a fresh process whose Hub is at `url`, and prints what each gives."""

    def run(url, *calls, **more):
        process = hub.start(url, tmp_path / "hub", *calls, **more)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return argparse.Namespace(stdout=out, stderr=err)

    return run


def test_a_model_of_the_hub_is_downloaded_once(with_hub):
    pinned = f"find_weights('us/ours', '{hub.COMMIT}')"
    with serve(hub.answer) as server:
        first = with_hub(server.url, "p3v.load('us/ours')")
        seen = [path for _, path, _ in server.seen]
        again = with_hub(server.url, pinned)
    assert first.stdout.startswith("Phi3Vision: us/ours on cpu")
    assert " files:" in first.stderr and "Loading weights" in first.stderr, "progress bars"
    assert any(path.endswith("/resolve/main/config.json") for path in seen)
    assert hub.COMMIT in again.stdout and "us/ours" in again.stdout
    assert len(server.seen) == len(seen), "a pinned model was asked for again"
    away = with_hub(server.url, "find_weights('us/ours')", pinned)  # the server is gone
    assert away.stdout.count(hub.COMMIT) == 2, "what is here must load without the Hub"


def test_a_quiet_download(with_hub):
    with serve(hub.answer) as server:
        process = with_hub(server.url, "p3v.load('us/ours', verbose=False).name")
    assert (process.stdout, process.stderr) == ("us/ours\n", "")


def test_what_the_hub_refuses(with_hub):
    expected = {
        "'us/gated'": ("us/gated is gated", "hf auth login"),
        "'us/missing'": ("no model 'us/missing'", "private"),
        "'us/ours', 'no-such-revision'": ("no revision 'no-such-revision'", "main"),
        "'us/no-config'": ("no config.json",),
        "'us/other'": ("'llama'",),
        "'us/not valid!'": ("not an id",),
    }
    with serve(hub.answer) as server:
        lines = with_hub(server.url, *(f"find_weights({name})" for name in expected)).stdout.splitlines()
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected.values(), strict=True):
        assert line.startswith("LoadError:") and all(word in line for word in words), line
    assert not any("safetensors" in path for _, path, _ in server.seen), "weights were fetched for nothing"


@pytest.mark.parametrize("offline", ["0", "1"])
def test_offline_and_not_here(with_hub, offline):
    process = with_hub("http://127.0.0.1:9", "find_weights('phi-3.5-vision')", HF_HUB_OFFLINE=offline)
    assert "Phi-3.5-vision-instruct is not on this machine and could not be downloaded" in process.stdout
    assert 'p3v.load("tiny")' in process.stdout
    assert process.stderr == ""


def test_folder_of_the_tiny_model_is_complete():
    assert find_weights("tiny") == (weights.TINY_FOLDER, TINY_NAME)


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads the peak of memory as Linux tells it"
)
def test_weights_are_not_in_memory_twice(tmp_path):
    """From the file to the device without a second copy on the way: measured on 240 MB."""
    from benchmarks import models

    model = models.build("mid")
    model.save_pretrained(tmp_path)
    models.processor().save_pretrained(tmp_path)
    weights = sum(part.nbytes for part in model.parameters())
    code = f"""
import phi3v_helpers as p3v
from benchmarks.models import memory_of_process
import phi3v_helpers.loading
before = memory_of_process(reset=True)
p3v.load({str(tmp_path)!r}, verbose=False)
print(memory_of_process() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert int(done.stdout) < 1.5 * weights
