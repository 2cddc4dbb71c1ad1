"""Many pictures, one file of answers: every row once and in order, whatever ends the process."""

import csv
import json
import os
import random
import shutil
import signal
import sys
import time

import pytest
from helpful import helpful
from nursery import Nursery
from PIL import Image
from random_model import make_folder
from server import send, serve
from test_loading_failures import small_disk

import phi3v_helpers as p3v
from phi3v_helpers import cli
from phi3v_helpers.errors import ImageError, LoadError, Phi3VError, PromptError
from phi3v_helpers.folders import batch
from phi3v_helpers.folders.journal import Journal
from phi3v_helpers.folders.output import COLUMNS

KILLS = int(os.environ.get("KILLS", 3))
COUNT = 30
QUESTION = "What?"
OPTIONS = {"at_once": 2, "max_new_tokens": 8}
WORDS = ("--at-once", 2, "--max-new-tokens", 8)  # the same on the command line


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model whose answers depend on what it sees."""
    return make_folder(tmp_path_factory.mktemp("models") / "strong", strength=6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of small pictures of several sizes, one of which is none."""
    folder = tmp_path_factory.mktemp("batch") / "photos"
    folder.mkdir()
    rng = random.Random(0)
    for number in range(1, COUNT):
        size = rng.randint(20, 90), rng.randint(20, 90)
        Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).save(folder / f"p{number}.png")
    (folder / "p7.png").write_bytes(b"<!doctype html><p>404")
    (folder / "p0.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(model, photos, tmp_path_factory):
    """The rows of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("expected") / "answers.jsonl"
    done = batch(photos, QUESTION, out, model=model, progress=False, **OPTIONS)
    assert (done.rows, done.errors, done.may_pass) == (COUNT, 2, 0)
    rows = read(out)
    assert len({row["answer"] for row in rows}) > COUNT / 2
    return rows


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


@pytest.fixture
def ask(model, photos, tmp_path):
    """batch with what most tests have in common."""

    def ask(pictures=photos, question=QUESTION, out=tmp_path / "answers.jsonl", **options):
        return batch(pictures, question, out, **{"model": model, "progress": False, **OPTIONS, **options})

    return ask


def read(out):
    """The rows of a JSONL file without what varies."""
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def written(out):
    """The entries of a journal that are rows."""
    lines = out.with_name(f"{out.name}.journal").read_text().splitlines()
    return [entry for entry in (json.loads(line[9:]) for line in lines) if "place" in entry]


def grown(out, rows):
    """Wait until a process has written down so many rows."""
    journal = out.with_name(f"{out.name}.journal")
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b'"place"') < rows:
        assert time.monotonic() < deadline
        time.sleep(0.003)


# --- Rows --------------------------------------------------------------------------------------------


def test_the_answers_are_those_of_ask_many(model, photos, expected):
    vision = p3v.load(model, verbose=False)
    good = [row for row in expected if row["error"] is None]
    pairs = [(row["picture"], QUESTION) for row in good]
    for row, answer in zip(good, vision.ask_many(pairs, progress=False, **OPTIONS), strict=True):
        assert row["answer"] == answer.text and row["model"] == answer.model
        for name in ("prompt_tokens", "new_tokens", "finished"):
            assert row[name] == getattr(answer, name)


def test_rows_stand_in_the_order_of_the_pictures(photos, expected):
    assert [row["picture"] for row in expected] == [str(photos / f"p{number}.png") for number in range(COUNT)]
    assert {row["question"] for row in expected} == {QUESTION}
    assert list(expected[0]) == [name for name in COLUMNS if name != "seconds"]


def test_a_bad_picture_is_a_row_that_says_why(expected):
    empty, page = expected[0], expected[7]
    assert "is empty (0 bytes). Save or download the picture again." in empty["error"]
    assert "is a web page, not a picture" in page["error"]
    for row in (empty, page):
        assert row["answer"] is row["prompt_tokens"] is row["finished"] is None and row["model"] == "strong"


def test_a_question_that_is_too_long_costs_its_row_alone(ask, photos, expected, tmp_path):
    pairs = [(photos / f"p{number}.png", QUESTION) for number in (1, 2, 3, 4, 5)]
    pairs[3] = (pairs[3][0], "word " * 3000)
    assert ask(pairs, None, at_once=16).errors == 1
    rows = read(tmp_path / "answers.jsonl")
    assert "The prompt has " in rows[3].pop("error") and rows[3]["answer"] is None
    assert [row["answer"] for row in rows] == [row["answer"] for row in expected[1:4]] + [
        None,
        expected[5]["answer"],
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_format_can_be_read_back(ask, expected, tmp_path, ending):
    out = tmp_path / f"answers{ending}"
    if ending == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    ask(out=out)
    if ending == ".parquet":
        table = parquet.read_table(out)
        assert [str(kind) for kind in table.schema.types] == (
            ["string"] * 4 + ["int64"] * 2 + ["double", "bool", "string"]
        )
        rows = table.to_pylist()
    elif ending == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        expected = [{name: "" if v is None else str(v) for name, v in row.items()} for row in expected]
    else:
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row.pop("seconds") not in (None, "") for row in rows] == [not row["error"] for row in expected]
    assert rows == expected


def test_a_loaded_model_may_be_given(ask, model, expected, tmp_path):
    assert ask(model=p3v.load(model, verbose=False)).rows == COUNT
    assert read(tmp_path / "answers.jsonl") == expected


def test_a_progress_bar(ask, capfd):
    ask(progress=True)
    out, err = capfd.readouterr()
    assert f"{COUNT}/{COUNT}" in err and "errors=2" in err and "picture/s" in err
    ask(progress=False)
    assert capfd.readouterr() == ("", "")


# --- What is asked about -----------------------------------------------------------------------------


def names(out):
    return [os.path.basename(row["picture"]) for row in read(out)]


def test_patterns_and_pictures_side_by_side(ask, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    ask(["photos/p1?.png", photos / "p3.png", "photos/p3.png", "photos/nowhere.png"])
    assert names(tmp_path / "answers.jsonl") == [f"p1{n}.png" for n in range(10)] + ["p3.png"] * 2 + [
        "nowhere.png"
    ]
    rows = read(tmp_path / "answers.jsonl")
    assert rows[0]["picture"] == "photos/p10.png"
    assert rows[10]["answer"] == rows[11]["answer"] and "There is no file" in rows[12]["error"]


LISTS = {
    "list.txt": "p1.png\n\np2.png\n",
    "list.csv": "\ufeffquestion,picture\nWho?,p1.png\n,p2.png\n",
    "list.jsonl": '{"picture": "p1.png", "question": "Who?"}\n{"picture": "p2.png"}\n',
}


@pytest.mark.parametrize("name", [*LISTS, "list.parquet"])
def test_lists(ask, photos, tmp_path, monkeypatch, name):
    monkeypatch.chdir(photos)
    file = tmp_path / name
    if name == "list.parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        table = pa.table({"picture": ["p1.png", "p2.png"], "question": ["Who?", None]})
        pyarrow.parquet.write_table(table, file)
    else:
        file.write_text(LISTS[name], encoding="utf-8")
    ask(f"@{file}")
    rows = read(tmp_path / "answers.jsonl")
    own = QUESTION if name == "list.txt" else "Who?"
    assert [(row["picture"], row["question"]) for row in rows] == [("p1.png", own), ("p2.png", QUESTION)]
    assert all(row["answer"] for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_name_that_is_no_text(ask, photos, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write((photos / "p1.png").read_bytes())
    assert ask(os.fsdecode(name), out=tmp_path / f"answers{ending}").errors == 0
    assert b"caf\\udce9.png" in (tmp_path / f"answers{ending}").read_bytes().replace(b"\\\\", b"\\")


def test_what_cannot_be_asked_about(ask, tmp_path, photos):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("path\np1.png\n")
    with helpful(ImageError, "no pictures in", "empty"):
        ask(tmp_path / "empty")
    with helpful(ImageError, "no pictures in", "*.gif"):
        ask(str(photos / "*.gif"))
    with helpful(ImageError, "no pictures to ask about"):
        ask([])
    with helpful(ImageError, "Picture 2 is a Image", "model.ask_many"):
        ask([photos / "p1.png", Image.new("RGB", (9, 9))])
    with helpful(ImageError, "A int is no list"):
        ask(3)
    with helpful(ImageError, "give '@"):
        ask(tmp_path / "list.csv")
    with helpful(ImageError, "Row 1 of", "names no picture", "Its columns are"):
        ask(f"@{tmp_path}/list.csv")
    with helpful(ImageError, "The list", "cannot be read (No such file"):
        ask(f"@{tmp_path}/nowhere.csv")
    with helpful(PromptError, "Picture 1", "p0.png", "has no question"):
        ask(question=None)
    with helpful(PromptError, "The question is ' '"):
        ask(question=" ")
    assert not list(tmp_path.glob("answers*"))


# --- Options and outputs -----------------------------------------------------------------------------


def test_what_would_be_refused_for_every_row_is_refused_at_once(ask, tmp_path):
    for option, words in (
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"look_up": True}, "look_up works for one question"),
        ({"at_once": 0}, "at_once is 0"),
        ({"workers": 2}, "workers is for a cluster"),
    ):
        with helpful(PromptError, words):
            ask(**option)
    with helpful(LoadError, "nowhere"):
        ask(model="nowhere")
    assert not (tmp_path / "answers.jsonl").exists()
    assert ask().rows == COUNT, "a run that came to nothing is in the way"


def test_outputs_that_cannot_be_written(ask, tmp_path):
    with helpful(PromptError, "'answers.txt'", ".parquet, .jsonl or .csv"):
        ask(out=tmp_path / "answers.txt")
    with helpful(Phi3VError, "There is no folder", "answers.csv"):
        ask(out=tmp_path / "nowhere" / "answers.csv")
    (tmp_path / "folder.csv").mkdir()
    with helpful(Phi3VError, "'folder.csv' is a folder"):
        ask(out=tmp_path / "folder.csv")
    (tmp_path / "mine.csv").write_text("dear diary")
    with helpful(Phi3VError, "mine.csv is there already", "--fresh"):
        ask(out=tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "dear diary"
    (tmp_path / "answers.jsonl.journal").write_text("dear diary\nmore\n")
    with helpful(Phi3VError, "answers.jsonl.journal is damaged, or no journal"):
        ask()


def test_packages_that_are_absent(ask, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with helpful(Phi3VError, "Parquet needs pyarrow", 'pip install "phi3v-helpers[batch]"'):
        ask(out=tmp_path / "answers.parquet")
    with helpful(Phi3VError, "needs ray", 'pip install "phi3v-helpers[ray]"'):
        ask(ray=True)


# --- Taken up again ----------------------------------------------------------------------------------


def test_killed_at_any_moment_nothing_is_lost_or_doubled(nursery, model, photos, expected, tmp_path):
    """`KILLS=50 pytest tests/test_batch.py -k any_moment` kills it that often."""
    rng = random.Random(0)
    runs = kills = 0

    def start():
        out = tmp_path / f"answers{runs}.jsonl"
        return out, nursery.start("batch", photos, "--ask", QUESTION, "--out", out, "--model", model, *WORDS)

    started = time.monotonic()
    start()
    assert nursery.end()[0] == 0
    whole = time.monotonic() - started
    runs += 1
    while kills < KILLS:
        out, pid = start()
        before = len(written(out)) if out.with_name(f"{out.name}.journal").exists() else 0
        if before < COUNT and kills % 3 < 2:
            grown(out, rng.randint(before, COUNT))
        else:  # at a time by the clock: while it loads, at the end, in the midst of writing the output
            time.sleep(rng.uniform(0, whole))
        os.kill(pid, signal.SIGKILL)
        status, log = nursery.end()
        assert status in (0, -signal.SIGKILL), log
        kills += 1
        if out.exists():  # complete, as it appears at once or not at all
            assert read(out) == expected
            runs += 1
    out, _ = start()
    assert nursery.end()[0] == 0
    assert read(out) == expected
    for out in tmp_path.glob("answers*.jsonl"):
        assert sorted(entry["place"] for entry in written(out)) == list(range(COUNT)), (
            "a picture was asked about twice"
        )


def test_what_is_done_is_not_done_again(ask, expected, tmp_path):
    out, journal = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.journal"
    ask()
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:20])
    out.unlink()
    for torn in (b"", lines[20][:-1], lines[20][:40], b"0"):
        journal.write_bytes(kept + torn)
        ask()
        assert journal.read_bytes().startswith(kept)
        assert read(out) == expected and len(written(out)) == COUNT


def test_a_damaged_line_is_as_if_it_were_not_there(ask, expected, tmp_path):
    out, journal = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.journal"
    ask()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(
        b"".join([*lines[:20], lines[20].replace(b'"new_tokens": 8', b'"new_tokens": 9'), *lines[21:]])
    )
    ask()
    assert read(out) == expected
    assert len(written(out)) == COUNT + 1, "only the damaged one was asked again"


def test_a_journal_cut_anywhere_gives_the_rows_before(tmp_path):
    file, run = tmp_path / "a.journal", {"pictures": ["3", "x"]}
    with Journal(file, run) as journal:
        journal.set_model({"name": "me"})
        for place in (1, 0, 2):
            journal.add(place, {"answer": "é\n" * place, "error": None})
    whole = file.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        with Journal(file, run) as journal:
            assert len(journal) == max(0, sum(end <= cut for end in ends) - 2)
            journal.add(7, {"answer": "", "error": None})
        with Journal(file, run) as journal:
            assert [place for place, _ in journal.rows()][-1] == 7 and all(row for _, row in journal.rows())


def test_nothing_left_to_do_loads_no_model(ask, model, expected, tmp_path):
    ask()
    (tmp_path / "answers.jsonl").unlink()
    away = model.with_name("away")
    model.rename(away)
    try:
        ask()
    finally:
        away.rename(model)
    assert read(tmp_path / "answers.jsonl") == expected


def test_another_run_is_refused(ask, photos, tmp_path):
    ask([photos / "p1.png", photos / "p2.png"])
    same = [photos / "p1.png", photos / "p2.png"]
    with helpful(Phi3VError, "answers.jsonl.journal is of a run with other pictures (2; now 3)", "--fresh"):
        ask([*same, photos / "p3.png"])
    with helpful(Phi3VError, "with other pictures."):
        ask([photos / "p1.png", photos / "p3.png"])
    with helpful(Phi3VError, "with other questions ('What?'; now 'Who?')"):
        ask(same, "Who?")
    with helpful(Phi3VError, "with other options (max_new_tokens=8; now max_new_tokens=13)"):
        ask(same, max_new_tokens=13)
    with helpful(Phi3VError, "with another model", "; now tiny)"):
        ask(same, model="tiny")
    assert ask(same, at_once=1).rows == 2
    assert ask(same, "Who?", fresh=True).rows == 2
    assert {row["question"] for row in read(tmp_path / "answers.jsonl")} == {"Who?"}


def test_other_weights_in_the_same_folder_are_refused(ask, model, photos, tmp_path):
    own = make_folder(tmp_path / "own", strength=6)
    ask(model=own)
    journal = tmp_path / "answers.jsonl.journal"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:10]))
    make_folder(own, seed=1, strength=6)
    with helpful(Phi3VError, "with another model or other weights."):
        ask(model=own)


def test_errors_of_the_network_are_tried_again_and_others_are_not(ask, photos, tmp_path):
    png = (photos / "p1.png").read_bytes()
    broken = {"/gone.png": 404, "/down.png": 500}

    def answer(handler):
        send(handler, png, broken.get(handler.path, 200))

    with serve(answer) as server:
        pictures = [f"{server.url}/{name}.png" for name in ("gone", "good", "down")]
        done = ask(pictures, allow_private=True)
        assert (done.errors, done.may_pass) == (2, 1) and "run the same again" in str(done)
        broken.clear()
        server.seen.clear()
        assert ask(pictures, allow_private=True).errors == 1
        assert [path for _, path, _ in server.seen] == ["/down.png"]
    gone, good, down = read(tmp_path / "answers.jsonl")
    assert "404" in gone["error"] and down["error"] is None and down["answer"] == good["answer"]


def test_two_at_once_on_the_same_output(nursery, ask, model, photos, expected, tmp_path):
    out = tmp_path / "answers.jsonl"
    pid = nursery.start("batch", photos, "--ask", QUESTION, "--out", out, "--model", model, *WORDS)
    grown(out, 4)
    os.kill(pid, signal.SIGSTOP)
    with helpful(Phi3VError, "Another process is writing to answers.jsonl"):
        ask()
    with helpful(Phi3VError, "Another process"):
        ask(fresh=True)
    os.kill(pid, signal.SIGKILL)
    assert nursery.end()[0] == -signal.SIGKILL
    ask()  # what a dead process locked is free
    assert read(out) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
@pytest.mark.parametrize("free", [4, 12])  # KiB: too little for the journal, or for the output beside it
def test_a_full_disk(ask, expected, tmp_path, free):
    with small_disk(tmp_path / "disk", 128 * 1024) as disk:
        out = disk / "answers.jsonl"
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - free * 1024))
        with helpful(Phi3VError, "The disk is full", "Make room and run the same again"):
            ask(out=out)
        assert not out.exists()
        done = written(out)
        assert 0 < len(done) <= COUNT
        (disk / "ballast").unlink()
        ask(out=out)
        assert read(out) == expected
        assert written(out)[: len(done)] == done and len(written(out)) == COUNT


# --- The command -------------------------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on(nursery, ask, model, photos, expected, tmp_path):
    out = tmp_path / "answers.jsonl"
    pid = nursery.start("batch", photos, "--ask", QUESTION, "--out", out, "--model", model, *WORDS)
    grown(out, 4)
    os.kill(pid, signal.SIGINT)
    status, log = nursery.end()
    assert status == 130, log
    done = len(written(out))
    assert (
        f"Stopped: {done} of {COUNT} pictures are done. Run the same again" in log and "Traceback" not in log
    )
    ask()
    assert read(out) == expected and len(written(out)) == COUNT


def test_ctrl_c_does_not_wait_for_a_slow_server(nursery, model, tmp_path):
    asked = []

    def silent(handler):
        asked.append(handler.path)
        time.sleep(8)

    with serve(silent) as server:
        words = [
            "batch",
            f"{server.url}/a.png",
            "--ask",
            QUESTION,
            "--out",
            tmp_path / "a.csv",
            "--model",
            model,
        ]
        pid = nursery.start(*words, "--allow-private")
        while not asked:
            time.sleep(0.02)
        started = time.monotonic()
        os.kill(pid, signal.SIGINT)
        status, log = nursery.end()
        assert status == 130 and "Stopped: 0 of 1" in log and time.monotonic() - started < 5


def test_the_command(model, photos, tmp_path, capsys):
    out = tmp_path / "answers.csv"
    words = ["batch", str(photos / "p1.png"), str(photos / "p0.png"), "--ask", QUESTION, "--out", str(out)]
    words += ["--model", str(model), "--max-new-tokens", "3", "--num-crops", "1", "--system", "Be short."]
    assert cli.main([*words, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(words) == 0
    printed, told = capsys.readouterr()
    assert printed == "" and told.endswith(f"2 rows are in {out}, 1 of them with an error.\n")
    assert cli.main([*words, "--dtype", "float32"]) == 1
    assert "phi3v: answers.csv.journal is of a run with another model" in capsys.readouterr().err
    assert cli.main([*words, "--fresh", "--dtype", "float32", "--quiet"]) == 0


@pytest.mark.parametrize(
    "words, said",
    [
        (["--ask", "What?", "--out", "a.csv"], "pictures are missing"),
        (["a.png", "--ask", "What?"], "required: --out"),
        (
            ["--ray", "a.png", "b.png", "--ask", "What?", "--out", "a.csv"],
            "'a.png' is no address of a cluster",
        ),
        (["a.png", "--asks", "What?", "--out", "a.csv", "--fast"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["batch", *words])
    assert end.value.code == 2 and said in capsys.readouterr().err
