"""The pictures that a question is about, in their order, and how to write them down as code.

Knows no widgets.
"""

import io
import itertools
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .. import samples
from ..images import load_image

# Where uploaded pictures go when they are to be used from code, beside the notebook.
FOLDER = "phi3v-pictures"
_LONGEST = 50  # characters of a file's name, before its ending
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


# Without eq, as two of them are never the same: else their pixels would be compared, and none could be a key.
@dataclass(frozen=True, eq=False)
class Picture:
    """One picture. kind: "sample", "path", "address", "upload" (its bytes are the source) or "given"."""

    key: int
    image: Image.Image
    name: str
    kind: str
    source: object

    @property
    def alt(self):
        return samples.info(self.source)["alt"] if self.kind == "sample" else self.name


class Tray:
    """Pictures in order. on_change() is called after every change.

    May be used from several threads. `pictures` is never changed in place: who has got the list keeps it as it was.
    """

    def __init__(self, on_change=lambda: None):
        self.pictures = []
        self.on_change = on_change
        self._keys = itertools.count(1)
        self._lock = threading.RLock()  # on_change may come back in

    @property
    def images(self):
        return [picture.image for picture in self.pictures]

    def add(self, source, name=None):
        """Take a picture: a name of a shipped one, or what `load_image` takes; `name` is for bytes.

        Returns the Picture. Raises ImageError, and all is as it was.
        """
        if isinstance(source, str):
            source = source.strip()
        kind = _kind(source)
        image = samples[source] if kind == "sample" else load_image(source)
        picture = Picture(next(self._keys), image, name or _name(source, kind, image), kind, source)
        self._change(lambda pictures: [*pictures, picture])
        return picture

    def remove(self, key):
        self._change(lambda pictures: [picture for picture in pictures if picture.key != key])

    def move(self, key, by):
        """Move a picture by so many places; it stops at the ends."""
        self._change(lambda pictures: _moved(pictures, key, by))

    def clear(self):
        self._change(lambda pictures: [])

    def _change(self, changed):
        with self._lock:
            self.pictures = changed(self.pictures)
            self.on_change()

    def as_code(self, folder=FOLDER):
        """A Python expression for each picture, list of str.

        Pictures that exist only here are written to `folder`, as they came: code needs a file to read.
        Raises OSError.
        """
        return [_expression(picture, folder) for picture in self.pictures]


def add_all(tray, sources):
    """The tray, with these pictures added: None, one source or a list. Raises ImageError."""
    if sources is None:
        return tray
    for source in sources if isinstance(sources, (list, tuple)) else [sources]:
        tray.add(source)
    return tray


def _moved(pictures, key, by):
    place = next((place for place, picture in enumerate(pictures) if picture.key == key), None)
    if place is None:  # removed a moment ago
        return pictures
    others = [picture for picture in pictures if picture.key != key]
    there = min(max(place + by, 0), len(others))
    return [*others[:there], pictures[place], *others[there:]]


def _kind(source):
    if isinstance(source, str) and source in samples:
        return "sample"
    if isinstance(source, str):
        return "address" if _ADDRESS.match(source) else "path"
    if isinstance(source, os.PathLike):
        return "path"
    return "upload" if isinstance(source, (bytes, bytearray, memoryview)) else "given"


def _name(source, kind, image):
    if kind == "sample":
        return samples.info(source)["title"]
    if kind in ("path", "address"):
        return re.split(r"[/\\]", str(source).split("?")[0].rstrip("/\\"))[-1]
    return f"picture of {image.width} x {image.height}"


def _expression(picture, folder):
    if picture.kind == "sample":
        return f'p3v.samples["{picture.source}"]'
    if picture.kind in ("path", "address"):
        return repr(str(picture.source))
    return repr(_write(picture, Path(folder)).as_posix())


def _write(picture, folder):
    """The file of a picture that came without one. The same picture is not written twice, others stay.

    The name is a stranger's: it must not lead out of the folder, nor make a program of the file.
    """
    stem = re.sub(r"[^\w.-]+", "-", Path(picture.name).stem)[:_LONGEST].strip("-.") or "picture"
    ending = Path(picture.name).suffix.lower()
    if picture.kind != "upload" or ending not in Image.registered_extensions():
        ending = ".png"
    content = bytes(picture.source) if picture.kind == "upload" else _png(picture.image)
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}{ending}"
        try:
            with path.open("xb") as file:  # fails where something is there, even if it came this moment
                file.write(content)
            return path
        except FileExistsError:
            if path.is_file() and path.read_bytes() == content:
                return path


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
