"""How requests connects here: only to an address that was checked, and within limits of time and size that no server
can stretch, be it with its headers, its chunks or a byte now and then.
"""

import functools
import http.client
import io
import socket
import time

import requests
import urllib3
from requests.adapters import HTTPAdapter

from .. import __version__
from ..errors import ImageError
from . import addresses, refusals


class Limits:
    """Of one download. seconds: for all of it. timeout: seconds, or (to connect, without a byte); None is no limit."""

    def __init__(self, seconds, timeout, max_bytes, allow_private):
        pair = tuple(timeout) if isinstance(timeout, (tuple, list)) else (timeout, timeout)
        if len(pair) != 2 or not all(part is None or _is_positive(part) for part in pair):
            raise ImageError(
                f"timeout={timeout!r:.60} is no time.",
                "Give seconds, or (seconds to connect, seconds without a byte).",
            )
        self.connect, self.read = pair
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.max_bytes = max_bytes
        self.allow_private = allow_private

    def left(self, host):
        """Seconds until the end; ImageError after it."""
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise refusals.too_slow(host, self.seconds)
        return seconds

    def wait(self, most, host):
        """Seconds that the next step may take."""
        return self.left(host) if most is None else min(most, self.left(host))


def open_session(limits):
    """A requests session for one download; it follows no redirect by itself."""
    session = _Session()
    session.headers = requests.structures.CaseInsensitiveDict(
        {
            "User-Agent": f"phi3v-helpers/{__version__}",
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",  # pictures are packed already
            "Connection": "close",
        }
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(limits))
    return session


class _Session(requests.Session):
    def get_redirect_target(self, resp):
        """None: requests would read the whole body of a redirect, however long, even where it must not follow it."""
        return None


class _Adapter(HTTPAdapter):
    def __init__(self, limits):
        self.limits = limits
        super().__init__(max_retries=0)

    def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
        # A proxy looks names up itself, so behind one only the name is checked: what else it may reach is its to say.
        if not self.limits.allow_private:
            addresses.refuse_local_names(urllib3.util.parse_url(request.url).host)
        proxy = requests.utils.select_proxy(request.url, proxies)
        if proxy and proxy.lower().startswith("socks"):  # its connections would know no limits
            raise ImageError(
                "The proxy of this machine is a SOCKS proxy.",
                "Set HTTPS_PROXY to an http proxy, or download the file and give its path.",
            )
        return super().send(request, stream, timeout, verify, cert, proxies)

    def init_poolmanager(self, *args, **kwargs):
        super().init_poolmanager(*args, **kwargs)
        self._guard(self.poolmanager)

    def proxy_manager_for(self, proxy, **kwargs):
        return self._guard(super().proxy_manager_for(proxy, **kwargs))

    def _guard(self, manager):
        manager.pool_classes_by_scheme = {
            "http": functools.partial(_HTTPPool, limits=self.limits),
            "https": functools.partial(_HTTPSPool, limits=self.limits),
        }
        return manager


class _Guarded:
    """A connection that is made by us, and whose answers are read through `_Metered`."""

    def __init__(self, *args, limits, **kwargs):
        super().__init__(*args, **kwargs)
        self.limits = limits
        self.response_class = functools.partial(_Answer, host=self.host, limits=limits)

    def _new_conn(self):
        """Connected to the very address that was checked: were the name looked up again, it could have changed."""
        host = self._dns_host.strip("[]")
        is_proxy = bool(self.proxy)  # the user's own choice, and often in the local network
        found = addresses.resolve(host, self.port, self.limits.allow_private or is_proxy)
        for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
            sock = None
            try:
                sock = socket.socket(family, kind, protocol)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.limits.wait(self.limits.connect, host))
                sock.connect(address)
                sock.settimeout(self.limits.wait(self.limits.connect, host))  # for the TLS handshake
                return sock
            except BaseException as error:
                if sock is not None:
                    sock.close()
                if not isinstance(error, OSError):
                    raise
                if number == len(found):
                    raise refusals.unreachable(host, error) from error


class _HTTPConnection(_Guarded, urllib3.connection.HTTPConnection):
    pass


class _HTTPSConnection(_Guarded, urllib3.connection.HTTPSConnection):
    pass


class _GuardedPool:
    def __init__(self, *args, limits, **kwargs):
        super().__init__(*args, **kwargs)
        self.conn_kw["limits"] = limits

    def _put_conn(self, conn):
        """Closed when done, and not kept for a next request."""
        if conn:
            conn.close()


class _HTTPPool(_GuardedPool, urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(_GuardedPool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock, *args, host, limits, **kwargs):
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Metered(self.fp.detach(), sock, host, limits), 64 * 1024)

    def begin(self):
        super().begin()
        # urllib3 would print a warning about broken headers, with the whole address
        self.msg.defects = []
        self.msg.set_payload("")


class _Metered(io.RawIOBase):
    """What comes from a socket. No wait goes beyond the limits, and all bytes count, those of headers too."""

    def __init__(self, raw, sock, host, limits):
        self.raw = raw
        self.sock = sock
        self.host = host
        self.limits = limits
        self.room = 2 * limits.max_bytes + 1024**2  # the body is counted exactly where it is read

    def readable(self):
        return True

    def readinto(self, buffer):
        self.sock.settimeout(self.limits.wait(self.limits.read, self.host))
        try:
            count = self.raw.readinto(buffer)
        except TimeoutError as error:
            self.limits.left(self.host)  # was it the end of all?
            raise refusals.silent(self.host) from error
        self.room -= count or 0
        if self.room < 0:
            raise refusals.too_big(self.host, self.limits.max_bytes)
        return count

    def close(self):
        self.raw.close()
        super().close()


def _is_positive(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
