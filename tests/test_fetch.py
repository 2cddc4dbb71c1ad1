"""Pictures from addresses: a real server, on this machine. Servers that mean harm: test_fetch_hostile.py."""

import email.utils
import gzip
import io
import socket
import time
import traceback

import pytest
from helpful import helpful
from PIL import Image
from server import send, serve

from phi3v_helpers import load_image
from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import bodies, fetching


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "BACK_OFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PHI3V_CACHE", str(tmp_path / "cache"))


def fetch(url, *args, **options):
    return fetching.download(url, *args, allow_private=True, **options)


def png(size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def test_a_picture():
    with serve(lambda h: send(h, png())) as server:
        image = load_image(f"{server.url}/a/picture.png?size=1", allow_private=True)
    assert (image.mode, image.size) == ("RGB", (6, 4))
    command, path, headers = server.seen[0]
    assert (command, path) == ("GET", "/a/picture.png?size=1")
    assert headers["User-Agent"].startswith("phi3v-helpers/")


def test_redirects_are_followed():
    def answer(handler):
        if handler.path == "/old":
            send(handler, status=302, Location="/new")
        else:
            send(handler, png())

    with serve(answer) as server:
        assert fetch(f"{server.url}/old") == png()


def test_redirects_without_end():
    with serve(lambda h: send(h, status=302, Location="/again")) as server:
        with helpful(ImageError, "127.0.0.1 redirects more than 5 times"):
            fetch(server.url)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("login",)),
        (403, ("the site refuses programs", "give its path")),
        (404, ("no such picture",)),
        (410, ("removed",)),
        (418, ("could not answer",)),
        (451, ("legal reasons",)),
        (500, ("could not answer",)),
        (206, ("no picture",)),
        (300, ("no picture",)),
    ],
)
def test_the_status_is_named(status, words):
    with serve(lambda h: send(h, b"<html>no</html>", status=status)) as server:
        with helpful(ImageError, f"{status} from 127.0.0.1:", *words):
            fetch(f"{server.url}/x.png")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status):
    def answer(handler):
        if len(handler.server.seen) < 3:
            send(handler, status=status, Retry_After="0")
        else:
            send(handler, png())

    with serve(answer) as server:
        assert fetch(server.url) == png()
    assert len(server.seen) == 3
    with serve(lambda h: send(h, status=status)) as server, helpful(ImageError, f"{status} from"):
        fetch(server.url)
    assert len(server.seen) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_as_long_as_a_busy_server_asks_for(as_date):
    def answer(handler):
        if len(handler.server.seen) > 1:
            return send(handler, png())
        date = email.utils.formatdate(time.time() + 2, usegmt=True)  # whole seconds: 1 to 2 from now
        send(handler, status=503, Retry_After=date if as_date else "1")

    started = time.monotonic()
    with serve(answer) as server:
        assert fetch(server.url) == png()
    assert 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize("wait", ["3600", "9" * 5000, "Fri, 31 Dec 2999 23:59:59 GMT"])
def test_not_as_long_as_a_busy_server_asks_for(wait):
    with serve(lambda h: send(h, status=429, Retry_After=wait)) as server:
        with helpful(ImageError, "429 from", "asks to wait for"):
            fetch(server.url)
    assert len(server.seen) == 1


@pytest.mark.parametrize("wait", ["", "soon", "-1", "Fri, 31 Dec 99999", "Sat, 01 Jan 2000 00:00:00 GMT"])
def test_waits_that_mean_nothing(wait):
    with serve(lambda h: send(h, status=503, Retry_After=wait)) as server, helpful(ImageError, "503 from"):
        fetch(server.url)
    assert len(server.seen) == 3


def test_a_web_page_instead_of_a_picture():
    with serve(lambda h: send(h, b"<!doctype html><html></html>")) as server:
        with helpful(ImageError, "a web page, not a picture"):
            load_image(server.url, allow_private=True)


def test_an_empty_answer():
    with serve(lambda h: send(h)) as server, helpful(ImageError, "empty"):
        fetch(server.url)


def test_exactly_as_big_as_allowed():
    with serve(lambda h: send(h, bytes(1000))) as server:
        assert len(fetch(server.url, max_bytes=1000)) == 1000
        with helpful(ImageError, "larger than"):
            fetch(server.url, max_bytes=999)


def test_too_big_as_announced():
    with serve(lambda h: send(h, Content_Length=str(10**10))) as server:
        with helpful(ImageError, "larger than 50 MiB"):
            fetch(server.url)


