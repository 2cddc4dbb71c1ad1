"""An http(s) address -> the bytes behind it, whole, within a time and a size, and with errors that say why not.

No server is trusted: who may be reached is in addresses.py, what holds for each connection in connections.py, the
words of errors in refusals.py, and what is kept on disk in web_cache.py.

When a kept copy is used: while the server said that it stays the same (`Cache-Control: max-age`, a day at most), or
when the server, asked again, says that it did not change (ETag, Last-Modified). Pictures at an address do change, and
an answer about yesterday's would be wrong. PHI3V_OFFLINE=1 takes what is kept, however old, and uses no network at all.
"""

import dataclasses
import os
import random
import time
from urllib.parse import urljoin, urlsplit

from ..errors import ImageError
from . import web_cache
from .addresses import host_of, split_login
from .refusals import GIVE_PATH, Trouble, explain, status, too_big

TIMEOUT = (5, 20)  # seconds to connect, and without a byte
MAX_SECONDS = 120  # for all of a download: redirects, further tries, and however steadily it drips
MAX_BYTES = 50 * 1024**2
TRIES = 3
BACK_OFF = 0.5  # seconds before the second try, twice that before the third
MAX_REDIRECTS = 5
MAX_AGE = 24 * 3600  # seconds for which a server is believed that its picture stays the same


def download(url, timeout=TIMEOUT, max_bytes=MAX_BYTES, *, allow_private=False, progress=True):
    """The bytes behind an http(s) address.

    timeout: seconds, or (seconds to connect, seconds without a byte). max_bytes: the most that is read, unpacked.
    allow_private: whether hosts of this machine and of private networks may be reached too; nothing that was fetched
        so is kept on disk, and neither is what needs a login (user:password@host).
    progress: whether a bar is shown where it takes long.
    Raises ImageError: no http(s) address, not on the public internet, no answer, a status that is no success (it is
    named), too big, too slow, incomplete.
    """
    clean, login = split_login(url)
    kept = None if allow_private or login else web_cache.find(url)
    if os.environ.get("PHI3V_OFFLINE", "0") not in ("", "0"):
        return _offline(kept, url, max_bytes)
    if kept and kept.is_fresh:
        return _small(kept.body, url, max_bytes)

    from .connections import Limits  # with requests: only here, where it is needed

    limits = Limits(MAX_SECONDS, timeout, max_bytes, allow_private)
    try:
        body, entry = _patiently(lambda: _follow(clean, login, kept, limits, progress), limits, host_of(url))
    except Trouble as trouble:
        copy = f" PHI3V_OFFLINE=1 takes the copy that was fetched on {kept.date}." if kept else ""
        raise ImageError(trouble.what, trouble.advice + copy) from trouble.__cause__
    if not (allow_private or login):
        if entry:
            web_cache.keep(url, entry)
        else:
            web_cache.forget(url)
    return body


def _offline(kept, url, max_bytes):
    if kept is None:
        raise ImageError(
            f"The picture from {host_of(url)} is not kept on this machine, and PHI3V_OFFLINE forbids to fetch it.",
            "Fetch it once without PHI3V_OFFLINE, or give a path.",
        )
    return _small(kept.body, url, max_bytes)


def _small(body, url, max_bytes):
    if len(body) > max_bytes:
        raise too_big(host_of(url), max_bytes)
    return body


def _patiently(fetch, limits, host):
    """Try, and again after a while where the trouble may pass."""
    for number in range(1, TRIES + 1):
        try:
            return fetch()
        except Trouble as error:
            trouble = error
        wait = trouble.wait
        if wait is None:
            wait = BACK_OFF * 2 ** (number - 1) * random.uniform(0.75, 1.25)  # not all at the same moment
        if not trouble.passing or number == TRIES or wait >= limits.left(host):
            raise trouble
        time.sleep(wait)


