"""Servers that mean harm, or are out of order: the picture comes whole, or an error does, soon and in plain words.

1,000 fetches instead of 150: python tests/hostile.py --fetches 1000 --threads 8
"""

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from contextlib import contextmanager

import hostile
import pytest
from helpful import helpful
from server import send, serve

from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import addresses, fetching

PUBLIC = "93.184.216.34"
real_getaddrinfo = socket.getaddrinfo


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "BACK_OFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,pictures.example,evil.example")
    monkeypatch.setenv("PHI3V_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def hostile_url():
    with hostile.hostile_server() as url:
        yield url


@contextmanager
def nothing_left():
    """The block leaves no socket open and no thread running; a server in this process may need a moment."""

    def counts():
        return hostile.open_sockets(), threading.active_count()

    before = counts()
    yield
    deadline = time.monotonic() + 2
    while counts() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert counts() == before


def fetch(url, timeout=(5, 5)):
    return fetching.download(url, timeout, hostile.MAX_BYTES, allow_private=True, progress=False)


@pytest.mark.parametrize("name", hostile.GOOD)
def test_odd_ways_to_send_a_picture(name, hostile_url, caplog, capfd):
    with nothing_left():
        assert fetch(f"{hostile_url}/{name}/7") == hostile.picture(7)
    assert not caplog.records and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", hostile.BAD)
def test_what_is_no_picture(name, hostile_url):
    started = time.monotonic()
    with nothing_left(), helpful(ImageError, *hostile.BAD[name][1]):
        fetch(f"{hostile_url}/{name}/7")
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("name", hostile.SLOW)
def test_what_takes_forever(name, hostile_url, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_SECONDS", 1)
    started = time.monotonic()
    with nothing_left(), helpful(ImageError, *hostile.SLOW[name][1]):
        fetch(f"{hostile_url}/{name}/7", timeout=(1, 0.4))
    assert time.monotonic() - started < 2


def test_the_time_holds_for_all_tries_and_redirects_together(monkeypatch):
    monkeypatch.setattr(fetching, "MAX_SECONDS", 1)

    def answer(handler):
        time.sleep(0.3)
        send(handler, status=302, Location="/again")

    with serve(answer) as server, helpful(ImageError, "takes more than 1 s"):
        fetch(server.url)
    assert len(server.seen) < 5
    monkeypatch.setattr(fetching, "BACK_OFF", 5)
    started = time.monotonic()
    with serve(lambda h: send(h, status=503)) as server, helpful(ImageError, "503 from"):
        fetch(server.url)
    assert time.monotonic() - started < 1  # there is no time for another try


def test_a_host_that_lets_nobody_connect():
    """Its queue is full: connections are neither taken nor refused."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        started = time.monotonic()
        with helpful(ImageError, "127.0.0.1 did not answer in time"):
            fetch(f"http://127.0.0.1:{full.getsockname()[1]}/", timeout=(0.3, 0.3))
        for one in waiting:
            one.close()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", [name for name in hostile.BAD if "endless" in name] + ["bomb"])
def test_memory_is_bounded(name, hostile_url):
    with helpful(ImageError):
        fetch(f"{hostile_url}/{name}/1")  # loads what is loaded once
    tracemalloc.start()
    try:
        with helpful(ImageError):
            fetch(f"{hostile_url}/{name}/2")
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024**2
    finally:
        tracemalloc.stop()


def test_many_threads_and_everything_at_once(hostile_url, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_SECONDS", 4)
    with nothing_left():
        assert hostile.fetch_many(hostile_url, fetches=150, threads=8) == []


# Who may be reached


LOCAL = (
    "127.0.0.1 127.8.9.1 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 100.100.100.200 224.0.0.1"
    " 240.0.0.1 255.255.255.255 192.0.2.1 198.18.0.1 192.0.0.192 168.63.129.16"
    " ::1 :: fe80::1 fe80::1%1 fc00::1 fd00:ec2::254 fec0::1 ff02::1 2001:db8::1 3fff::1 4000::1 ::127.0.0.1"
    " ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::808:808 2002:7f00:1::"
    " 2002:c0a8:101::1 2001:0:7f00:1::1"
).split()
NOT_LOCAL = (
    "93.184.216.34 8.8.8.8 2606:2800:220:1:248:1893:25c8:1946 64:ff9b::808:808 2002:808:808::1 ::ffff:8.8.8.8"
)


@pytest.mark.parametrize("address", LOCAL)
def test_addresses_that_are_not_public(address):
    assert not addresses.is_public(address)
    assert not addresses.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_LOCAL.split())
def test_addresses_that_are_public(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "host",
    "127.0.0.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 127.1 127.0.0.1. 0 localhost LOCALHOST localhost."
    " a.localhost printer.local metadata.google.internal router 169.254.169.254 0xa9fea9fe [::1] [::]"
    " [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] [2002:7f00:1::] [fe80::1%25eth0]"
    " user:pass@127.0.0.1 example.org@127.0.0.1".split(),
)
def test_local_hosts_are_refused_however_they_are_spelt(host, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: asked.append(args) or [])
    with helpful(ImageError, "not on the public internet", "allow_private=True"):
        fetching.download(f"http://{host}/x.png")
    assert not asked


@pytest.mark.parametrize("host", ["①②⑦.⓪.⓪.①", "127。0。0。1", "ｌocalhost", "::1", "127.0.0.1:80:80"])
def test_what_only_some_would_read_as_a_local_host(host, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: asked.append(args) or [])
    with helpful(ImageError, "address"):
        fetching.download(f"http://{host}/x.png")
    assert not asked


def names(monkeypatch, **answers):
    """Names that are looked up have these addresses, one list after the other; underscores stand for dots."""
    answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
    asked = []

    def getaddrinfo(host, port, *args, **options):
        if host not in answers:
            return real_getaddrinfo(host, port, *args, **options)
        asked.append(host)
        lists = answers[host]
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
            for ip in (lists.pop(0) if len(lists) > 1 else lists[0])
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def picture_server():
    return serve(lambda h: send(h, hostile.picture(1)))


@pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"]])
def test_a_name_that_leads_to_this_machine(found, monkeypatch):
    names(monkeypatch, evil_example=[found])
    with picture_server() as server, helpful(ImageError, "evil.example is on this machine"):
        fetching.download(f"http://evil.example:{server.server_address[1]}/x.png")
    assert not server.seen


def test_a_name_that_changes_between_check_and_connection(monkeypatch):
    """It is looked up once for each try, and what was checked is what is connected to."""
    asked = names(monkeypatch, evil_example=[[PUBLIC], ["127.0.0.1"]])
    tried = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, to: tried.append(to[0]) or connect(self, to))
    with picture_server() as server, helpful(ImageError, "evil.example is on this machine"):
        fetching.download(f"http://evil.example:{server.server_address[1]}/x.png")
    assert tried == [PUBLIC] and asked == ["evil.example"] * 2 and not server.seen


@pytest.fixture
def public_here(monkeypatch):
    """pictures.example is a public name, and leads to 127.0.0.1; all others stay what they are."""
    is_public, resolve = addresses.is_public, addresses.resolve
    looked_up = threading.local()

    def resolve_here(host, port, allow_private):
        looked_up.host = host
        try:
            return resolve(host, port, allow_private)
        finally:
            looked_up.host = None

    def is_public_here(address):
        return getattr(looked_up, "host", None) == "pictures.example" or is_public(address)

    names(monkeypatch, pictures_example=[["127.0.0.1"]], evil_example=[["127.0.0.1"]])
    monkeypatch.setattr(addresses, "resolve", resolve_here)
    monkeypatch.setattr(addresses, "is_public", is_public_here)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://127.0.0.1:{port}/x.png", "not on the public internet"),
        ("//localhost:{port}/x.png", "not on the public internet"),
        ("http://2130706433:{port}/x.png", "not on the public internet"),
        ("http://169.254.169.254/latest/meta-data", "not on the public internet"),
        ("http://[::1]:{port}/x.png", "not on the public internet"),
        ("http://evil.example:{port}/x.png", "evil.example is on this machine"),
        ("file:///etc/passwd", "no http or https"),
        ("gopher://127.0.0.1/", "no http or https"),
    ],
)
def test_redirects_are_checked_like_first_requests(location, words, public_here):
    def answer(handler):
        if handler.path == "/start":
            send(handler, status=302, Location=location.format(port=handler.server.server_address[1]))
        else:
            send(handler, hostile.picture(1))

    with serve(answer) as server:
        url = f"http://pictures.example:{server.server_address[1]}"
        assert fetching.download(f"{url}/picture") == hostile.picture(1)
        with helpful(ImageError, words):
            fetching.download(f"{url}/start")
    assert [path for _, path, _ in server.seen] == ["/picture", "/start"]
    assert server.seen[0][2]["Host"] == url.removeprefix("http://")


@pytest.mark.parametrize(("code", "words"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
def test_names_that_are_not_found(code, words, monkeypatch):
    asked = []

    def getaddrinfo(*args, **options):
        asked.append(args)
        raise socket.gaierror(code, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with helpful(ImageError, "The name pictures.example was not found"):
        fetching.download("http://pictures.example/x.png")
    assert len(asked) == words


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "..", "a..b", "-", "%00.example", "xn--\u00e4.example"]
)
def test_names_that_are_none(host):
    with helpful(ImageError):
        fetching.download(f"http://{host}/x.png")


# Proxies


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that has the picture of every http address, and lets no https request through."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with picture_server() as server:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        yield server


def test_through_a_proxy(proxy):
    """It stands in the local network, and looks names up itself."""
    assert fetching.download("http://pictures.example/x.png") == hostile.picture(1)
    assert proxy.seen[0][1] == "http://pictures.example/x.png"
    with helpful(ImageError, "The proxy of this machine does not let"):
        fetching.download("https://pictures.example/x.png")


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "localhost", "router", "169.254.169.254", "[::1]"])
def test_local_hosts_are_not_asked_of_a_proxy_either(host, proxy):
    with helpful(ImageError, "not on the public internet"):
        fetching.download(f"http://{host}/x.png")
    assert not proxy.seen


def test_a_proxy_that_is_not_there(proxy, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{free.getsockname()[1]}")
    with helpful(ImageError, "There is no connection to 127.0.0.1") as caught:
        fetching.download("http://pictures.example/x.png")
    assert "secret" not in str(caught.value)


def test_a_socks_proxy(proxy, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    with helpful(ImageError, "SOCKS"):
        fetching.download("http://pictures.example/x.png")


# https


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and a certificate for pictures.example, which it signs itself."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate, and is not here")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=pictures.example",
        ]
        + [
            "-addext",
            "subjectAltName=DNS:pictures.example",
            "-keyout",
            file,
            "-out",
            file.with_suffix(".crt"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@contextmanager
def serve_tls(certificate, answer):
    """Like `serve`; gives the server, with the port and the names that were asked for as `.asked_for`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked_for = []
    context.sni_callback = lambda sock, name, context: asked_for.append(name)
    with serve(answer) as server:
        server.asked_for, server.port = asked_for, server.server_address[1]
        handle = server.finish_request

        def finish_request(request, client):
            try:
                with context.wrap_socket(request, server_side=True) as wrapped:
                    handle(wrapped, client)
            except OSError:
                pass  # the client had enough

        server.finish_request = finish_request
        yield server


def test_https_to_the_checked_address_with_the_names_certificate(certificate, public_here, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serve_tls(certificate, lambda h: send(h, hostile.picture(1))) as server, nothing_left():
        assert fetching.download(f"https://pictures.example:{server.port}/x.png") == hostile.picture(1)
    assert server.asked_for == ["pictures.example"]
    assert server.seen[0][2]["Host"] == f"pictures.example:{server.port}"


def test_certificates_that_are_not_in_order(certificate, public_here, monkeypatch):
    with serve_tls(certificate, lambda h: send(h, hostile.picture(1))) as server:
        with helpful(ImageError, "The certificate of pictures.example is not in order (self"):
            fetching.download(f"https://pictures.example:{server.port}/x.png")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with helpful(ImageError, "The certificate of evil.example is not in order", "match"):
            fetch(f"https://evil.example:{server.port}/x.png")
    assert not server.seen


def test_https_where_there_is_none():
    with picture_server() as server, helpful(ImageError, "127.0.0.1 does not speak https"):
        fetch(server.url.replace("http:", "https:"))


def test_a_handshake_that_never_comes():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with nothing_left(), helpful(ImageError, "127.0.0.1 did not answer in time"):
            fetch(f"https://127.0.0.1:{mute.getsockname()[1]}/x.png", timeout=(0.3, 5))


def test_https_that_drips(certificate, public_here, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.setattr(fetching, "MAX_SECONDS", 0.7)

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b"x")
            time.sleep(0.1)

    started = time.monotonic()
    with serve_tls(certificate, drip) as server:
        with helpful(ImageError, "takes more than 0.7 s"):
            fetching.download(f"https://pictures.example:{server.port}/x.png")
        assert time.monotonic() - started < 2


def test_from_http_to_https_but_not_back(certificate, public_here, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))

    def answer(handler):
        if handler.path == "/down":
            send(handler, status=301, Location=f"http://pictures.example:{plain.server_address[1]}/x.png")
        else:
            send(handler, hostile.picture(1))

    def up(handler):
        send(handler, status=301, Location=f"https://pictures.example:{secure.port}{handler.path}")

    with serve_tls(certificate, answer) as secure, serve(up) as plain:
        http = f"http://pictures.example:{plain.server_address[1]}"
        assert fetching.download(f"{http}/x.png") == hostile.picture(1)
        with helpful(ImageError, "from https to http"):
            fetching.download(f"{http}/down")
