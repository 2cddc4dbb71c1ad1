"""Pictures kept on disk: never a wrong one, whatever happens to the files, to the process or to the network.

50 killed processes instead of 5: PHI3V_KILLS=50 python -m pytest tests/test_web_cache.py -k killed
"""

import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import hostile
import pytest
from helpful import helpful
from server import send, serve

from phi3v_helpers import load_image
from phi3v_helpers.errors import ImageError, Phi3VError
from phi3v_helpers.images import addresses, fetching, web_cache

KILLS = int(os.environ.get("PHI3V_KILLS", "5"))


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where pictures are kept. Servers on 127.0.0.1 count as public: of others nothing is kept."""
    monkeypatch.setattr(fetching, "BACK_OFF", 0.01)
    monkeypatch.setattr(addresses, "is_public", lambda address: True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PHI3V_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def always(body=None, **headers):
    """A server's answer: the picture that its path names, or `body`."""
    return lambda h: send(h, body or hostile.picture(int(h.path[1:])), **headers)


def changing(handler):
    """Another picture each time, unless the one that is known is the server's current one."""
    number = handler.server.number
    if handler.headers.get("If-None-Match") == f'"{number}"':
        send(handler, status=304)
    else:
        send(handler, hostile.picture(number), ETag=f'"{number}"')


def entry(number=1, **facts):
    return web_cache.Entry(hostile.picture(number), time.time(), **facts)


# When what is kept is used


def test_while_the_server_says_that_it_stays_the_same():
    with serve(always(Cache_Control="public, max-age=60")) as server:
        for _ in range(3):
            assert fetching.download(f"{server.url}/7") == hostile.picture(7)
        assert fetching.download(f"{server.url}/7#top") == hostile.picture(7)
        assert len(server.seen) == 1
        assert fetching.download(f"{server.url}/8") == hostile.picture(8)
    assert fetching.download(f"{server.url}/7") == hostile.picture(7)  # nobody is there any more


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Cache_Control": "max-age=0"},
        {"Cache_Control": "no-cache, max-age=60"},
        {"Cache_Control": "max-age=60", "Age": "60"},
        {"Cache_Control": "max-age=soon"},
        {"Cache_Control": "max-age=-60"},
        {"Cache_Control": "max-age=\u00b2"},
    ],
)
def test_asked_anew_where_it_may_have_changed(headers):
    with serve(lambda h: send(h, hostile.picture(len(h.server.seen)), **headers)) as server:
        assert fetching.download(server.url) == hostile.picture(1)
        assert fetching.download(server.url) == hostile.picture(2)


def test_a_day_at_most(monkeypatch):
    with serve(always(Cache_Control=f"max-age={'9' * 50}")) as server:
        fetching.download(f"{server.url}/1")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 23 * 3600)
        fetching.download(f"{server.url}/1")
        assert len(server.seen) == 1
        monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
        fetching.download(f"{server.url}/1")
        assert len(server.seen) == 2
        monkeypatch.setattr(time, "time", lambda: now - 3600)  # somebody set the clock back
        fetching.download(f"{server.url}/1")
        assert len(server.seen) == 3


def test_the_server_is_asked_whether_it_changed():
    with serve(changing) as server:
        server.number = 1
        assert fetching.download(server.url) == hostile.picture(1)
        assert fetching.download(server.url) == hostile.picture(1)
        server.number = 2
        assert fetching.download(server.url) == hostile.picture(2)
        assert fetching.download(server.url) == hostile.picture(2)
    asked = [headers.get("If-None-Match") for _, _, headers in server.seen]
    assert asked == [None, '"1"', '"1"', '"2"']


def test_by_date_too():
    date = "Sat, 01 Jan 2022 00:00:00 GMT"

    def answer(handler):
        known = handler.headers.get("If-Modified-Since") == date
        send(handler, b"" if known else hostile.picture(3), 304 if known else 200, Last_Modified=date)

    with serve(answer) as server:
        assert fetching.download(server.url) == fetching.download(server.url) == hostile.picture(3)
    assert server.seen[1][2]["If-Modified-Since"] == date