def _follow(url, login, kept, limits, progress):
    """One try, through redirects -> (bytes, the Entry to keep or None)."""
    from .connections import open_session

    with open_session(limits) as session:
        for hop in range(MAX_REDIRECTS + 1):
            known = kept if kept and kept.source == web_cache.key(url) else None
            with _ask(session, url, login, known, limits) as answer:
                target = _target(answer, url)
                if target is None:
                    return _result(answer, url, hop, known, limits, progress)
            if login and session.should_strip_auth(url, target):
                login = None  # it was for the first host alone
            url = target
    raise ImageError(f"{host_of(url)} redirects more than {MAX_REDIRECTS} times.", GIVE_PATH)


def _ask(session, url, login, known, limits):
    """The answer to one request: its headers have come, its body has not."""
    import requests
    import urllib3

    headers = {}
    if known and known.etag:
        headers["If-None-Match"] = known.etag
    if known and known.modified:
        headers["If-Modified-Since"] = known.modified
    try:
        # No login from .netrc, as requests would take without one of ours; proxies come from the environment.
        request = requests.Request("GET", url, headers, auth=login or (lambda request: request))
        request = session.prepare_request(request)
        settings = session.merge_environment_settings(request.url, {}, True, None, None)
        return session.send(request, timeout=(limits.connect, limits.read), **settings)
    except ImageError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise explain(host_of(url), error) from None  # theirs show the whole address, which may hold keys


def _target(answer, url):
    """Where a redirect leads, or None where it is none."""
    if answer.status_code not in (301, 302, 303, 307, 308) or "Location" not in answer.headers:
        return None
    host = host_of(url)
    try:
        location = answer.headers["Location"].encode("latin-1").decode("utf-8", "replace")
        # a login in there is the server's idea, not the user's
        target, _ = split_login(urljoin(url, location))
    except ValueError as error:  # ImageError is one
        raise ImageError(
            f"{host} redirects to something that is no http or https address.", GIVE_PATH
        ) from error
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
        # Who asks for https wants nobody on the way to exchange the picture.
        raise ImageError(
            f"{host} redirects from https to http, which anyone on the way can read and change.",
            f"If that does not matter, give the http address itself. {GIVE_PATH}",
        )
    return target


def _result(answer, url, hop, known, limits, progress):
    """The bytes of the last answer, and the Entry to keep, None where that is not wanted."""
    from .bodies import read

    host = host_of(url)
    now = time.time()
    # A redirect may lead elsewhere tomorrow, so what it led to is never used without asking.
    fresh_until = now + (_seconds_fresh(answer.headers) if hop == 0 else 0)
    if answer.status_code == 304 and known:
        body = _small(known.body, url, limits.max_bytes)
        return body, dataclasses.replace(known, fetched=now, fresh_until=fresh_until)
    if answer.status_code not in (200, 203):
        raise status(host, answer.status_code, answer.headers)
    body = read(answer, host, limits.max_bytes, progress)
    if not body:
        raise ImageError(f"What {host} sent is empty (0 bytes).", GIVE_PATH)
    if "no-store" in _cache_control(answer.headers) or _looks_like_text(body):
        return body, None  # a page or a message, which is seldom what was wanted
    validators = [_validator(answer.headers.get(name, "")) for name in ("ETag", "Last-Modified")]
    return body, web_cache.Entry(body, now, fresh_until, web_cache.key(url), *validators)


def _looks_like_text(body):
    """HTML, XML or JSON."""
    return body[:100].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"<", b"{", b"[")


def _cache_control(headers):
    """{"max-age": "60", "no-cache": ""}"""
    parts = (part.strip().lower().partition("=") for part in headers.get("Cache-Control", "").split(","))
    return {name: value.strip('"') for name, _, value in parts}


def _seconds_fresh(headers):
    """How long the server says that its picture stays the same."""
    said = _cache_control(headers)
    age, most = headers.get("Age", "0"), said.get("max-age", "0")
    if "no-cache" in said or not (age.isdecimal() and most.isdecimal()):
        return 0
    return max(0, min(MAX_AGE, int(most[:12])) - int(age[:12]))


def _validator(text):
    """An ETag or a date, to be sent back as it came; "" where that would not go into a header."""
    text = text.strip()
    return text if text.isascii() and text.isprintable() and len(text) < 500 else ""
