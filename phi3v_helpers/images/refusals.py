"""Why a picture could not be fetched, in plain words: by status, by limit, by what the network did."""

import email.utils
import http.client
import ssl
import time

from ..errors import ImageError

MAX_WAIT = 20  # seconds that a busy server may have us wait

GIVE_PATH = "Download the file in your browser and give its path."
_LATER = "Try again later, or download the file and give its path."
_STATUS = {
    401: ("the site asks for a login", GIVE_PATH),
    403: ("the site refuses programs", GIVE_PATH),
    404: ("there is no such picture", "Check the address: pictures are often moved or removed."),
    407: ("the proxy asks for a login", "Put it into HTTPS_PROXY, or download the file and give its path."),
    410: ("the picture was removed", "Look for it elsewhere, or give a path."),
    429: ("too many requests", "Wait a minute and try again, or download the file and give its path."),
    451: ("the picture is withheld for legal reasons", "Look for it elsewhere, or give a path."),
}
_BUSY = (429, 502, 503, 504)  # not 500: who breaks on a request breaks on it again


class Trouble(ImageError):
    """No answer, or none for now: an older copy would help. passing: it may help to try again, after `wait` seconds."""

    def __init__(self, what, advice, passing=False, wait=None):
        super().__init__(what, advice)
        self.passing = passing
        self.wait = wait  # None where the server did not say


def status(host, code, headers):
    """The error for an answer that is no success."""
    other = ("the site could not answer", _LATER) if code >= 400 else ("that is no picture", GIVE_PATH)
    meaning, advice = _STATUS.get(code, other)
    wait = _retry_after(headers.get("Retry-After", "")) if code in _BUSY else None
    if wait is not None and wait > MAX_WAIT:
        return Trouble(f"{code} from {host}: {meaning}; it asks to wait for {wait:.0f} s.", _LATER)
    what = f"{code} from {host}: {meaning}."
    if code in _BUSY or code >= 500:
        return Trouble(what, advice, code in _BUSY, wait)
    return ImageError(what, advice)


def too_big(host, max_bytes):
    return ImageError(
        f"The file at {host} is larger than {max_bytes / 1024**2:g} MiB.",
        "Use a smaller version of the picture, or download the file and give its path.",
    )


def too_slow(host, seconds):
    return Trouble(f"Fetching from {host} takes more than {seconds:g} s.", GIVE_PATH)


def silent(host):
    return Trouble(f"{host} did not answer in time.", "Try again later, or give a path instead.")


def incomplete(host):
    return Trouble(f"The connection to {host} broke: what came is incomplete.", _LATER, passing=True)


def damaged(host):
    return ImageError(f"What {host} sent is damaged: it cannot be unpacked.", GIVE_PATH)


def unreachable(host, error):
    """The error for a connection that did not come about."""
    if isinstance(error, TimeoutError):
        return silent(host)
    reason = error.strerror or type(error).__name__
    return Trouble(
        f"There is no connection to {host} ({reason}).", f"Check the address. {_LATER}", passing=True
    )


def explain(host, error):
    """What requests, urllib3, ssl and http.client raise -> an ImageError."""
    from requests import exceptions
    from urllib3.exceptions import ProtocolError
    from urllib3.util.ssl_match_hostname import CertificateError

    causes = list(_causes(error))

    def first(*kinds):
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    if cause := first(ssl.SSLCertVerificationError, CertificateError):
        reason = getattr(cause, "verify_message", "the host's name does not match")
        return Trouble(
            f"The certificate of {host} is not in order ({reason:.150}).",
            "Check the address and this machine's date; where a company's proxy reads along, set REQUESTS_CA_BUNDLE.",
        )
    if first(TimeoutError, exceptions.Timeout):
        return silent(host)
    if first(exceptions.ProxyError):
        return Trouble(
            f"The proxy of this machine does not let the request to {host} through.",
            "Check HTTP_PROXY and HTTPS_PROXY, or download the file and give its path.",
        )
    if first(ssl.SSLEOFError, ConnectionError, http.client.IncompleteRead):
        return incomplete(host)
    if first(ssl.SSLError):
        return Trouble(f"{host} does not speak https as it should.", f"Check the address. {_LATER}")
    if isinstance(error, (exceptions.InvalidURL, UnicodeError)):
        return ImageError(
            f"The address at {host} is misspelt.", "Check its spelling, or give a path instead."
        )
    if first(http.client.HTTPException, ValueError):
        return ImageError(f"{host} does not answer as a web server should.", "Check the address.")
    if first(exceptions.ConnectionError, ProtocolError):
        return incomplete(host)
    return Trouble(f"The picture could not be fetched from {host} ({type(error).__name__}).", _LATER)


def _causes(error):
    """An error, and all that it was made from: libraries wrap them in different ways."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseException) and id(error) not in seen:
            seen.add(id(error))
            yield error
            pending += [error.__cause__, getattr(error, "reason", None), *error.args]


def _retry_after(text):
    """Retry-After, seconds or a date -> seconds from now, or None."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
