"""The bytes of a picture file -> an RGB PIL image.

Turned upright as its EXIF data says, and with white behind what is transparent: the model's own processor
would drop transparency, which leaves black or random colours there. Colour profiles are left alone.
"""

import io
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, features

from ..errors import ImageError
from .guards import LIMITS, MAX_EXIF, MAX_PIXELS, suspicion
from .kinds import PDF, kind_of

MAX_SECONDS = 30  # for one picture; some rare formats are decoded in Python, slowly

_AGAIN = "Save or download the picture again."
_SMALLER = "Use a smaller version of it."
_SUBFILE, _REDUCED = 254, 1  # a TIFF's tag, and what it says of a preview
_STRIP = 4_000_000  # pixels whose numbers are scaled at a time


def decode(data, what):
    """The picture in a file; the first one where there are several, and the page of a PDF that has just one.

    data: bytes. what: what to call it in errors, as the start of a sentence.
    Raises ImageError: not a picture, damaged, incomplete, too large or unsafe.
    """
    kind = kind_of(data)
    if kind is PDF:
        from .documents import only_page

        return only_page(data, what)
    with opened(data, what, kind) as image:
        return upright_rgb(image, ours=True)


@contextmanager
def opened(data, what, kind):
    """A picture file, open as a PIL image whose pixels are not decoded yet. Within, every error is an ImageError."""
    if not data:
        raise ImageError(f"{what} is empty (0 bytes).", _AGAIN)
    if not kind.format:
        raise ImageError(f"{what} is {kind.name}.", kind.advice)
    if reason := suspicion(data, kind.format):
        raise ImageError(f"{what} is {kind.name} that is not safe to open: {reason}.", _AGAIN)
    with _quiet(), _explained(f"{what} is {kind.name} that"):
        with _open(data, what, kind) as image:
            check_size(image.size, what, LIMITS.get(kind.format, MAX_PIXELS))
            if kind.format == "TIFF" and image.tag_v2.get(_SUBFILE, 0) & _REDUCED:
                raise ImageError(
                    f"{what} begins with a small preview, as raw pictures do.", "Export it as JPEG."
                )
            yield image


def _open(data, what, kind):
    file = _Clocked(data)
    if kind.format == "HEIF":
        try:
            from pillow_heif import HeifImageFile  # used directly: its opener would change Pillow for all
        except ImportError as error:
            raise ImageError(
                f"{what} is a HEIC picture, which needs a reader of its own.",
                'Install it: pip install "phi3v-helpers[heic]" (or export the picture as JPEG).',
            ) from error
        return HeifImageFile(file)
    if kind.format == "AVIF" and "avif" not in features.get_supported():
        raise ImageError(
            f"{what} is an AVIF picture, which this Pillow cannot read.",
            "Install a newer one: pip install --upgrade pillow (or export the picture as JPEG).",
        )
    return Image.open(file, formats=[kind.format])


class _Clocked(io.BytesIO):
    """A file in memory that can be read for MAX_SECONDS."""

    def __init__(self, data):
        super().__init__(data)
        self._deadline = time.monotonic() + MAX_SECONDS

    def read(self, size=-1):
        if time.monotonic() > self._deadline:
            raise TimeoutError
        return super().read(size)


@contextmanager
def _explained(what):
    """Turns whatever a decoder raises over a hostile file into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(f"{what} needs more memory than there is.", _SMALLER) from error
    except TimeoutError as error:
        raise ImageError(
            f"{what} takes more than {MAX_SECONDS} s to read.", "Save it as PNG or JPEG."
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{what} has more pixels than is safe to open.", _SMALLER) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds, depending on where a file is broken
        raise ImageError(f"{what} is damaged or incomplete.", _AGAIN) from error


_quiet_lock = threading.Lock()
_quiet_count = 0
_loud = None


@contextmanager
def _quiet():
    """No warnings of Pillow's about large pictures and broken EXIF data.

    Filters of warnings are one for all threads: the first that comes in sets ours, the last that goes puts back theirs.
    """
    global _quiet_count, _loud
    with _quiet_lock:
        _quiet_count += 1
        if _quiet_count == 1:
            _loud = warnings.catch_warnings()
            _loud.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if _quiet_count == 0:
                _loud.__exit__(None, None, None)


def check_size(size, what, most=MAX_PIXELS):
    """Refuses a size (width, height) that has no pixels, or too many."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{what} has no pixels: {width} x {height}.", "Give a picture with pixels.")
    if width * height > most:
        raise ImageError(f"{what} has more pixels than is safe to open: {width} x {height}.", _SMALLER)


def from_pil(image):
    """A PIL image of the user's -> a new one that is upright and RGB. It may be of any size."""
    if 0 in image.size:
        raise ImageError(
            f"The picture has no pixels: {image.width} x {image.height}.", "Give a picture with pixels."
        )
    with _quiet(), _explained("The picture"):
        return upright_rgb(image)


def upright_rgb(image, ours=False):
    """A new RGB PIL image: EXIF orientation applied, white behind transparency. `ours`: `image` may be changed."""
    image.load()
    image = image if ours else image.copy()
    if len(image.info.get("exif") or b"") <= MAX_EXIF:
        try:
            ImageOps.exif_transpose(image, in_place=True)
        except Exception:
            pass  # broken EXIF data, sound pixels
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    if image.mode == "La":
        image = image.convert("LA")  # the only way that Pillow knows
    if image.mode != "RGBA" and not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGB", image.size, "white")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    page.paste(layer, mask=layer)
    return page


def _from_deep(image):
    """16 bits, 32 bits or floats a pixel -> RGB of 8 bits. Pillow's own conversion would clip to white."""
    strips = _strips(image)
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        numbers = (np.asarray(image.crop(box)) for box in strips)  # (rows, W)
        top = max(float(part.max(initial=0, where=np.isfinite(part))) for part in numbers)
        if image.mode == "F" and top <= 1:
            white = 1
        else:  # "I" holds 16-bit pictures too; small numbers are 8-bit ones
            white = 255 if top <= 255 else max(top, 65535)
    result = Image.new("RGB", image.size)
    for box in strips:
        with np.errstate(invalid="ignore"):  # some bits are no number
            values = np.nan_to_num(np.asarray(image.crop(box)).astype(np.float64))
        grey = values.clip(0, white) * (255 / white)
        result.paste(Image.fromarray(grey.round().astype(np.uint8)).convert("RGB"), box)
    return result


def _strips(image):
    """Boxes (left, top, right, bottom) of whole rows that make up a picture, so that little is scaled at a time."""
    rows = max(_STRIP // image.width, 1)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
