"""A picture from anywhere -> an RGB PIL image.

Turned upright as its EXIF data says, and with white behind what is transparent: the model's own processor
would drop transparency, which leaves black or random colours there.
"""

import io
import os
import re
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from . import fetching

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_AGAIN = "Save or download the picture again."
# what Pillow raises for broken files, depending on the format and on where they are broken
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error)


def load_image(source, *, timeout=fetching.TIMEOUT, max_bytes=fetching.MAX_BYTES):
    """Open a picture.

    source: a path (str or Path, "~" allowed), an http(s) address, the bytes of a picture file,
        a PIL image, or an array of uint8 from 0 to 255 or floats from 0 to 1, of shape (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4).
    timeout: (seconds to connect, seconds without a byte). max_bytes: the most that is downloaded.
    Returns a new RGB PIL image, of the first frame where there are several.
    Raises ImageError, which says what was wrong and what to do.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, "The picture")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), "The picture given as bytes")
    if isinstance(source, str) and _ADDRESS.match(source):
        data = fetching.download(source, timeout, max_bytes)
        return _decode(io.BytesIO(data), "What the address holds", "Give the address of the picture itself.")
    if isinstance(source, (str, os.PathLike)):
        return _open_file(source)
    if hasattr(source, "__array__"):
        return _upright_rgb(_from_array(np.asarray(source)), "The array")
    raise ImageError(
        f"A {type(source).__name__} is no picture.",
        "Give a path, an address, bytes, an array or a PIL image.",
    )


def load_images(sources):
    """None, one source or a list of sources -> a list of RGB PIL images (see `load_image`); None gives []."""
    if sources is None:
        return []
    if not isinstance(sources, (list, tuple)):
        return [load_image(sources)]
    if not sources:
        raise ImageError(
            "The list of pictures is empty.", "Give at least one picture, or None to ask without one."
        )
    images = []
    for number, source in enumerate(sources, start=1):
        try:
            images.append(load_image(source))
        except ImageError as error:
            raise ImageError(f"Picture {number} of {len(sources)}: {error.what}", error.advice) from error
    return images


def _open_file(source):
    """The picture in a file of this machine."""
    if not str(source):
        raise ImageError("The path is empty.", "Give the path of a picture.")
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            raise ImageError(f"{_short(path)} is a folder.", "Give the path of one picture in it.")
        with path.open("rb") as file:
            return _decode(file, _short(path))
    except FileNotFoundError as error:
        raise ImageError(
            f"There is no file {_short(path)}.", f"Check the path; you are in {os.getcwd()!r}."
        ) from error
    except ImageError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a NUL in the name, "~nobody"
        reason = getattr(error, "strerror", None) or error
        raise ImageError(
            f"{_short(source)} cannot be opened ({reason}).", "Check its name and permissions."
        ) from error


def _decode(file, what, advice="Give a PNG, JPEG, WebP, GIF, BMP or TIFF picture."):
    """The picture in a binary file object; `what` names it in errors."""
    head = file.read(1000)
    file.seek(0)
    if not head:
        raise ImageError(f"{what} is empty (0 bytes).", _AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's: large pictures, broken EXIF data
            with Image.open(file) as image:
                return _upright_rgb(image, what)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{what} has more pixels than is safe to open.", "Use a smaller version.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{what} is {_kind(head)}.", advice) from error
    except _DAMAGE as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{what} is damaged or incomplete.", _AGAIN) from error


def _kind(head):
    """What the first bytes of something that is no picture look like, in words."""
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "an SVG drawing, which is text and not pixels"
    if head.startswith((b"<!doctype html", b"<html")) or b"<html" in head:
        return "a web page, not a picture"
    if head.startswith(b"%pdf"):
        return "a PDF document, not a picture"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "a HEIC or AVIF picture, which this Pillow cannot read"
    return "not a picture that Pillow knows"


def _upright_rgb(image, what):
    """EXIF orientation applied, white behind transparency, every mode turned into RGB."""
    if 0 in image.size:
        raise ImageError(
            f"{what} has no pixels: {image.width} x {image.height}.", "Give a picture with pixels."
        )
    try:
        image.load()
    except _DAMAGE as error:
        raise ImageError(f"{what} is damaged or incomplete.", _AGAIN) from error
    try:
        image = ImageOps.exif_transpose(image)
    except _DAMAGE:
        pass  # broken EXIF data, sound pixels
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep(image)
    try:
        if not image.has_transparency_data:
            return image.convert("RGB")
        layer = image.convert("RGBA")
    except ValueError as error:
        raise ImageError(f"{what} has the colour mode {image.mode}.", "Save it as an RGB picture.") from error
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _from_deep(image):
    """16 bits, 32 bits or floats a pixel -> RGB of 8 bits. Pillow's own conversion would clip to white."""
    values = np.asarray(image).astype(np.float64)
    top = values.max(initial=0.0, where=np.isfinite(values))
    if image.mode.startswith("I;16"):
        white = 65535
    elif image.mode == "F" and top <= 1:
        white = 1
    else:  # "I" holds 16-bit pictures too; small numbers are 8-bit ones
        white = 255 if top <= 255 else max(top, 65535)
    grey = np.nan_to_num(values).clip(0, white) * (255 / white)
    return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _from_array(array):
    """Array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) -> PIL image."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]  # (H, W)
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"The array has the shape {array.shape}.", _shape_advice(array))
    if array.size == 0:
        raise ImageError(
            f"The array has no pixels: its shape is {array.shape}.", "Give a picture with pixels."
        )
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (0 <= low and high <= 1):  # also when NaN
            raise ImageError(
                f"The array holds floats from {low:g} to {high:g}.",
                'Scale them to 0..1, or give 0..255 as `array.astype("uint8")`.',
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(
            f"The array is of type {array.dtype}.", "Give uint8 from 0 to 255, or floats from 0 to 1."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _shape_advice(array):
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        return "Put the colours last: `np.moveaxis(array, 0, -1)`."
    if array.ndim == 4:
        return "For several pictures give a list of arrays: `list(array)`."
    return "Give height x width, or height x width x 3 (RGB) or 4 (with transparency)."


def _short(value):
    """A path or address that fits into a sentence."""
    text = str(value)
    return repr(text if len(text) <= 80 else f"{text[:40]}…{text[-30:]}")
