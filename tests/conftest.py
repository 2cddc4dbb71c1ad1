"""All tests run offline, on the CPU, each process with one thread; `make test` starts two processes."""

import ipaddress
import os
import socket
import tempfile

import pytest
from nbtools import ENVIRONMENT

# Before torch or a kernel starts. To test on a GPU, name it: CUDA_VISIBLE_DEVICES=0 make test
os.environ.update({name: os.environ.get(name) or value for name, value in ENVIRONMENT.items()})

# A user's own IPython start-up files must not change what a notebook prints.
_ipython = tempfile.TemporaryDirectory()
os.environ["IPYTHONDIR"] = _ipython.name


@pytest.fixture(autouse=True, scope="session")
def offline():
    """Refuse every connection that would leave this machine; servers on 127.0.0.1 are for tests to use."""
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_here(address[0]):
            raise ConnectionRefusedError(f"The tests are offline; something wanted to reach {address[0]}.")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield


def is_here(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