def flood(handler):
    """Without a length, and without an end."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(bytes(100_000))


def test_too_big_while_it_comes():
    with serve(flood) as server, helpful(ImageError, "larger than 1 MiB"):
        fetch(server.url, max_bytes=1024**2)


def test_too_big_when_unpacked():
    packed = gzip.compress(bytes(20 * 1024**2))
    with serve(lambda h: send(h, packed, Content_Encoding="gzip")) as server:
        with helpful(ImageError, "larger than 1 MiB"):
            fetch(server.url, max_bytes=1024**2)


def test_packed_and_in_chunks():
    with serve(lambda h: send(h, gzip.compress(png((90, 70))), Content_Encoding="gzip")) as server:
        assert fetch(server.url) == png((90, 70))

    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for byte in png():
            handler.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    with serve(chunked) as server:
        assert fetch(server.url) == png()


def test_cut_off_in_the_middle():
    with serve(lambda h: send(h, png()[:40], Content_Length=str(len(png())))) as server, helpful(ImageError):
        fetch(server.url)


def test_silence():
    with serve(lambda h: time.sleep(2)) as server, helpful(ImageError, "127.0.0.1 did not answer in time"):
        fetch(server.url, timeout=(1, 0.3))


def drip(handler):
    """A byte now and then: never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    for _ in range(50):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def test_a_drip(monkeypatch):
    monkeypatch.setattr(fetching, "MAX_SECONDS", 0.5)
    started = time.monotonic()
    with serve(drip) as server, helpful(ImageError, "takes more than 0.5 s"):
        fetch(server.url)
    assert time.monotonic() - started < 3


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with helpful(ImageError, "127.0.0.1", "connection"):
        fetch(f"http://127.0.0.1:{port}/x.png")


@pytest.mark.parametrize(
    "address",
    [
        "ftp://example.org/x.png",
        "http://",
        "https:///x.png",
        "http://[::1/x.png",
        "http://a b/x.png",
        "file:///x.png",
    ],
)
def test_no_addresses(address):
    with helpful(ImageError, "address"):
        fetch(address)


def test_keys_in_an_address_are_not_repeated():
    with serve(lambda h: send(h, status=403)) as server:
        url = server.url.replace("http://", "http://user:secret@")
        with helpful(ImageError, "403 from 127.0.0.1") as caught:
            fetch(f"{url}/secret/x.png?token=secret")
    assert "secret" not in shown(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://user:secret@example.org/secret",
        "http://[::1/secret?secret",
        "http://user:sec?ret@example.org:x/secret",
        "http://a b/secret",
    ],
)
def test_keys_in_a_misspelt_address_are_not_repeated(address):
    with helpful(ImageError, "address") as caught:
        fetch(address)
    assert "sec" not in shown(caught.value)


@pytest.mark.parametrize(
    "do", [lambda h: None, lambda h: h.wfile.write(b"nonsense"), lambda h: time.sleep(1)]
)
def test_keys_are_not_in_what_a_notebook_shows_either(do):
    with serve(do) as server, helpful(ImageError) as caught:
        fetch(f"{server.url}/secret", timeout=0.2)
    assert "secret" not in shown(caught.value)


def shown(error):
    """The errors of a traceback, all that are shown, without the lines of code."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return "".join(line for line in lines if not line.startswith('  File "'))


def where_it_asks_for_a_login(handler):
    if handler.path == "/moved":
        send(handler, status=302, Location="/x.png")
    elif handler.path.startswith("/away/"):
        send(handler, status=302, Location=f"http://localhost:{handler.path.rpartition('/')[2]}/x.png")
    else:
        send(handler, png())


def test_a_login_goes_to_its_host_alone(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serve(where_it_asks_for_a_login) as server, serve(lambda h: send(h, png())) as other:
        url = server.url.replace("http://", "http://us%40er:secret@")
        fetch(f"{url}/moved")
        fetch(f"{url}/away/{other.server_address[1]}")
    logins = [headers.get("Authorization") for _, _, headers in server.seen]
    assert logins == ["Basic dXNAZXI6c2VjcmV0"] * 3
    assert other.seen and "Authorization" not in other.seen[0][2]


def test_no_login_from_netrc(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serve(lambda h: send(h, png())) as server:
        fetch(server.url)
    assert "Authorization" not in server.seen[0][2]


def test_a_cookie_lives_as_long_as_its_download():
    """Some sites set one, redirect, and redirect without end where it does not come back."""

    def answer(handler):
        if "Cookie" in handler.headers:
            send(handler, png())
        else:
            send(handler, status=302, Location="/x.png", Set_Cookie="visited=yes")

    with serve(answer) as server:
        for _ in range(2):
            fetch(server.url)
    assert [headers.get("Cookie") for _, _, headers in server.seen] == [None, "visited=yes"] * 2


@pytest.mark.parametrize("timeout", [0, -1, "5", (1, 2, 3), (5, "x"), True])
def test_no_times(timeout):
    with helpful(ImageError, "is no time"):
        fetch("http://example.org/x.png", timeout)


@pytest.mark.parametrize("timeout", [5, 0.5, (5, None), None, [3, 4]])
def test_times(timeout):
    with serve(lambda h: send(h, png())) as server:
        assert fetch(server.url, timeout) == png()


def slowly(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(10):
        handler.wfile.write(bytes(10_000))
        time.sleep(0.05)


@pytest.mark.parametrize(("after", "progress", "is_shown"), [(0.1, True, 1), (0.1, False, 0), (60, True, 0)])
def test_a_bar_where_it_takes_long(monkeypatch, capsys, after, progress, is_shown):
    monkeypatch.setattr(bodies, "SHOW_AFTER", after)
    with serve(slowly) as server:
        assert fetch(server.url, progress=progress) == bytes(100_000)
    assert ("127.0.0.1" in capsys.readouterr().err) == is_shown
