"""Who may be reached: hosts of the public internet, and others only when asked for.

An address may come from anyone (a list of links, a web page, a redirect), so it must not open what only this
machine can see: its own services, the local network, a cloud's service for credentials.
"""

import ipaddress
import re
import socket
from urllib.parse import unquote, urlsplit

from ..errors import ImageError
from .refusals import Trouble

# names that never leave the local network; metadata.google.internal is one
_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_IPV6 = ipaddress.ip_network(
    "2000::/3"
)  # all that was ever given out; private, local and multicast are not
_OTHERS = [  # not public, though Python's ipaddress (or an older one) takes them for it
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's service for virtual machines
        "192.0.0.0/24",  # protocols
        "192.88.99.0/24",  # relays of 6to4
        "3fff::/20",  # documentation
    )
]


def split_login(url):
    """("http://user:secret@host/x") -> ("http://host/x", ("user", "secret")); the login is None without one.

    Raises ImageError where it is no http(s) address.
    """
    try:
        parts = urlsplit(url)
        login = (unquote(parts.username or ""), unquote(parts.password or ""))
        good = bool(parts.hostname) and parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ImageError(
            f"{_shown(url)!r} is no http or https address.",
            "Check its spelling, or give a path instead.",
        )
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
    return clean.geturl(), login if any(login) else None


def host_of(url):
    """The host's name: errors show it alone, as the rest of an address may hold keys."""
    return (urlsplit(url).hostname or "")[:100]


def refuse_local_names(host):
    """ImageError where the name alone tells that it is local: this holds behind a proxy too, which looks up names."""
    name = host.strip("[]").rstrip(".").lower()
    number = _as_number(name)
    if number is not None:
        local = not is_public(number)
    else:
        local = "." not in name or name.endswith(tuple(f".{end}" for end in _LOCAL_NAMES))
    if local:
        raise private(host)


def resolve(host, port, allow_private):
    """The socket addresses of a host, as `socket.getaddrinfo` gives them.

    Raises ImageError where there are none, or where one is not public: who answers with a mixture is up to no good.
    """
    try:
        # The system's own time limits hold here: a look-up cannot be broken off.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        for_now = getattr(error, "errno", None) == socket.EAI_AGAIN
        raise Trouble(
            f"The name {host} was not found.",
            "Check the address's spelling and your connection, or give a path instead.",
            passing=for_now,
        ) from error
    if not allow_private and not all(is_public(sockaddr[0]) for *_, sockaddr in found):
        raise private(host)
    return found


def is_public(address):
    """Does an IP address (text or an object of `ipaddress`) belong to the public internet?"""
    if isinstance(address, str):
        address = ipaddress.ip_address(address.partition("%")[0])
    if any(address in network for network in _OTHERS if network.version == address.version):
        return False
    if address.version == 4:
        return address.is_global and not (address.is_multicast or address.is_reserved)
    inner = address.ipv4_mapped or address.sixtofour
    if address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address in _GLOBAL_IPV6 and address.is_global


def private(host):
    return ImageError(
        f"{host} is on this machine or in a private network, not on the public internet.",
        "If you trust it and mean it, say load_image(address, allow_private=True), or phi3v ask --allow-private.",
    )


def _as_number(name):
    """The IP address that a host's name spells, be it 127.0.0.1, 2130706433, 0x7f.1, 0177.0.0.1 or ::1; or None."""
    try:
        return ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, ValueError):  # ValueError: not ASCII, a NUL
        return None


def _shown(url):
    """So much of what was given as holds no keys: scheme and host."""
    scheme, mark, rest = url.partition("://")
    host = re.split(r"[/?#\\]", rest)[0]
    return f"{scheme}{mark}{'…' if '@' in rest else host}"[:60]
