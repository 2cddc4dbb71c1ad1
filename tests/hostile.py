"""A web server that does what none should, and many threads that fetch from it.

    python tests/hostile.py --fetches 1000 --threads 8

The address /<what it does>/<number> is for picture(number), which must come whole, or for an error with the words
that stand beside what it does. The server is a process of its own, so that a test can count its own sockets.
"""

import argparse
import contextlib
import functools
import gzip
import io
import os
import random
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

MAX_BYTES = 300_000  # for those who fetch from here
TYPE = "Content-Type: image/png"

GOOD = {}  # name -> what sends the picture, in some odd way
BAD = {}  # name -> (what sends something else, words of the error)
SLOW = {}  # the same, and it takes until a time limit


@functools.lru_cache(512)
def picture(number):
    """A PNG file of some 9 kB, another one for each number."""
    file = io.BytesIO()
    Image.frombytes("RGB", (64, 48), random.Random(number).randbytes(64 * 48 * 3)).save(file, "PNG")
    return file.getvalue()


class Handler(socketserver.BaseRequestHandler):
    """One connection. `asked` counts how often its address was asked for."""

    def handle(self):
        request = b""
        while b"\r\n\r\n" not in request:
            if not (piece := self.request.recv(65536)):
                return
            request += piece
        path = request.split()[1].decode()
        _, name, number = path.split("/")
        with self.server.lock:
            self.server.asked[path] += 1
            self.asked = self.server.asked[path]
        self.number = int(number)
        self.body = picture(self.number)
        do = GOOD.get(name) or (BAD.get(name) or SLOW[name])[0]
        with contextlib.suppress(OSError):  # the client had enough
            do(self)

    def send(self, data):
        self.request.sendall(data)

    def head(self, *lines, status="200 OK"):
        self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode("latin-1"))

    def answer(self, body, *lines, status="200 OK", length=None):
        self.head(f"Content-Length: {len(body) if length is None else length}", *lines, status=status)
        self.send(body)

    def reset(self):
        """No goodbye: the other side sees "connection reset"."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()

    def forever(self, data, seconds=0.0):
        while True:
            self.send(data)
            time.sleep(seconds)


def good(do):
    GOOD[do.__name__] = do
    return do


def bad(*words):
    def add(do):
        BAD[do.__name__] = (do, words)
        return do

    return add


def slow(*words):
    def add(do):
        SLOW[do.__name__] = (do, words)
        return do

    return add


# What brings the picture


@good
def plain(h):
    h.answer(h.body, TYPE)


@good
def wrong_type(h):
    h.answer(h.body, "Content-Type: text/html; charset=utf-8")


@good
def no_length(h):
    h.head(TYPE)
    h.send(h.body)


@good
def negative_length(h):
    h.answer(h.body, length=-5)


@good
def length_in_words(h):
    h.answer(h.body, length="many")


@good
def in_pieces(h):
    h.head("Transfer-Encoding: chunked")
    for start in range(0, len(h.body), 1000):
        piece = h.body[start : start + 1000]
        h.send(b"%x;name=value\r\n%b\r\n" % (len(piece), piece))
    h.send(b"0\r\nTrailer: yes\r\n\r\n")


@good
def packed(h):
    h.answer(gzip.compress(h.body), "Content-Encoding: GZip")


@good
def packed_in_two_parts(h):
    h.answer(gzip.compress(h.body[:5000]) + gzip.compress(h.body[5000:]), "Content-Encoding: x-gzip")


@good
def deflated(h):
    h.answer(zlib.compress(h.body), "Content-Encoding: deflate")


@good
def hesitant(h):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(h.body), h.body)
    for start in range(0, 60, 6):
        h.send(data[start : start + 6])
        time.sleep(0.005)
    h.send(data[60:])


@good
def headers_that_break_off(h):
    h.answer(h.body, TYPE, "this is no header", "Another: one")


@good
def wait_for_it(h):
    for _ in range(20):
        h.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    h.answer(h.body)


@good
def moved(h):
    h.answer(b"<html>moved</html>", f"Location: /plain/{h.number}", status="301 Moved")


@good
def moved_with_an_endless_page(h):
    h.head(f"Location: ../plain/{h.number}#top", "Transfer-Encoding: chunked", status="302 Found")
    h.forever(b"1000\r\n" + bytes(4096) + b"\r\n")


@good
def busy_at_first(h):
    if h.asked % 3:
        h.answer(b"", "Retry-After: 0", status="503 Busy")
    else:
        plain(h)


@good
def reset_at_first(h):
    if h.asked % 2:
        h.head(f"Content-Length: {len(h.body)}")
        h.send(h.body[: random.Random(h.number).randrange(len(h.body))])
        h.reset()
    else:
        plain(h)


@good
def closed_at_first(h):
    if h.asked % 2 == 0:
        in_pieces(h)


@good
def cut_at_first(h):
    h.answer(
        h.body[: random.Random(h.number).randrange(len(h.body))] if h.asked % 2 else h.body,
        length=len(h.body),
    )


# What brings an error


@bad("incomplete")
def cut(h):
    h.answer(h.body[:-1], length=len(h.body))


@bad("incomplete")
def cut_in_pieces(h):
    h.head("Transfer-Encoding: chunked")
    h.send(b"1000\r\n" + h.body[:4096] + b"\r\n")


@bad("incomplete")
def packed_and_cut(h):
    h.head("Content-Encoding: gzip")
    h.send(gzip.compress(h.body)[:-20])


@bad("incomplete")
def no_answer(h):
    pass


@bad("incomplete")
def reset_in_the_headers(h):
    h.send(b"HTTP/1.1 200 OK\r\nContent-")
    h.reset()


@bad("incomplete")
def pieces_of_no_size(h):
    h.head("Transfer-Encoding: chunked")
    h.send(b"many\r\n" + h.body)


@bad("web server")
def pieces_of_negative_size(h):
    h.head("Transfer-Encoding: chunked")
    h.send(b"-5\r\n" + h.body + b"\r\n0\r\n\r\n")


@bad("web server")
def two_lengths(h):
    h.head("Content-Length: 5", "Content-Length: 50")
    h.send(h.body)


@bad("web server")
def not_http(h):
    h.send(h.body)


@bad("web server")
def noise(h):
    h.send(random.Random(h.number).randbytes(5000).replace(b"\n", b""))


@bad("empty")
def nothing(h):
    h.answer(b"")


@bad("204 from", "no picture")
def no_content(h):
    h.head(status="204 No Content")


@bad("206 from")
def a_part(h):
    h.answer(h.body, status="206 Partial Content")


@bad("304 from")
def not_modified(h):
    h.head(status="304 Not Modified")


@bad("503 from", "could not answer")
def busy(h):
    h.answer(b"", status="503 Busy")


@bad("429 from", "wait for 3600 s")
def busy_for_an_hour(h):
    h.answer(b"", "Retry-After: 3600", status="429 Too Many Requests")


@bad("larger than")
def announced_too_big(h):
    h.answer(b"", length="9" * 5000)


@bad("larger than")
def endless(h):
    h.head(TYPE)
    h.forever(bytes(65536))


@bad("web server")
def endless_headers(h):
    h.send(b"HTTP/1.1 200 OK\r\n")
    h.forever(b"X-Header: value\r\n" * 100)


@bad("web server")
def endless_header(h):
    h.send(b"HTTP/1.1 200 OK\r\nX-Header: ")
    h.forever(b"x" * 65536)


@bad("larger than")
def endless_continue(h):
    h.forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@bad("127.0.0.1")  # too big, or incomplete: urllib3 draws the line itself from some version on
def endless_size_of_a_piece(h):
    h.head("Transfer-Encoding: chunked")
    h.forever(b"0" * 65536)


@bad("127.0.0.1")  # too big, or incomplete: urllib3 draws the line itself from some version on
def endless_trailer(h):
    h.head("Transfer-Encoding: chunked")
    h.send(b"5\r\nabcde\r\n0\r\nTrailer: ")
    h.forever(b"x" * 65536)


@bad("larger than")
def bomb(h):
    h.answer(_bomb(), "Content-Encoding: gzip")


@functools.cache
def _bomb():
    return gzip.compress(bytes(200 * 1024**2), 1)[:290_000]


@bad("cannot be unpacked")
def packed_and_damaged(h):
    data = bytearray(gzip.compress(h.body))
    data[len(data) // 2] ^= 255
    h.answer(bytes(data), "Content-Encoding: gzip")


@bad("packed in a way")
def packed_oddly(h):
    h.answer(h.body, "Content-Encoding: br")


@bad("redirects more than 5 times")
def round_and_round(h):
    h.answer(b"", f"Location: /round_and_round/{h.number}", status="302 Found")


@bad("no http or https")
def to_a_file(h):
    h.answer(b"", "Location: file:///etc/hostname", status="302 Found")


@bad("no http or https")
def to_ftp(h):
    h.answer(b"", "Location: ftp://127.0.0.1/x.png", status="302 Found")


@bad("no http or https")
def to_nowhere(h):
    h.answer(b"", "Location: http://[::1/\xff", status="302 Found")


@slow("did not answer in time")
def silent(h):
    time.sleep(60)


@slow("did not answer in time")
def silent_in_the_middle(h):
    h.answer(h.body[:5000], length=len(h.body))
    time.sleep(60)


@slow("takes more than")
def dripping_headers(h):
    h.send(b"HTTP/1.1 200 OK\r\nX-Header: ")
    h.forever(b"x", 0.1)


@slow("takes more than")
def dripping_body(h):
    h.head("Content-Length: 100000")
    h.forever(b"x", 0.1)


@slow("takes more than")
def dripping_pieces(h):
    h.head("Transfer-Encoding: chunked")
    h.forever(b"1\r\nx\r\n", 0.1)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = Counter()
        self.lock = threading.Lock()


@contextlib.contextmanager
def hostile_server():
    """Gives the beginning of its addresses: f"{url}/plain/7"."""
    process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fetch_many(url, fetches, threads):
    """Fetch from everything in turn, several at a time -> a list of what went wrong (sentences)."""
    from phi3v_helpers.errors import ImageError
    from phi3v_helpers.images import fetching

    usual, slow_ones = [*GOOD, *BAD], [*SLOW]
    plan = []
    while len(plan) < fetches:
        plan += usual + (slow_ones if len(plan) // len(usual) % 5 == 0 else [])  # those now and then
    words_of = {name: words for name, (_, words) in (BAD | SLOW).items()}

    def one(place):
        name, number = plan[place], place
        try:
            body = fetching.download(
                f"{url}/{name}/{number}", (5, 1.5), MAX_BYTES, allow_private=True, progress=False
            )
        except ImageError as error:
            if name in GOOD or not all(word in str(error) for word in words_of[name]):
                return f"{name}/{number}: {error}"
        else:
            if name not in GOOD or body != picture(number):
                return f"{name}/{number}: another picture came"

    places = list(range(fetches))
    random.Random(0).shuffle(places)
    with ThreadPoolExecutor(threads) as pool:
        return [wrong for wrong in pool.map(one, places) if wrong]


def open_sockets():
    """How many sockets this process has open; None where there is no telling."""
    if not Path("/proc/self/fd").is_dir():
        return None
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="be the server, and print the address")
    parser.add_argument("--fetches", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    if options.serve:
        server = Server()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()

    from phi3v_helpers.images import fetching

    fetching.BACK_OFF, fetching.MAX_SECONDS = 0.02, 4
    with tempfile.TemporaryDirectory() as folder, hostile_server() as url:
        os.environ |= {"PHI3V_CACHE": folder, "NO_PROXY": "127.0.0.1"}
        started = time.monotonic()
        wrong = fetch_many(url, options.fetches, options.threads)
        seconds = time.monotonic() - started
    print(
        *wrong,
        f"{options.fetches} fetches by {options.threads} threads in {seconds:.1f} s: {len(wrong)} went wrong,"
        f" {open_sockets()} sockets and {threading.active_count() - 1} threads are left.",
        sep="\n",
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
