"""Pictures from addresses, kept on disk: an entry is used only whole, and only for the address that it came from.

They lie in the folder that PHI3V_CACHE names, or in the user's folder for such things. An entry is one file: a line
with the SHA-256 of all that follows, a line of JSON (an Entry without its body), and the bytes. It is written beside
and then moved into place, so that no other process ever sees half of one. The addresses themselves are not stored.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import Phi3VError

MAX_BYTES = 500 * 1024**2  # of all entries together; those used longest ago go first
_UNFINISHED = 3600  # seconds after which a file that is still being written is not: its process was killed
_ENTRY = re.compile(r"[0-9a-f]{64}\.picture")
_PART = re.compile(r"phi3v-.*\.part")


@dataclass(frozen=True)
class Entry:
    body: bytes
    fetched: float  # seconds since 1970
    fresh_until: float = 0  # until then the server need not be asked
    source: str = ""  # key of the address that answered, after redirects
    etag: str = ""
    modified: str = ""  # Last-Modified, in the server's words

    @property
    def is_fresh(self):
        return self.fetched <= time.time() < self.fresh_until  # and the clock was not set back

    @property
    def date(self):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.fetched))


def key(url):
    """The name under which an address is kept; what is behind a # is not sent to servers, and does not count."""
    return hashlib.sha256(url.partition("#")[0].encode("utf-8", "surrogatepass")).hexdigest()


def find(url):
    """The Entry of an address, or None. A damaged one is removed."""
    try:
        path = _path(url)
        content = path.read_bytes()
    except (OSError, RuntimeError):
        return None
    entry = _parsed(content, path.stem)
    with contextlib.suppress(OSError):
        if entry is None:
            path.unlink()
        else:
            os.utime(path)  # used now
    return entry


def keep(url, entry):
    """Keep an Entry. Where that does not work (no space, no permission), nothing is kept, and nobody disturbed."""
    facts = asdict(entry) | {"key": key(url)}
    body = facts.pop("body")
    if len(body) > MAX_BYTES:
        return
    head = json.dumps(facts).encode() + b"\n"
    checksum = hashlib.sha256(head)
    checksum.update(body)
    with contextlib.suppress(OSError, RuntimeError):
        path = _path(url)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, checksum.hexdigest().encode() + b"\n" + head, body)
        _tidy(path.parent)


def forget(url):
    """Remove what is kept of an address."""
    with contextlib.suppress(OSError, RuntimeError):
        _path(url).unlink()


def info():
    """(folder, number of pictures, bytes that they take)."""
    sizes = [status.st_size for _, status in _files(_folder(), _ENTRY)]
    return _folder(), len(sizes), sum(sizes)


def clear():
    """Remove all that is kept; other files in the folder stay. Raises Phi3VError where that is not allowed."""
    try:
        for pattern in (_ENTRY, _PART):
            for path, _ in _files(_folder(), pattern):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise Phi3VError(
            f"The kept pictures cannot be removed ({error.strerror}).",
            f"Check the permissions of {_folder()}.",
        ) from error


def _folder():
    if os.environ.get("PHI3V_CACHE"):
        return Path(os.environ["PHI3V_CACHE"]).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("phi3v_helpers", appauthor=False)) / "pictures"


def _path(url):
    return _folder() / f"{key(url)}.picture"


def _parsed(content, name):
    """The Entry in a file's bytes, or None where they are not what was written for this name."""
    checksum, _, rest = content.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        return None
    head, _, body = rest.partition(b"\n")
    try:
        facts = json.loads(head)
        return Entry(body=body, **facts) if facts.pop("key") == name else None
    except (ValueError, TypeError, KeyError, AttributeError):  # another version's
        return None


def _write(path, *parts):
    """All or nothing, for this user's eyes alone (0600, as mkstemp makes it)."""
    handle, temporary = tempfile.mkstemp(prefix="phi3v-", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            for part in parts:
                file.write(part)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _tidy(folder):
    """Remove what was used longest ago where there is too much, and what killed processes left."""
    for path, status in _files(folder, _PART):
        if time.time() - status.st_mtime > _UNFINISHED:
            path.unlink(missing_ok=True)
    entries = sorted(_files(folder, _ENTRY), key=lambda entry: entry[1].st_mtime)
    total = sum(status.st_size for _, status in entries)
    for path, status in entries:
        if total <= MAX_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= status.st_size


def _files(folder, pattern):
    """[(path, its status)] of the files whose names fit; another process may remove some meanwhile."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as files:
        for file in files:
            if pattern.fullmatch(file.name):
                with contextlib.suppress(OSError):
                    found.append((Path(file.path), file.stat(follow_symlinks=False)))
    return found
