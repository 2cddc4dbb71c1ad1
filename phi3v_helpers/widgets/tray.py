"""The pictures that a question is about, in their order, and how to write them down as code.

Knows no widgets.
"""

import io
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .. import samples
from ..images import load_image

FOLDER = (
    "phi3v-pictures"  # where uploaded pictures go when they are to be used from code, beside the notebook
)
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
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
    """Pictures in order. on_change() is called after every change."""

    def __init__(self, on_change=lambda: None):
        self.pictures = []
        self.on_change = on_change
        self._keys = itertools.count(1)

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
        self.pictures.append(picture)
        self.on_change()
        return picture

    def remove(self, key):
        self.pictures = [picture for picture in self.pictures if picture.key != key]
        self.on_change()

    def move(self, key, by):
        """Move a picture by so many places; it stops at the ends."""
        place = next((i for i, picture in enumerate(self.pictures) if picture.key == key), None)
        if place is None:  # removed a moment ago
            return
        picture = self.pictures.pop(place)
        self.pictures.insert(min(max(place + by, 0), len(self.pictures)), picture)
        self.on_change()

    def clear(self):
        self.pictures = []
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
    """The file of a picture that came without one. The same picture is not written twice, others stay."""
    stem = re.sub(r"[^\w.-]+", "-", Path(picture.name).stem).strip("-.") or "picture"
    if picture.kind == "upload":
        content, ending = bytes(picture.source), Path(picture.name).suffix or ".png"
    else:
        content, ending = _png(picture.image), ".png"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}{ending}"
        if not path.exists():
            path.write_bytes(content)
            return path
        if path.read_bytes() == content:
            return path


def _png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
