"""Anything that holds a file -> its bytes: paths, addresses, data addresses, bytes and file objects."""

import base64
import binascii
import io
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from ..errors import ImageError
from . import fetching
from .kinds import BASE64, looks_like_base64

MAX_FILE_BYTES = 500 * 1024**2  # of a file on this machine

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,30}/[\w.+-]{1,40}")
_CHUNK = 1024**2
_SMALLER = "Use a smaller version of it."


def read(source, timeout=fetching.TIMEOUT, max_bytes=fetching.MAX_BYTES, allow_private=False):
    """(bytes, what to call them in errors) of a source as in `load_image`, but no PIL image or array.

    Raises ImageError: it is not there, cannot be read or is too big.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "The picture given as bytes"
    text = source.strip() if isinstance(source, str) else ""
    if text[:5].lower() == "data:":
        return _from_data_address(text, max_bytes)
    if _ADDRESS.match(text) and text[:5].lower() != "file:":
        data = fetching.download(text, timeout, max_bytes, allow_private=allow_private)
        return data, "What the address holds"
    if is_path(source):
        with open_file(source) as (file, name):
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise too_big(name, MAX_FILE_BYTES)
            return read_at_most(file.read, MAX_FILE_BYTES, name), name
    if hasattr(source, "read"):
        return _from_file_object(source, max_bytes), "What the file object holds"
    raise ImageError(
        f"A {type(source).__name__} is no picture.",
        "Give a path, an address, bytes, a file object, an array or a PIL image.",
    )


def is_path(source):
    """Whether this is the path of a file, as text, as a Path or as a file:// address."""
    if isinstance(source, str):
        start = source.strip()[:5].lower()
        return start != "data:" and (start == "file:" or not _ADDRESS.match(source.strip()))
    return isinstance(source, os.PathLike)


class open_file:
    """`with open_file(path) as (file, name)`: an ordinary file, open for bytes. name: what to call it in errors."""

    def __init__(self, source):
        self._source = source
        self._file = None

    def __enter__(self):
        source = self._source
        try:
            path = _path(source)
            _check_is_file(path)
            self._file = path.open("rb")
            return self._file, _short(path)
        except ImageError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL in the name, "~nobody"
            if isinstance(source, str) and looks_like_base64(source):
                raise ImageError(f"The text is {BASE64.name}.", BASE64.advice) from error
            if isinstance(error, FileNotFoundError):
                raise ImageError(f"There is no file {_short(path)}.", _check_the_path()) from error
            reason = getattr(error, "strerror", None) or error
            raise ImageError(
                f"{_short(source)} cannot be opened ({_cut(str(reason))}).", "Check its name and permissions."
            ) from error

    def __exit__(self, *_):
        self._file.close()


def _path(source):
    """A str, PathLike or file:// address -> Path."""
    text = os.fsdecode(source)
    if not text:
        raise ImageError("The path is empty.", "Give the path of a picture.")
    if isinstance(source, str) and text.strip()[:5].lower() == "file:":
        parts = urlsplit(text.strip())
        if parts.netloc.lower() not in ("", "localhost"):
            raise ImageError(
                f"The file:// address names the computer {_short(parts.netloc)}.",
                "Copy the file to this one, and give its path.",
            )
        return Path(url2pathname(parts.path))
    return Path(text).expanduser()


def _check_is_file(path):
    """Before it is opened: to open or read a pipe or a device may take for ever."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{_short(path)} is a folder.", "Give the path of one picture in it.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(
            f"{_short(path)} is a device or a pipe, not a file.",
            "Save the picture in a file, or open this yourself and give the file object.",
        )


def _check_the_path():
    try:
        return f"Check the path; you are in {os.getcwd()!r}."
    except OSError:
        return "Check the path; the folder you are in was removed."


def read_at_most(read, most, what):
    """All bytes that `read(size)` gives; raises ImageError where they are more than `most`."""
    chunks, size = [], 0
    while chunk := read(_CHUNK):
        chunks.append(bytes(chunk))
        size += len(chunk)
        if size > most:
            raise too_big(what, most)
    return b"".join(chunks)


def too_big(what, most):
    return ImageError(f"{what} is larger than {most / 1024**2:g} MiB.", _SMALLER)


def _from_file_object(file, max_bytes):
    """What a file object still holds. It may be any class with a `read`, and fail as it likes."""
    text = ImageError("The file object gives text, not bytes.", 'Open it with open(path, "rb").')
    if isinstance(file, io.TextIOBase):
        raise text

    def read(size):
        try:
            chunk = file.read(size)
        except Exception as error:
            raise ImageError(
                f"The file object cannot be read ({type(error).__name__}).", "Open it anew, in binary mode."
            ) from error
        if isinstance(chunk, str):
            raise text
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise ImageError(
                f"The file object gives a {type(chunk).__name__}, not bytes.",
                "Read it yourself, and give the bytes.",
            )
        return chunk

    return read_at_most(read, max_bytes, "What the file object holds")


def _from_data_address(text, max_bytes):
    """data:image/png;base64,… -> (bytes, what to call them). Characters outside base64 may be written as %2B."""
    head, comma, body = text[5:].partition(",")
    declared = head.split(";")[0].strip().lower()
    what = f"The data address ({declared})" if _MEDIA_TYPE.fullmatch(declared) else "The data address"
    if not comma:
        raise ImageError(
            f"{what} has no comma.", "Copy it again as a whole: it begins as data:image/png;base64, does."
        )
    if len(body) > 3 * max_bytes:  # each byte may be written as %2B
        raise too_big(what, max_bytes)
    data = unquote_to_bytes(body)
    if head.lower().rstrip().endswith(";base64"):
        data = _from_base64(data, what)
    if len(data) > max_bytes:
        raise too_big(what, max_bytes)
    return data, what


def _from_base64(letters, what):
    letters = b"".join(letters.split()).rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(
            f"{what} is no valid base64.", "Copy it again as a whole, from the comma to the end."
        ) from error


def _short(value):
    """A path or address that fits into a sentence."""
    return repr(_cut(str(value)))


def _cut(text):
    return text if len(text) <= 80 else f"{text[:40]}…{text[-30:]}"
