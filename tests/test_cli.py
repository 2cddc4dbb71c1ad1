"""The command `phi3v`: answers on standard output, all else on standard error, and no traceback for anyone."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from random_model import random_folder
from server import send, serve

import phi3v_helpers as p3v
from phi3v_helpers import cli, loading

SHAPES = str(p3v.samples.path("shapes_1"))
QUESTION = "How many shapes are in the image?"
ANSWER = "There are three shapes."


def run(*words, **options):
    """A real process that has ended; its output as bytes."""
    command = [sys.executable, "-m", "phi3v_helpers", *words]
    return subprocess.run(command, capture_output=True, timeout=300, **options)


def start(*words):
    """A real process that is still at work, with Ctrl-C as a terminal would give it."""
    return subprocess.Popen(
        [sys.executable, "-m", "phi3v_helpers", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wrong_usage(capsys, *words):
    """What argparse says to these words."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def standard_input(monkeypatch):
    def give(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


# --- Help ------------------------------------------------------------------------------------------


def test_help_lists_all_commands_and_the_exit_status(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"\n    {name} " in out for name in ("ask", "doctor", "demo", "cache"))
    assert "exit status" in out and "130 interrupted" in out


@pytest.mark.parametrize("command", ["ask", "doctor", "demo", "cache"])
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith(f"usage: phi3v {command}")


def test_help_version_and_mistakes_need_no_torch():
    code = (
        "import sys; from phi3v_helpers.cli import main\n"
        "for words in (['--help'], ['ask', '--help'], ['--version'], ['ask', 'no.png', 'What?']):\n"
        "    try: main(words)\n"
        "    except SystemExit: pass\n"
        "print('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.partition("loaded:")[2].split()
    assert "phi3v_helpers.cli" in loaded and not {"torch", "transformers"} & set(loaded)
    assert f"phi3v-helpers {p3v.__version__}\n" in done.stdout and "no file 'no.png'" in done.stderr


def test_the_installed_command():
    script = Path(sys.executable).with_name("phi3v")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"phi3v-helpers {p3v.__version__}\n"


# --- Answers ---------------------------------------------------------------------------------------


def test_the_answer_goes_out_and_all_else_to_standard_error():
    done = run("ask", "-", QUESTION, "--model", "tiny", input=Path(SHAPES).read_bytes())
    assert (done.returncode, done.stdout.decode()) == (0, f"{ANSWER}\n"), done.stderr
    first, last = done.stderr.decode().splitlines()
    assert first.startswith("Phi3Vision: tiny phi3v (embedded) on cpu")
    assert "tokens in" in last and last.endswith(" s")


def test_quiet(capsys):
    assert cli.main(["ask", SHAPES, QUESTION, "--model", "tiny", "--quiet"]) == 0
    assert capsys.readouterr() == (f"{ANSWER}\n", "")


def test_json(capsys):
    assert cli.main(["ask", "--json", "--model", "tiny", SHAPES, QUESTION]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("seconds") > 0
    assert told.pop("prompt_tokens") > 100 and told.pop("new_tokens") > 3
    assert told == {"answer": ANSWER, "model": "tiny phi3v (embedded)", "finished": True}


def test_options_may_stand_anywhere_and_reach_the_model(capsys):
    words = ["ask", SHAPES, "--model", "tiny", SHAPES, "--max-new-tokens", "2", "What differs?", "--json"]
    assert cli.main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["new_tokens"], told["finished"]) == (2, False)
    assert told["prompt_tokens"] > 226  # two pictures


def test_temperature_and_seed(capsys):
    words = ["ask", SHAPES, QUESTION, "--model", str(random_folder()), "--quiet", "--max-new-tokens", "20"]
    said = []
    for seed in ("1", "1", "2"):
        assert cli.main([*words, "--temperature", "2", "--seed", seed]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]


def test_the_question_from_standard_input(standard_input, capsys):
    standard_input(f"{QUESTION}\n".encode())
    assert cli.main(["ask", SHAPES, "-", "--model", "tiny", "--quiet"]) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n"


def test_a_question_as_an_option_leaves_all_words_for_pictures(capsys):
    words = ["ask", SHAPES, SHAPES, "-q", "What differs?", "--model", "tiny", "--json", "--quiet"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] > 226


def test_a_single_word_is_a_question_without_a_picture(capsys):
    assert cli.main(["ask", "Hello there", "--model", "tiny", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] < 50


def test_a_picture_from_an_address(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PHI3V_CACHE", str(tmp_path))
    png = Path(SHAPES).read_bytes()
    with serve(lambda handler: send(handler, png, Content_Type="image/png")) as server:
        words = ["ask", f"{server.url}/shapes.png", QUESTION, "--model", "tiny", "--quiet", "--allow-private"]
        assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{ANSWER}\n"


def test_letters_that_the_output_does_not_know(capsys):
    words = ["ask", SHAPES, QUESTION, "--model", str(random_folder()), "--max-new-tokens", "60"]
    words += ["--temperature", "2", "--seed", "1", "--quiet"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert not said.isascii(), "choose another seed"
    done = run(*words, env=os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == said.encode("ascii", errors="replace")


# --- Pipes, Ctrl-C ---------------------------------------------------------------------------------


def long_answer():
    """A question whose answer takes a while."""
    words = ("ask", SHAPES, QUESTION, "--model", str(random_folder()), "--max-new-tokens", "3000", "--quiet")
    return (*words, "--temperature", "1", "--seed", "1")


def test_a_reader_that_has_enough_ends_it_quietly():
    process = start(*long_answer())
    assert process.stdout.read(5)
    process.stdout.close()
    told = process.stderr.read().decode()
    assert process.wait(60) == 141
    assert told == ""


def test_ctrl_c_ends_it_at_once_without_a_traceback():
    process = start(*long_answer())
    assert process.stdout.read(1)  # it is writing
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk(unbuffered):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "phi3v_helpers", "cache"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    assert done.stderr.startswith("phi3v: The output could not be written (No space left on device).")
    assert len(done.stderr.splitlines()) == 1


# --- Errors ----------------------------------------------------------------------------------------


def test_a_missing_file(capsys):
    assert cli.main(["ask", "no.png", SHAPES, QUESTION]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("phi3v: Picture 1 of 2: There is no file 'no.png'. Check the path")


def test_a_pattern_that_the_shell_left_as_it_is(capsys):
    assert cli.main(["ask", "holidays/*.jpg", QUESTION]) == 1
    assert capsys.readouterr().err.startswith("phi3v: No file matches 'holidays/*.jpg'. Check folder")


def test_what_is_no_picture_on_standard_input(standard_input, capsys):
    standard_input(b"<!doctype html><p>404")
    assert cli.main(["ask", "-", QUESTION]) == 1
    assert capsys.readouterr().err.startswith(
        "phi3v: What came on standard input is a web page, not a picture"
    )


def test_too_much_on_standard_input(standard_input, capsys):
    standard_input(b"a" * 1_000_001)
    assert cli.main(["ask", SHAPES, "-"]) == 1
    assert "more than 1,000,000 bytes" in capsys.readouterr().err


def test_an_unknown_model_and_an_option_out_of_range(capsys):
    assert cli.main(["ask", SHAPES, QUESTION, "--model", "tinny"]) == 1
    assert "Did you mean 'tiny'?" in capsys.readouterr().err
    assert cli.main(["ask", SHAPES, QUESTION, "--model", "tiny", "--max-new-tokens", "0"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("phi3v: max_new_tokens is 0.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "COMMAND"),
        (["aks"], "'aks'"),
        (["ask"], "a question is missing"),
        (["ask", SHAPES], "is no question"),
        (["ask", "photo.jpg"], "'photo.jpg' is no question"),
        (["ask", "a.png", "https://example.org/b"], "is no question"),
        (["ask", "-", "-"], "only one of them"),
        (["ask", "-", "-", "What?"], "only one of them"),
        (["ask", SHAPES, "What?", "--crops", "4"], "unrecognized arguments: --crops 4"),
        (["ask", SHAPES, "What?", "--seed", "one"], "--seed"),
        (["doctor", "all"], "unrecognized arguments: all"),
    ],
)
def test_wrong_usage(words, expected, capsys):
    said = wrong_usage(capsys, *words)
    assert said.startswith("usage: phi3v") and expected in said


def test_what_nobody_expected_is_one_line_and_a_traceback_on_demand(monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(loading, "load", broken)
    assert cli.main(["ask", SHAPES, QUESTION]) == 70
    err = capsys.readouterr().err
    assert "(RuntimeError: the sky fell)" in err and "--debug" in err and len(err.splitlines()) == 1
    monkeypatch.setenv("PHI3V_DEBUG", "1")
    assert cli.main(["ask", SHAPES, QUESTION]) == 70
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PHI3V_DEBUG", "0")
    assert cli.main(["ask", SHAPES, QUESTION, "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


# --- Kept pictures ---------------------------------------------------------------------------------


def test_kept_pictures_are_counted_and_removed(monkeypatch, tmp_path, capsys):
    from phi3v_helpers.images import web_cache

    monkeypatch.setenv("PHI3V_CACHE", str(tmp_path))
    web_cache.keep("http://example.org/a.png", web_cache.Entry(b"abc", 1.0))
    assert cli.main(["cache"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path} holds 1 pictures")
    assert cli.main(["cache", "--clear"]) == 0
    assert list(tmp_path.iterdir()) == []
