"""The frames of a video, decoded by PyAV (FFmpeg).

FFmpeg opens what it is told to: playlists and other lists of files could make it read any file or address. So it is
given an open file and the name of its container, and can open nothing else.
"""

import time
from bisect import bisect_right
from itertools import chain

from ..errors import ImageError
from .guards import MAX_PIXELS
from .moving import check_together, spread

MAX_SECONDS = 60  # for all frames of a video
INDEX_SECONDS = 10  # for a list of all its frames; without one, the times are guessed from its length

_AGAIN = "Save or download the video again."


def video_frames(file, what, kind, n):
    """n frames of a video, evenly spread: list of RGB PIL images.

    file: binary, seekable, at its start. what: what to call it in errors. kind: Kind, of a video.
    Raises ImageError: no pictures but sound, damaged, incomplete, too large, too slow.
    """
    try:
        import av
    except ImportError as error:
        raise ImageError(
            f"{what} is {kind.name}, and needs a reader of its own.",
            'Install it: pip install "phi3v-helpers[video]" (or save some of its pictures).',
        ) from error
    file = _Timed(file)

    def opened():
        file.seek(0)
        options = {"max_pixels": str(MAX_PIXELS), "protocol_whitelist": "none"}
        return av.open(file, format=kind.container, options=options, io_open=_nothing_else)

    try:
        with opened() as container:
            stream = _pictures(container, what)
            times, keys = _plan(container, stream, what, n)
            check_together((stream.codec_context.width, stream.codec_context.height), len(times), what)
        with opened() as container:
            return _at(container, _pictures(container, what), times, keys, what)
    except ImageError:
        raise
    except TimeoutError as error:
        raise ImageError(
            f"{what} is a video that takes more than {MAX_SECONDS} s to read.",
            "Cut a shorter part out of it.",
        ) from error
    except (Exception, MemoryError) as error:  # FFmpeg's errors, of a dozen kinds
        raise ImageError(f"{what} is {kind.name}, and damaged or incomplete.", _AGAIN) from error


class _Timed:
    """A file that can be read for MAX_SECONDS: FFmpeg may search damaged ones for long."""

    def __init__(self, file):
        self._file = file
        self._deadline = time.monotonic() + MAX_SECONDS
        self.seek, self.tell = file.seek, file.tell

    def check(self):
        if time.monotonic() > self._deadline:
            raise TimeoutError

    def read(self, size):
        self.check()
        return self._file.read(size)


def _nothing_else(url, flags, options):
    raise PermissionError("a video may not open other files")


def _pictures(container, what):
    """The stream of pictures; the cover of a record is none."""
    for stream in container.streams.video:
        cover = getattr(getattr(stream, "disposition", None), "attached_pic", None)
        if not (cover and stream.disposition & cover):
            return stream
    if not container.streams.audio:
        raise ValueError("no streams")
    raise ImageError(f"{what} has sound, but no moving pictures.", "Give a video or a picture.")


def _plan(container, stream, what, n):
    """The times of n frames, in units of the stream, and of all frames that need no other (None: unknown)."""
    times, keys, started = [], [], time.monotonic()
    for packet in container.demux(stream):
        when = packet.pts if packet.pts is not None else packet.dts
        if when is None or not packet.size or getattr(packet, "is_discard", False):
            continue
        times.append(when)
        if packet.is_keyframe:
            keys.append(when)
        if time.monotonic() - started > INDEX_SECONDS:
            return _guess(container, stream, n), None
    if not times or len(times) < 0.9 * stream.frames:
        raise ImageError(f"{what} is a video that is damaged or incomplete.", _AGAIN)
    times.sort()
    return [times[index] for index in spread(len(times), n)], sorted(keys)


def _guess(container, stream, n):
    """Evenly spread times within the length that the file says it has."""
    length = stream.duration or int((container.duration or 0) / 1e6 / stream.time_base)
    if length <= 0:
        raise TimeoutError
    start = stream.start_time or 0
    return [start + index for index in spread(length + 1, n)]


def _at(container, stream, times, keys, what):
    """The first frame at or after each of these times, in order; at the end, the last one."""
    coming, frame, now, pictures = _decoded(container, stream), None, None, {}
    for wanted in times:
        if now is not None and _worth_a_jump(keys, now, wanted):
            coming = _jump(container, stream, coming, wanted, keys)
        while now is None or now < wanted:
            following = next(coming, None)
            if following is None:
                break
            frame, now = following, _when(following)
        if frame is None:
            raise ValueError("no frame can be decoded")
        if now not in pictures:
            check_together((frame.width, frame.height), len(times), what)
            pictures[now] = _upright(frame)
    return list(pictures.values())


def _worth_a_jump(keys, now, wanted):
    """Whether there is a frame to start from between two times: else what follows is decoded anyway."""
    return now < wanted and (keys is None or bisect_right(keys, now) < bisect_right(keys, wanted))


def _jump(container, stream, coming, wanted, keys):
    """The frames from some time up to `wanted` on; `coming`, where the container cannot jump at all.

    Some containers jump too far: then from further back.
    """
    if keys is None:
        keys = [wanted - int(seconds / stream.time_base) for seconds in (60, 10, 3, 1)]
    last = bisect_right(keys, wanted) - 1
    for start in (wanted, keys[max(last - 1, 0)], keys[max(last - 3, 0)], keys[0]):
        try:
            container.seek(start, stream=stream)
        except OSError:
            continue
        coming = _decoded(container, stream)
        first = next(coming, None)
        if first is not None:
            coming = chain([first], coming)
            if _when(first) <= wanted:
                break
    return coming


def _when(frame):
    when = frame.pts if frame.pts is not None else frame.dts
    if when is None:
        raise ValueError("a frame without a time")
    return when


def _decoded(container, stream):
    """The frames from where the container stands; what cannot be decoded is left out."""
    import av

    for packet in container.demux(stream):
        try:
            found = packet.decode()
        except av.error.FFmpegError:
            continue
        for frame in found:
            if not frame.is_corrupt:
                yield frame


def _upright(frame):
    """A frame -> RGB PIL image, turned as phones note down how they were held."""
    image = frame.to_image().convert("RGB")
    turn = getattr(frame, "rotation", 0)
    return image.rotate(turn, expand=True) if turn else image
