"""The body of an answer: read while it comes, unpacked, counted, and taken only whole."""

import zlib

import requests
import urllib3
from tqdm.auto import tqdm

from ..errors import ImageError
from .refusals import GIVE_PATH, damaged, explain, incomplete, too_big

SHOW_AFTER = 2  # seconds before there is a progress bar
_PIECE = 64 * 1024


class _Bar(tqdm):
    monitor_interval = 0  # tqdm would leave a thread behind


def read(answer, host, max_bytes, progress):
    """All bytes of a requests answer, at most max_bytes, unpacked. Raises ImageError."""
    announced = _length(answer.headers.get("Content-Length", ""))
    if announced is not None and announced > max_bytes:
        raise too_big(host, max_bytes)
    body = bytearray()
    try:
        for piece in _unpacked(_pieces(answer, host, announced, progress), answer, host):
            body += piece
            if len(body) > max_bytes:
                raise too_big(host, max_bytes)
    except ImageError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise explain(host, error) from None  # theirs may show the whole address
    return bytes(body)


def _pieces(answer, host, announced, progress):
    """What comes, as it was packed."""
    came = 0
    with _Bar(
        desc=host,
        total=announced,
        unit="B",
        unit_scale=True,
        delay=SHOW_AFTER,
        leave=False,
        disable=not progress,
    ) as bar:
        for piece in answer.raw.stream(_PIECE, decode_content=False):
            came += len(piece)
            bar.update(len(piece))
            yield piece
    if announced is not None and came < announced and not answer.raw.chunked:
        raise incomplete(host)  # urllib3 before 2 does not mind


def _unpacked(pieces, answer, host):
    """Small pieces of what was packed, as few bytes may stand for gigabytes: urllib3 would unpack them at once."""
    coding = answer.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        yield from pieces
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ImageError(f"{host} sent the picture packed in a way that was not asked for.", GIVE_PATH)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib
    try:
        for piece in pieces:
            while piece:
                if unpacker.eof:  # gzip: one part may follow another
                    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
                yield unpacker.decompress(piece, _PIECE)
                piece = unpacker.unconsumed_tail or unpacker.unused_data
        yield unpacker.flush()
    except zlib.error as error:
        raise damaged(host) from error
    if not unpacker.eof:
        raise incomplete(host)


def _length(text):
    """Content-Length as a number, or None where it is none."""
    return int(text[:15]) if text.isascii() and text.isdigit() else None
