"""Pictures from what moves: animations (by Pillow) and videos (by PyAV, `pip install "phi3v-helpers[video]"`)."""

import io
import operator
import time

from ..errors import ImageError
from . import fetching
from .decoding import MAX_SECONDS, check_size, opened, upright_rgb
from .kinds import kind_of
from .reading import is_path, open_file, read

MAX_FRAMES = 1000
MAX_TOGETHER = 300_000_000  # pixels of all frames together, 1.2 GB

_PAGES = ("TIFF", "HEIF")  # each of their pictures is complete by itself
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF", *_PAGES)
_HEAD = 64 * 1024  # bytes that tell a video


def frames(source, n=8, *, timeout=fetching.TIMEOUT, max_bytes=fetching.MAX_BYTES, allow_private=False):
    """Pictures from an animation (GIF, WebP, PNG, AVIF), the pages of a TIFF, or a video, evenly spread.

    source: as in `load_image`: a path, an address, bytes or a file object.
    n: int, how many; the first and the last one are among them where n > 1. All, where there are fewer.
    timeout, max_bytes, allow_private: as in `load_image`; a video on this machine may be of any size.
    Returns a list of RGB PIL images: model.ask(p3v.frames("clip.mp4", 4), "What happens?").
    Raises ImageError: nothing that moves, damaged, no picture but sound, too large, too slow to read.
    """
    n = _number(n)
    if is_path(source):
        with open_file(source) as (file, what):
            kind = kind_of(file.read(_HEAD))
            if kind.container:
                file.seek(0)
                return _video(file, what, kind, n)
    data, what = read(source, timeout, max_bytes, allow_private)
    kind = kind_of(data)
    if kind.container:
        return _video(io.BytesIO(data), what, kind, n)
    return _animation(data, what, kind, n)


def _number(n):
    try:
        count = operator.index(n)
    except TypeError:
        count = 0
    if not 1 <= count <= MAX_FRAMES:
        raise ImageError(f"n is {n!r:.60}.", f"Give a number of frames, from 1 to {MAX_FRAMES}.")
    return count


def _video(file, what, kind, n):
    from .videos import video_frames

    return video_frames(file, what, kind, n)


def spread(count, n):
    """n whole numbers from 0 to count - 1, evenly spread; fewer, where count is less."""
    if count <= n:
        return list(range(count))
    return [round(index * (count - 1) / max(n - 1, 1)) for index in range(n)]


def check_together(size, n, what):
    """Refuses n frames of a size (width, height) that would not fit into memory together."""
    check_size(size, what)
    if size[0] * size[1] * n > MAX_TOGETHER:
        raise ImageError(
            f"{what} has large frames of {size[0]} x {size[1]} pixels: {n} of them need too much memory.",
            f"Ask for fewer: n={MAX_TOGETHER // (size[0] * size[1])}.",
        )


def _animation(data, what, kind, n):
    """Whatever Pillow composes the frames of, one at a time is kept."""
    with opened(data, what, kind) as image:
        count = image.n_frames if kind.format in _ANIMATED and hasattr(image, "n_frames") else 1
        wanted = spread(count, n)
        deadline = time.monotonic() + MAX_SECONDS
        taken = []
        for index in wanted:
            if kind.format not in _PAGES:
                _step(image, index, deadline)
            image.seek(index)
            check_together(image.size, len(wanted), what)
            taken.append(upright_rgb(image))
        return taken


def _step(image, index, deadline):
    """Decode the frames before this one, each of which builds on the last: in one go that could take for ever."""
    for step in range(image.tell() + 1, index):
        if time.monotonic() > deadline:
            raise TimeoutError
        image.seek(step)
        image.load()
