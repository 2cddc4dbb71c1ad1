"""Pictures from addresses: a real server, on this machine."""

import gzip
import io
import socket
import time

import pytest
from helpful import helpful
from PIL import Image
from server import send, serve

from phi3v_helpers import load_image
from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import fetching


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def png(size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def test_a_picture():
    with serve(lambda h: send(h, png())) as server:
        image = load_image(f"{server.url}/a/picture.png?size=1")
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
        assert load_image(f"{server.url}/old").size == (6, 4)


def test_redirects_without_end():
    with serve(lambda h: send(h, status=302, Location="/again")) as server:
        with helpful(ImageError, "127.0.0.1", "TooManyRedirects"):
            load_image(server.url)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("login",)),
        (403, ("the site refuses programs", "give its path")),
        (404, ("no such picture",)),
        (410, ("removed",)),
        (418, ("could not answer",)),
        (429, ("too many requests",)),
        (500, ("could not answer",)),
    ],
)
def test_the_status_is_named(status, words):
    with serve(lambda h: send(h, b"<html>no</html>", status=status)) as server:
        with helpful(ImageError, f"{status} from 127.0.0.1:", *words):
            load_image(f"{server.url}/x.png")
    assert len(server.seen) == 1


def test_a_busy_server_is_asked_again():
    def answer(handler):
        busy = len(handler.server.seen) < 3
        send(handler, *((b"", 503) if busy else (png(),)), **({"Retry_After": "3600"} if busy else {}))

    with serve(answer) as server:
        assert load_image(server.url).size == (6, 4)
    assert len(server.seen) == 3
    with serve(lambda h: send(h, status=503)) as server, helpful(ImageError, "503 from"):
        load_image(server.url)


def test_a_web_page_instead_of_a_picture():
    with serve(lambda h: send(h, b"<!doctype html><html></html>")) as server:
        with helpful(ImageError, "web page", "address of the picture itself"):
            load_image(server.url)


def test_an_empty_answer():
    with serve(lambda h: send(h)) as server, helpful(ImageError, "empty"):
        load_image(server.url)


def test_too_big_as_announced():
    with serve(lambda h: send(h, Content_Length=str(10**10))) as server:
        with helpful(ImageError, "larger than 50 MiB"):
            load_image(server.url)


def flood(handler):
    """Without a length, and without an end."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(bytes(100_000))


def test_too_big_while_it_comes():
    with serve(flood) as server, helpful(ImageError, "larger than 1 MiB"):
        load_image(server.url, max_bytes=1024**2)


def test_too_big_when_unpacked():
    packed = gzip.compress(bytes(20 * 1024**2))
    with serve(lambda h: send(h, packed, Content_Encoding="gzip")) as server:
        with helpful(ImageError, "larger than 1 MiB"):
            load_image(server.url, max_bytes=1024**2)


def test_packed_and_in_chunks():
    with serve(lambda h: send(h, gzip.compress(png((90, 70))), Content_Encoding="gzip")) as server:
        assert load_image(server.url).size == (90, 70)

    def chunked(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for byte in png():
            handler.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    with serve(chunked) as server:
        assert load_image(server.url).size == (6, 4)


def test_cut_off_in_the_middle():
    with serve(lambda h: send(h, png()[:40], Content_Length=str(len(png())))) as server, helpful(ImageError):
        load_image(server.url)


def test_silence():
    with serve(lambda h: time.sleep(2)) as server, helpful(ImageError, "127.0.0.1 did not answer in time"):
        load_image(server.url, timeout=(1, 0.3))


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
        load_image(server.url)
    assert time.monotonic() - started < 3


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with helpful(ImageError, "127.0.0.1", "connection"):
        load_image(f"http://127.0.0.1:{port}/x.png")


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
        load_image(address)


def test_keys_in_an_address_are_not_repeated():
    with serve(lambda h: send(h, status=403)) as server:
        url = server.url.replace("http://", "http://user:secret@")
        with helpful(ImageError) as caught:
            load_image(f"{url}/x.png?token=secret")
    assert "secret" not in str(caught.value)
