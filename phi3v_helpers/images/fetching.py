"""An http(s) address -> the bytes behind it, within a time and a size, and with errors that say why not."""

import time
from urllib.parse import urlsplit

from ..errors import ImageError

TIMEOUT = (5, 20)  # seconds to connect, and without a byte
MAX_SECONDS = 120  # for a whole file, however steadily it drips
MAX_BYTES = 50 * 1024**2

_GIVE_PATH = "Download the file in your browser and give its path."
_REFUSALS = {
    401: ("the site asks for a login", _GIVE_PATH),
    403: ("the site refuses programs", _GIVE_PATH),
    404: ("there is no such picture", "Check the address: pictures are often moved or removed."),
    410: ("the picture was removed", "Look for it elsewhere, or give a path."),
    429: ("too many requests", "Wait a minute and try again, or download the file and give its path."),
}
_NO_ANSWER = ("the site could not answer", "Try again later, or download the file and give its path.")


def download(url, timeout=TIMEOUT, max_bytes=MAX_BYTES):
    """The bytes behind an http(s) address.

    timeout: (seconds to connect, seconds without a byte). max_bytes: the most that is read, unpacked.
    Raises ImageError: no http(s) address, no answer, a status from 400 on (it is named), too big, slow.
    """
    import requests
    import urllib3

    host = _host(url)
    deadline = time.monotonic() + MAX_SECONDS
    try:
        with _session() as session, session.get(url, stream=True, timeout=timeout) as answer:
            if answer.status_code >= 400:
                meaning, advice = _REFUSALS.get(answer.status_code, _NO_ANSWER)
                raise ImageError(f"{answer.status_code} from {host}: {meaning}.", advice)
            return _read(answer, host, max_bytes, deadline)
    except requests.exceptions.InvalidURL as error:
        raise _not_an_address(url) from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise ImageError(
            f"{host} did not answer in time.", "Try again later, or give a path instead."
        ) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise ImageError(
            f"The picture could not be fetched from {host} ({type(error).__name__}).",
            "Check the address and your connection, or download the file and give its path.",
        ) from error


def _host(url):
    """The host's name: errors show it alone, as the rest of an address may hold keys."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme.lower() not in ("http", "https"):
        raise _not_an_address(url)
    return host


def _not_an_address(url):
    return ImageError(
        f"{url[:60]!r} is no http or https address.", "Check its spelling, or give a path instead."
    )


def _session():
    """Tries twice more where a connection fails or the server is busy; says who asks, as some sites want."""
    import requests
    from urllib3.util import Retry

    from .. import __version__

    retry = Retry(
        2,
        read=False,
        status_forcelist=(502, 503, 504),
        backoff_factor=0.3,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may say an hour
    )
    session = requests.Session()
    session.headers.update({"User-Agent": f"phi3v-helpers/{__version__}", "Accept": "image/*,*/*;q=0.5"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
    return session


def _read(answer, host, max_bytes, deadline):
    """The body of an answer, unless it is too big or comes too slowly."""
    too_big = ImageError(
        f"The file at {host} is larger than {max_bytes / 1024**2:g} MiB.",
        "Use a smaller version of the picture, or download the file and give its path.",
    )
    announced = answer.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_big
    body = bytearray()
    for chunk in _chunks(answer):
        body += chunk
        if len(body) > max_bytes:
            raise too_big
        if time.monotonic() > deadline:
            raise ImageError(f"{host} takes more than {MAX_SECONDS} s.", _GIVE_PATH)
    return bytes(body)


def _chunks(answer):
    """What has come so far, again and again. `iter_content` would wait for full chunks, and the clock too."""
    read = getattr(answer.raw, "read1", None)
    if read is None:  # urllib3 before 2.1
        yield from answer.iter_content(4096)
        return
    while chunk := read(64 * 1024, decode_content=True):
        yield chunk
