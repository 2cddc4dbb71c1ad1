"""`phi3v doctor`: every line true, whatever is broken, and nothing told that is a secret."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from random_model import random_folder
from server import send, serve

import phi3v_helpers as p3v
from phi3v_helpers import cli, doctor
from phi3v_helpers.doctor import machine, models, settings, software
from phi3v_helpers.doctor.report import Check, Report, tidy

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA GPU")
a_shell = pytest.mark.skipif(os.name == "nt", reason="writes a program for a POSIX shell")


@pytest.fixture(scope="module")
def report():
    return doctor()


def run(*words, code=None, **environment):
    """`phi3v doctor` in a process of its own, with these environment variables."""
    command = ["-m", "phi3v_helpers", "doctor", *words] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )


def only(checks, name):
    (check,) = [check for check in checks if check.name == name]
    return check


def installed(folder, name, version, *requirements):
    """What pip leaves of a package in a folder: enough to be found, and to say what it is."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    needs = "".join(f"Requires-Dist: {line}\n" for line in requirements)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    (place / "RECORD").write_text("")


# --- What it says here -----------------------------------------------------------------------------


def test_here_all_is_well(report):
    assert report.ok, report
    names = [check.name for check in report]
    for name in ("python", "packages", "cpu", "attention", "tiny", "model", "phi-3-vision", "files"):
        assert name in names
    assert f"torch {torch.__version__}" in only(report, "packages").what
    assert f"phi3v-helpers {p3v.__version__}" in only(report, "phi3v-helpers").what


def test_it_shows_itself_as_lines_once(report, capsys):
    lines = repr(report).splitlines()
    assert len(lines) == len(report) and str(report) == repr(report)
    assert all(re.match(r"(OK    |NOTE  |FAIL  )\S", line) for line in lines)
    assert all(check.advice for check in report if check.status != "ok")
    assert capsys.readouterr().out == ""  # a notebook shows the cell's last value, and that is it


def test_the_tiny_model_was_really_asked(report):
    what = only(report, "tiny").what
    assert "red circle" in what and re.search(r" in \d+\.\d s$", what)
    assert re.search(r"100 tokens takes about \d+\.\d s$", only(report, "model").what)


def test_asking_leaves_the_users_model_as_it_was():
    model = p3v.load("tiny", verbose=False)
    model.ask(p3v.samples["book_cover"], "Who wrote it?", max_new_tokens=3)
    kept = model.engine.kept.pictures, model.engine.kept.texts
    assert only(models.tiny_model(), "tiny").status == "ok"
    assert (model.engine.kept.pictures, model.engine.kept.texts) == kept


def test_nothing_is_reached_unless_online(monkeypatch):
    reached = []

    def refuse(*address, **_):
        reached.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert doctor().ok and reached == []
    assert not doctor(online=True).ok and reached


def test_the_estimate_is_that_of_a_model_that_can_be_measured():
    """Reading the prompt needs operations, each new token all weights, or at least the starting of each layer."""
    models._measured.clear()
    assert models.answer_seconds(1e9, 1e12, 8e9, 4e9, 32) == pytest.approx(20 + 800)
    models._measured["layer"] = 0.5
    assert models.answer_seconds(1e12, 1e15, 8e9, 4e9, 32) == pytest.approx(0.02 + 100 * 16)
    models._measured.clear()
    reading, computing = machine.speeds(torch.device("cpu"), torch.float32)
    assert 1e8 < reading < 1e13 and 1e9 < computing < 1e15


# --- The command -----------------------------------------------------------------------------------