def test_after_a_redirect_the_last_address_counts():
    """Today's picture is elsewhere than yesterday's, and may bear the same mark, and say that it never changes."""

    def answer(handler):
        if handler.path == "/today":
            send(handler, status=302, Location=f"/{handler.server.number}", Cache_Control="max-age=60")
        elif handler.headers.get("If-None-Match") == '"1"':
            send(handler, status=304)
        else:
            send(handler, hostile.picture(int(handler.path[1:])), ETag='"1"', Cache_Control="max-age=60")

    with serve(answer) as server:
        for server.number in (1, 1, 2):
            assert fetching.download(f"{server.url}/today") == hostile.picture(server.number)
    marks = [(path, headers.get("If-None-Match")) for _, path, headers in server.seen]
    assert marks == [
        ("/today", None),
        ("/1", None),
        ("/today", None),
        ("/1", '"1"'),
        ("/today", None),
        ("/2", None),
    ]


@pytest.mark.parametrize("mark", ["\xe9\xff", '"' + "x" * 5000 + '"', "\x0b\x0c", ""])
def test_marks_that_cannot_be_sent_back(mark):
    with serve(always(hostile.picture(1), ETag=mark)) as server:
        assert fetching.download(server.url) == fetching.download(server.url) == hostile.picture(1)
    assert "If-None-Match" not in server.seen[1][2]


# What is kept


@pytest.mark.parametrize(
    "headers_and_body",
    [
        {"Cache_Control": "No-Store, max-age=60"},
        {"body": b"\xef\xbb\xbf\r\n <html>Log in first", "Cache_Control": "max-age=60"},
        {"body": b'{"error": 1}', "Cache_Control": "max-age=60"},
    ],
)
def test_what_is_not_kept(headers_and_body):
    with serve(always(**{"body": hostile.picture(1)} | headers_and_body)) as server:
        web_cache.keep(server.url, entry())  # and what was kept before is removed
        fetching.download(server.url)
    assert web_cache.find(server.url) is None and len(server.seen) == 1


@pytest.mark.parametrize("name", ["cut", "packed_and_cut", "busy", "nothing", "no_content", "endless"])
def test_only_whole_pictures_are_kept(name):
    with hostile.hostile_server() as url:
        with helpful(ImageError):
            fetching.download(f"{url}/{name}/1", max_bytes=hostile.MAX_BYTES)
        assert fetching.download(f"{url}/packed/1") == hostile.picture(1)
    assert web_cache.info()[1] == 1


def test_nothing_private_is_kept(folder):
    with serve(always(hostile.picture(1), Cache_Control="max-age=60")) as server:
        fetching.download(f"{server.url}/1", allow_private=True)
        fetching.download(server.url.replace("://", "://user:secret@"))
        assert web_cache.info() == (folder, 0, 0)
        web_cache.keep(f"{server.url}/1", entry(2, fresh_until=time.time() + 60))
        assert fetching.download(f"{server.url}/1", allow_private=True) == hostile.picture(1)


def test_for_this_user_alone_and_without_addresses(folder):
    with serve(always()) as server:
        fetching.download(f"{server.url}/1")
        web_cache.keep("http://example.org/?token=secret", entry(source=web_cache.key("http://x/?secret")))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"secret" not in file.read_bytes() and b"example.org" not in file.read_bytes()


def test_as_small_as_allowed():
    with serve(always(Cache_Control="max-age=60")) as server:
        size = len(fetching.download(f"{server.url}/1"))
        assert fetching.download(f"{server.url}/1", max_bytes=size)
        with helpful(ImageError, "larger than"):
            fetching.download(f"{server.url}/1", max_bytes=size - 1)


