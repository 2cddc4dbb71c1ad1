"""Downloads that are cut off, disks that are full, files that are damaged or hostile: said in words, and mended."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import hub
import pytest
import torch
from helpful import helpful
from PIL import Image
from random_model import random_folder
from server import serve

import phi3v_helpers as p3v
from phi3v_helpers.errors import LoadError

KILLS = int(os.environ.get("KILLS", 4))
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A copy of a complete folder, to be damaged."""
    return Path(shutil.copytree(random_folder(), tmp_path / "my-model"))


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def snapshot(home):
    return next(home.glob("hub/models--us--*/snapshots/*"))


def is_whole(home):
    return (snapshot(home) / WEIGHTS).read_bytes() == (random_folder() / WEIGHTS).read_bytes()


# --- downloads ---


def test_a_killed_download_goes_on_where_it_was(tmp_path):
    """`KILLS=50 pytest tests/test_loading_failures.py -k killed` kills it that often."""
    rng = random.Random(0)
    with serve(hub.answer) as server:
        for _ in range(KILLS):
            process = hub.start(server.url, tmp_path, "find_weights('us/slow')")
            begun = len(server.seen)
            while not any(
                path.endswith(WEIGHTS) and method == "GET" for method, path, _ in server.seen[begun:]
            ):
                assert process.poll() is None or is_whole(tmp_path)
                if process.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            away = finish(hub.start("http://127.0.0.1:9", tmp_path, "find_weights('us/slow')"))
            assert away.startswith("LoadError: us/slow is not on this machine") or is_whole(tmp_path)
        assert "my" not in finish(hub.start(server.url, tmp_path, "p3v.load('us/slow', verbose=False).name"))
    assert is_whole(tmp_path)
    fetched = [path.rsplit("/", 1)[1] for method, path, _ in server.seen if method == "GET"]
    assert fetched.count("tokenizer.json") == 1, "a file that was complete was fetched again"


def test_what_killed_downloads_leave_is_removed_in_time(tmp_path):
    blobs = tmp_path / "hub" / "models--us--ours" / "blobs"
    blobs.mkdir(parents=True)
    old, new = blobs / "one.incomplete", blobs / "two.incomplete"
    for file in (old, new):
        file.write_bytes(bytes(1000))
    os.utime(old, (time.time() - 7200,) * 2)
    with serve(hub.answer) as server:
        assert "us/ours" in finish(hub.start(server.url, tmp_path, "find_weights('us/ours')"))
    assert not old.exists() and new.exists(), "another process may still be writing to the new one"


def test_a_connection_that_breaks_is_taken_up_again(tmp_path):
    broken = []

    def answer(handler):
        if handler.path.endswith(WEIGHTS) and handler.command == "GET" and not broken:
            broken.append(handler.path)
            handler.wfile = Cut(handler.wfile, 20_000)
        hub.answer(handler)

    with serve(answer) as server:
        assert "us/ours" in finish(hub.start(server.url, tmp_path, "p3v.load('us/ours', verbose=False)"))
    assert broken and is_whole(tmp_path)


class Cut:
    """A connection that breaks after so many bytes."""

    def __init__(self, file, most):
        self.file, self.most = file, most

    def write(self, data):
        self.file.write(data[: self.most])
        self.most -= len(data)
        if self.most <= 0:
            raise ConnectionResetError

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_damaged_downloads_are_fetched_anew(tmp_path):
    with serve(hub.answer) as server:
        finish(hub.start(server.url, tmp_path, "find_weights('us/ours')"))
        file = (snapshot(tmp_path) / WEIGHTS).resolve()
        file.write_bytes(file.read_bytes()[:-5000])
        before = len(server.seen)
        pinned = f"p3v.load('us/ours', revision='{hub.COMMIT}', verbose=False)"
        assert "us/ours" in finish(hub.start(server.url, tmp_path, pinned))
        fetched = {path.rsplit("/", 1)[1] for method, path, _ in server.seen[before:] if method == "GET"}
    assert is_whole(tmp_path)
    assert WEIGHTS in fetched and "tokenizer.json" not in fetched, "more than the damaged file was fetched"


@contextmanager
def small_disk(folder, size):
    """A disk of so many bytes, mounted there."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", 64 * 1024) as disk, serve(hub.answer) as server:
        out = finish(hub.start(server.url, disk / "hub", "find_weights('us/ours')"))
        assert out.startswith("LoadError: The disk is full: us/ours could not be saved. Make room"), out
    with serve(hub.answer) as server:  # and with room, it works
        assert "us/ours" in finish(hub.start(server.url, tmp_path / "hub", "find_weights('us/ours')"))


# --- folders ---


def test_pickled_weights_are_refused(folder):
    torch.save({"lm_head.weight": torch.zeros(3)}, folder / "pytorch_model.bin")
    assert p3v.load(folder, verbose=False), "beside safetensors they do no harm, as nobody opens them"
    (folder / WEIGHTS).unlink()
    with helpful(LoadError, "pickled", "pytorch_model.bin", ".safetensors"):
        p3v.load(folder)


EVIL = """
import os
open(os.environ["MARK"], "a").write("the code of a checkpoint ran")
class Evil:
    from_pretrained = classmethod(lambda *_, **__: None)
"""


def test_no_code_of_a_checkpoint_is_run(folder, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    monkeypatch.setenv("MARK", str(mark))
    (folder / "evil.py").write_text(EVIL)
    kinds = ("Config", "Model", "ModelForCausalLM", "Processor", "ImageProcessor", "Tokenizer")
    auto_map = {f"Auto{kind}": "evil.Evil" for kind in kinds}
    for name in ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        own = {**auto_map, "AutoTokenizer": ["evil.Evil", "evil.Evil"]} if "tokenizer" in name else auto_map
        file.write_text(json.dumps({**content, "auto_map": own, "trust_remote_code": True}))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(EVIL)
    (folder / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked whether to run code"))
    model = p3v.load(folder, verbose=False)
    assert model.ask(Image.new("RGB", (40, 30)), "What?", max_new_tokens=2).new_tokens
    assert not mark.exists()


@pytest.mark.parametrize(
    "file",
    [
        "tokenizer.json",
        "preprocessor_config.json",
        "tokenizer_config.json",
        "config.json",
        "generation_config.json",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "[]", '{"a": 1}', "\xff\xfe", ""])
def test_damaged_settings_are_an_error_or_do_no_harm(folder, file, damage):
    path = folder / file
    if not path.exists():
        path.write_text("{}")
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else damage.encode("latin-1"))
    try:
        model = p3v.load(folder, verbose=False)
    except LoadError as error:
        assert error.what.endswith(".") and error.advice.endswith("."), str(error)
        assert "my-model" in str(error) and len(error.what) < 300
    else:
        assert model.ask(None, "What?", max_new_tokens=2).new_tokens


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 48},
        {"num_hidden_layers": 3},
        {"vocab_size": 10},
        {"num_attention_heads": 5},
        {"hidden_size": -1},
        {"hidden_size": 10**7, "num_hidden_layers": 10**4},
        {"vision_config": {"patch_size": 0}},
        {"rope_scaling": {"type": "nonsense"}},
        {"hidden_act": "nonsense"},
    ],
)
def test_settings_that_do_not_fit_the_weights(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    started = time.monotonic()
    with helpful(LoadError):
        p3v.load(folder, verbose=False)
    assert time.monotonic() - started < 20