def test_json_and_the_exit_status(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {tuple(check) for check in told["checks"]} == {("name", "status", "what", "advice")}


def test_long_lines_are_broken_for_a_narrow_terminal():
    check = Check("gpu", "note", "a sentence of several words", "some advice that goes on and on")
    assert check.line() == "NOTE  a sentence of several words: some advice that goes on and on"
    assert check.line(40) == ("NOTE  a sentence of several words: some\n      advice that goes on and on")


def test_the_form_for_bug_reports_asks_for_its_lines():
    folder = Path(__file__).parents[1] / ".github" / "ISSUE_TEMPLATE"
    form = yaml.safe_load((folder / "bug.yml").read_text(encoding="utf-8"))
    fields = {field["id"]: field for field in form["body"]}
    assert "`phi3v doctor`" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"] is True
    assert form["name"] and form["description"]  # GitHub shows no form without them
    assert yaml.safe_load((folder / "config.yml").read_text())["blank_issues_enabled"] is False


# --- What is broken --------------------------------------------------------------------------------


def test_a_torch_that_cannot_be_imported(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    done = run(PYTHONPATH=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert "torch cannot be imported" in line and "libcudart.so.13" in line and str(tmp_path) in line
    assert "not the installed package" in line
    assert "NOTE  The device and the models were not looked at: repair the packages" in done.stdout


def test_a_torch_that_takes_python_along(tmp_path):
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    done = run("--json", PYTHONPATH=tmp_path)
    assert done.returncode == 1, done.stderr
    check = only([Check(**check) for check in json.loads(done.stdout)["checks"]], "import")
    assert check.status == "fail" and check.what.startswith("torch ends Python (status -6)")


def test_versions_that_do_not_fit(tmp_path, monkeypatch):
    installed(tmp_path, "numpy", "1.20.0")
    installed(tmp_path, "jupyterlab", "3.6.0")
    monkeypatch.syspath_prepend(tmp_path)
    check = only(software.needed_packages(), "numpy")
    assert check.line() == 'FAIL  numpy 1.20.0 does not fit, >=1.26 is needed: pip install "numpy>=1.26"'
    check = only(software.optional_packages(), "jupyterlab")
    assert check.status == "fail" and "jupyterlab 3.6.0 does not fit" in check.what


def test_packages_that_are_not_there(tmp_path, monkeypatch):
    installed(tmp_path, "phi3v-helpers", "0.1.0", "quite-missing>=1", 'rather-missing>=2; extra == "widgets"')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(software.OPTIONAL, "rather-missing", "the sky is grey")
    (check,) = software.needed_packages()
    assert check.line() == 'FAIL  quite-missing is not installed: pip install "quite-missing>=1"'
    (check,) = software.optional_packages()
    expected = 'NOTE  rather-missing is not installed, so the sky is grey: pip install "rather-missing>=2"'
    assert check.line() == expected


def test_an_optional_package_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / "av.py").write_text("raise OSError('libav.so is missing')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "av", raising=False)
    check = only(software.optional_packages(), "av")
    assert check.status == "fail" and "(OSError: libav.so is missing)" in check.what


def test_a_check_that_fails_itself_is_a_line(monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: 1 / 0)
    (check,) = doctor._run("machine", "devices")
    assert check.line().startswith(
        "FAIL  Devices: could not be checked (ZeroDivisionError: division by zero)"
    )


@a_shell
@no_cuda
@pytest.mark.parametrize(
    ("script", "visible", "status", "words"),
    [
        (
            "echo 'GPU 0: NVIDIA X1 (UUID: GPU-123)'",
            None,
            "fail",
            "NVIDIA X1 is here, but PyTorch cannot use it",
        ),
        ("echo 'GPU 0: NVIDIA X1 (UUID: GPU-123)'", "", "note", "CUDA_VISIBLE_DEVICES='' hides it"),
        (
            "echo 'driver not loaded'; exit 9",
            None,
            "note",
            "nvidia-smi is here, but fails (driver not loaded)",
        ),
    ],
)
def test_a_gpu_that_is_not_used(script, visible, status, words, tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    check = only(machine.devices(), "gpu")
    assert check.status == status and words in check.what and "UUID" not in check.what


@a_shell
def test_a_flash_attn_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = machine.attention()
    assert check.status == "note" and "undefined symbol" in check.what and "uninstall" in check.advice


# --- Models ----------------------------------------------------------------------------------------


def test_the_model_that_is_wanted(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("PHI3V_MODEL", "tinny")
    (check,) = models.chosen_model()
    assert check.status == "fail" and "'tinny'" in check.what and "Did you mean 'tiny'?" in check.advice
    for name in ("phi-3.5-vision", "somebody/model"):
        monkeypatch.setenv("PHI3V_MODEL", name)
        (check,) = models.chosen_model()
        assert check.status == "note" and "is not on this machine" in check.what
    for name in ("tiny", str(random_folder())):
        monkeypatch.setenv("PHI3V_MODEL", name)
        (check,) = models.chosen_model()
        assert check.status == "ok" and f"{name}, as PHI3V_MODEL says" in check.what


def test_a_folder_for_models_that_cannot_be_written_to(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert only(models.model_files(), "files").status in ("ok", "note")
    (tmp_path / "hub" / "models--microsoft--Phi-3-vision-128k-instruct").mkdir(parents=True)
    assert "phi-3-vision downloaded in part (8.3 GB)" in only(models.model_files(), "files").what
    if os.name == "nt" or os.geteuid() == 0:
        return  # who may write everywhere
    (tmp_path / "hub").chmod(0o500)
    assert only(models.model_files(), "files").status == "fail"


def test_online_the_hub_is_asked_for_the_pinned_revisions(monkeypatch):
    def hub(handler):
        known = "Phi-3-vision-128k-instruct/revision/c45209e90a4c4f7d16b2e9d48503c7f3e83623ed"
        if handler.path.split("?")[0].endswith(known):
            send(
                handler, b'{"id": "a/b", "sha": "c45209e9", "siblings": []}', Content_Type="application/json"
            )
        else:
            send(handler, b"no", 404)

    code = "from phi3v_helpers.doctor import models; print(*[c.line() for c in models.hub()], sep='\\n')"
    with serve(hub) as server:
        done = run(code=code, HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0")
    first, second = done.stdout.splitlines()
    assert first == "OK    Hugging Face Hub: has phi-3-vision, revision c45209e9"
    assert second.startswith("FAIL  Hugging Face Hub: phi-3.5-vision cannot be reached")
    assert all("/api/models/" in path for _, path, _ in server.seen)


# --- Nothing secret --------------------------------------------------------------------------------


def test_settings_without_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecretindeed")
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:geheim@proxy.example:3128/?key=abc")
    monkeypatch.setenv("http_proxy", "anna:geheim@other.example")
    monkeypatch.setenv("HF_HOME", str(Path.home() / "models"))
    monkeypatch.setenv("PHI3V_OFFLINE", "1")
    check = only(settings.settings(), "settings")
    for words in ("HF_TOKEN is set", "HTTPS_PROXY is proxy.example:3128", "HTTP_PROXY is other.example"):
        assert words in check.what
    assert "PHI3V_OFFLINE='1'" in check.what and f"HF_HOME='~{os.sep}models'" in check.what
    assert not re.search("secret|geheim|anna|abc", check.what)


def test_offline_mode_is_noted(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert only(settings.settings(), "HF_HUB_OFFLINE").status == "note"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert [check.name for check in settings.settings()] == ["settings"]


def test_what_is_tidied(monkeypatch, tmp_path):
    home = str(Path("/home/anna"))
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("USERPROFILE", home)
    monkeypatch.setenv("LOGNAME", "anna")
    assert tidy(f"{home}/x and {home}") == "~/x and ~"
    assert tidy(f"{home}belle/x") == f"{home}belle/x"
    assert tidy("/data/anna/hub") == "/data/<user>/hub"
    assert tidy("from https://anna:pw@host/x?key=1 with hf_abcdefgh1234") == "from https://host/x with hf_…"


def test_a_report_with_a_failure_is_not_ok():
    assert Report([Check("a", "ok", "fine"), Check("b", "note", "so so", "nothing")]).ok
    assert not Report([Check("a", "fail", "bad", "repair it")]).ok