def test_the_folder_without_the_variable(monkeypatch, tmp_path):
    import platformdirs

    monkeypatch.delenv("PHI3V_CACHE")
    assert (
        web_cache.info()[0]
        == Path(platformdirs.user_cache_dir("phi3v_helpers", appauthor=False)) / "pictures"
    )
    monkeypatch.setenv("PHI3V_CACHE", "~/kept")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert web_cache.info() == (tmp_path / "kept", 0, 0)


def test_what_was_used_longest_ago_goes_first(monkeypatch):
    size = len(hostile.picture(0)) + 1000
    monkeypatch.setattr(web_cache, "MAX_BYTES", 5 * size)
    for number in range(5):
        web_cache.keep(str(number), entry(number))
        path = web_cache._path(str(number))
        os.utime(path, (number, number))
    assert web_cache.find("0")  # used now
    for number in range(5, 7):
        web_cache.keep(str(number), entry(number))
    assert [number for number in range(7) if web_cache.find(str(number))] == [0, 3, 4, 5, 6]
    assert web_cache.info()[2] <= 5 * size
    web_cache.keep("huge", web_cache.Entry(bytes(5 * size + 1), time.time()))
    assert web_cache.info()[1] == 5


def test_clearing_leaves_other_files_alone(folder):
    web_cache.keep("1", entry())
    (folder / "holiday.jpg").write_bytes(b"mine")
    (folder / "phi3v-1.part").write_bytes(b"unfinished")
    web_cache.clear()
    assert [file.name for file in folder.iterdir()] == ["holiday.jpg"]
    assert web_cache.info() == (folder, 0, 0)
    (folder / f"{'0' * 64}.picture").mkdir()
    with helpful(Phi3VError, "cannot be removed"):
        web_cache.clear()


# Without a network


def test_offline_takes_what_is_kept_and_asks_nobody(monkeypatch):
    with serve(always()) as server:
        fetching.download(f"{server.url}/1")
        monkeypatch.setenv("PHI3V_OFFLINE", "1")
        assert fetching.download(f"{server.url}/1") == hostile.picture(1)
        with helpful(ImageError, "127.0.0.1 is not kept", "PHI3V_OFFLINE"):
            fetching.download(f"{server.url}/2?secret")
        with helpful(ImageError, "larger than"):
            fetching.download(f"{server.url}/1", max_bytes=10)
        with helpful(ImageError, "is not kept"):
            fetching.download(f"{server.url}/1", allow_private=True)
        assert len(server.seen) == 1
        monkeypatch.setenv("PHI3V_OFFLINE", "0")
        assert fetching.download(f"{server.url}/2") == hostile.picture(2)


def test_an_old_copy_is_offered_and_not_taken_silently():
    with serve(always()) as server:
        fetching.download(f"{server.url}/1")
    day = time.strftime("%Y-%m-%d")
    with helpful(ImageError, "no connection", f"PHI3V_OFFLINE=1 takes the copy that was fetched on {day}"):
        fetching.download(f"{server.url}/1")
    with pytest.raises(ImageError) as caught:
        fetching.download(f"{server.url}/2")
    assert "PHI3V_OFFLINE" not in str(caught.value)


# What happens to files and processes


def test_every_damage_is_noticed(folder):
    """Cut anywhere, a bit turned over anywhere, something added, another picture's file."""
    web_cache.keep("1", entry())
    file = web_cache._path("1")
    sound = file.read_bytes()
    dice = random.Random(0)
    damaged = [sound[: dice.randrange(len(sound))] for _ in range(50)] + [b"", b"\n\n", sound + b"x"]
    for place in [*range(100), *(dice.randrange(len(sound)) for _ in range(100))]:
        damaged.append(sound[:place] + bytes([sound[place] ^ 1 << dice.randrange(8)]) + sound[place + 1 :])
    for content in damaged:
        file.write_bytes(content)
        assert web_cache.find("1") is None
        assert not file.exists()
    web_cache.keep("2", entry(2))
    web_cache._path("2").rename(file)
    assert web_cache.find("1") is None


