"""Nothing but this machine can be reached: for the tests (conftest.py) and the kernels in a browser (browser.py)."""

import ipaddress
import socket

_connect = socket.socket.connect


def stay_here():
    """Refuse every connection that would leave this machine; servers on 127.0.0.1 are for tests to use."""
    socket.socket.connect = _connect_here


def _connect_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        raise ConnectionRefusedError(f"The tests are offline; something wanted to reach {address[0]}.")
    return _connect(self, address)


def _is_here(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
