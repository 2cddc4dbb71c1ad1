"""Many pictures on the workers of a Ray cluster: the rows of one machine, though workers are killed.

`RAY_ROWS=2000 pytest tests/test_ray.py` takes so many pictures, and runs what takes minutes too.
"""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import psutil
import pytest
from helpful import helpful
from PIL import Image
from random_model import make_folder
from server import send, serve

from phi3v_helpers.errors import Phi3VError
from phi3v_helpers.folders import batch

ROWS = int(os.environ.get("RAY_ROWS", 60))
LONG = pytest.mark.skipif("RAY_ROWS" not in os.environ, reason="takes minutes; RAY_ROWS=60 runs it")
QUESTION = "What?"
OPTIONS = {"max_new_tokens": 20, "at_once": 1, "progress": False}

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    """Two cores of this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 1024**2,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=folder,
        )
        yield ray
        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("models") / "strong", strength=6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = random.Random(0)
    for number in range(ROWS):
        size = rng.randint(20, 60), rng.randint(20, 60)
        Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).save(folder / f"p{number}.png")
    (folder / "p7.png").write_bytes(b"<!doctype html><p>404")
    return folder


@pytest.fixture(scope="module")
def expected(model, photos, tmp_path_factory):
    """The rows that this process gives, without Ray."""
    out = tmp_path_factory.mktemp("expected") / "answers.jsonl"
    batch(photos, QUESTION, out, model=model, **OPTIONS)
    return read(out)


def read(out):
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def written(out):
    """The places of the rows in a journal."""
    lines = out.with_name(f"{out.name}.journal").read_text().splitlines()
    return [entry["place"] for entry in (json.loads(line[9:]) for line in lines) if "place" in entry]


def workers(process=None):
    """The processes that hold a model."""
    found = (process or psutil.Process()).children(recursive=True)
    return [one for one in found if one.is_running() and "MapWorker" in " ".join(one.cmdline())]


def grown(out, rows):
    """Wait until so many rows are written down; returns how many there are."""
    deadline = time.monotonic() + 300
    journal = out.with_name(f"{out.name}.journal")
    while not journal.exists() or journal.read_bytes().count(b'"place"') < rows:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return len(written(out))


def test_a_worker_that_is_killed_loses_nothing(cluster, model, photos, expected, tmp_path):
    out, seen = tmp_path / "answers.jsonl", []

    def kill():
        seen.append(grown(out, ROWS // 10))
        victim = workers()[0]
        seen.append(victim.pid)
        victim.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    done = batch(photos, QUESTION, out, model=model, ray=True, workers=2, **OPTIONS)
    killer.join()
    assert ROWS // 10 <= seen[0] < ROWS and seen[1], "nobody was killed midway"
    assert (done.rows, done.errors) == (ROWS, 1)
    assert sorted(written(out)) == list(range(ROWS))
    assert read(out) == expected


def test_what_no_worker_can_load_or_take(model, photos):
    from phi3v_helpers.folders.with_ray import Asker

    def told(model, **options):
        worker = Asker({"model": str(model)}, {"options": options}, os.getcwd(), None, None)
        results = worker({"item": [json.dumps([0, str(photos / "p1.png"), QUESTION])]})["result"]
        return [json.loads(result) for result in results]

    ((what, advice),) = told("/nowhere")
    assert "nowhere" in what and advice.endswith(".")
    ((what, _),) = told(model, max_new_tokens=0)
    assert what == "max_new_tokens is 0."


@LONG
def test_what_no_worker_can_load_ends_the_run(cluster, photos, tmp_path):
    with helpful(Phi3VError, "nowhere"):
        batch(photos, QUESTION, tmp_path / "a.jsonl", model="/nowhere", ray=True, workers=1, **OPTIONS)
    assert written(tmp_path / "a.jsonl") == []


def test_a_cluster_that_is_not_there(model, photos, tmp_path):
    """In a process that is not connected to another one."""
    code = (
        "import sys, phi3v_helpers.cli as cli\n"
        "sys.exit(cli.main(['batch', sys.argv[1], '--ask', 'What?', '--out', sys.argv[2], '--ray', '127.0.0.1:9']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, photos, tmp_path / "a.csv"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "phi3v: The Ray cluster at 127.0.0.1:9 cannot be reached ([Errno" in done.stderr


def test_another_cluster_than_the_one_at_hand(cluster, model, photos, tmp_path):
    with helpful(Phi3VError, "connected to a Ray cluster already", "ray.shutdown()"):
        batch(photos, QUESTION, tmp_path / "a.jsonl", model=model, ray="127.0.0.1:9", **OPTIONS)


@LONG
def test_a_picture_that_kills_workers_is_a_row(cluster, model, photos, tmp_path):
    png = (photos / "p1.png").read_bytes()
    killed = []

    def answer(handler):
        """Whoever asks for the poison dies of it."""
        if handler.path == "/poison.png":
            port = handler.client_address[1]
            (pid,) = {
                one.pid
                for one in workers()
                for connection in one.net_connections("tcp")
                if connection.laddr.port == port
            }
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        send(handler, png)

    out = tmp_path / "answers.jsonl"
    with serve(answer) as server:
        pictures = [f"{server.url}/{name}.png" for name in ("a", "b", "poison", "d", "e")]
        options = {**OPTIONS, "at_once": 2, "allow_private": True}
        done = batch(pictures, QUESTION, out, model=model, ray=True, workers=1, **options)
    rows = read(out)
    assert (done.errors, len(set(killed))) == (1, 4)
    assert "3 workers died over this picture" in rows[2]["error"]
    assert len({row["answer"] for row in rows if not row["error"]}) == 1


@LONG
def test_a_caller_that_is_killed_can_go_on(model, photos, expected, tmp_path):
    out = tmp_path / "answers.jsonl"
    words = [
        "batch",
        photos,
        "--ask",
        QUESTION,
        "--out",
        out,
        "--model",
        model,
        "--ray=local",
        "--workers",
        2,
    ]
    words += ["--at-once", 1, "--max-new-tokens", 20]
    caller = psutil.Popen(
        [sys.executable, "-m", "phi3v_helpers", *map(str, words)], stderr=subprocess.DEVNULL
    )
    before = grown(out, ROWS // 4)
    family = caller.children(recursive=True)
    caller.kill()
    caller.wait()
    assert before < ROWS
    # Most end at once, Ray's agents when they have waited a minute for the others.
    assert not psutil.wait_procs(family, timeout=200)[1], "the cluster lives on without its caller"
    batch(photos, QUESTION, out, model=model, **OPTIONS)
    assert sorted(written(out)) == list(range(ROWS))
    assert read(out) == expected