def test_a_damaged_one_is_fetched_anew():
    with serve(always(Cache_Control="max-age=60")) as server:
        fetching.download(f"{server.url}/1")
        file = web_cache._path(f"{server.url}/1")
        file.write_bytes(file.read_bytes()[:-1])
        for _ in range(2):
            assert fetching.download(f"{server.url}/1") == hostile.picture(1)
    assert len(server.seen) == 2


def test_where_nothing_can_be_written(folder, monkeypatch):
    """A file where the folder should be; a folder where the entry should be; no space."""
    with serve(always()) as server:
        folder.write_bytes(b"")
        assert fetching.download(f"{server.url}/1") == hostile.picture(1)
        folder.unlink()
        web_cache._path(f"{server.url}/1").mkdir(parents=True)
        assert fetching.download(f"{server.url}/1") == hostile.picture(1)
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # no file grows beyond
        try:
            assert fetching.download(f"{server.url}/2") == hostile.picture(2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert web_cache.info()[1] <= 1 and not list(folder.glob("*.part"))  # the folder counts as one


def test_what_a_killed_process_left_is_removed(folder):
    folder.mkdir()
    for name, age in (("phi3v-old.part", 7200), ("phi3v-new.part", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    web_cache.keep("1", entry())
    assert [file.name for file in folder.glob("*.part")] == ["phi3v-new.part"]


CHILD = """
import random, sys, time
import hostile
from phi3v_helpers.images import addresses, fetching, web_cache

addresses.is_public = lambda address: True
url, rounds = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
start = random.randrange(20)
for turn in range(start, start + rounds):
    number = turn % 20
    assert fetching.download(f"{url}/plain/{number}") == hostile.picture(number)
    large = hostile.picture(number) * 300
    web_cache.keep(str(number), web_cache.Entry(large, time.time()))
    found = web_cache.find(str(number))
    assert found is None or found.body == large
"""


def child(url, rounds):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(rounds)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )


def all_kept_is_right(url):
    """Every entry that is there is the right one; how many there are."""
    count = 0
    for number in range(20):
        small, large = web_cache.find(f"{url}/plain/{number}"), web_cache.find(str(number))
        assert small is None or small.body == hostile.picture(number)
        assert large is None or large.body == hostile.picture(number) * 300
        count += (small is not None) + (large is not None)
    return count


def test_processes_that_are_killed_leave_nothing_wrong(folder):
    dice = random.Random(0)
    with hostile.hostile_server() as url:
        for number in range(KILLS):
            with child(url, 10**6) as process:
                assert process.stdout.readline() == "ready\n"
                time.sleep(dice.uniform(0, 0.5))
                process.kill()
            files = len(list(folder.glob("*.picture"))) if folder.exists() else 0
            assert all_kept_is_right(url) == files  # none was found damaged
            assert fetching.download(f"{url}/plain/{number % 20}") == hostile.picture(number % 20)
    left = len(list(folder.glob("*.part")))
    print(f"{KILLS} were killed, {left} of them while they wrote")
    assert files


def test_two_processes_at_once(folder):
    with hostile.hostile_server() as url:
        processes = [child(url, 60) for _ in range(2)]
        for process in processes:
            with process:
                assert process.wait(60) == 0
        assert all_kept_is_right(url) == 40
    assert not list(folder.glob("*.part"))


def test_what_cannot_be_decoded_is_not_kept():
    """A server that stops too early may say that this was all: only the decoder finds the picture incomplete."""
    whole = hostile.picture(3)

    def answer(handler):
        send(handler, whole[:60] if len(handler.server.seen) == 1 else whole, Cache_Control="max-age=3600")

    with serve(answer) as server:
        address = f"{server.url}/3"
        with helpful(ImageError, "damaged or incomplete"):
            load_image(address)
        assert load_image(address).size == load_image(address).size
    assert len(server.seen) == 2, "the damaged one was taken again, or the whole one was not kept"
