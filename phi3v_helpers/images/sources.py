"""A picture from anywhere -> an RGB PIL image."""

from PIL import Image

from ..errors import ImageError
from . import fetching, web_cache
from .arrays import from_array, is_array
from .decoding import decode, from_pil
from .reading import read


def load_image(source, *, timeout=fetching.TIMEOUT, max_bytes=fetching.MAX_BYTES, allow_private=False):
    """Open a picture.

    source: one of
        a path (str or Path, "~" allowed) or a file:// address, of at most 500 MiB;
        an http(s) address; a data address ("data:image/png;base64,…");
        the bytes of a picture file; a file object that gives such bytes, read from where it stands;
        a PIL image;
        an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a PyTorch tensor of shape (H, W) or
        (1, 3 or 4, H, W), of uint8 from 0 to 255, floats from 0 to 1, or bool.
    A file may be PNG, JPEG, WebP, GIF, BMP, TIFF, JPEG 2000, PPM, TGA, ICO, AVIF, HEIC (needs pillow-heif), or a PDF
    document of one page (needs pypdfium2), whatever its name says, of at most 120 megapixels.
    timeout: (seconds to connect, seconds without a byte). max_bytes: the most that is downloaded, or read from a data
    address or a file object. allow_private: whether addresses within your own network may be fetched too.
    Returns a new RGB PIL image, upright, on white, of the first frame where there are several.
    Raises ImageError, which says what was wrong and what to do.
    """
    if isinstance(source, Image.Image):
        return from_pil(source)
    if is_array(source):
        return from_pil(from_array(source))
    try:
        return decode(*read(source, timeout, max_bytes, allow_private))
    except ImageError:
        if isinstance(source, str):
            web_cache.forget(source.strip())  # what came from there may be right next time
        raise


def load_images(sources):
    """None, one source, or a list or iterator of sources -> a list of RGB PIL images (see `load_image`).

    None gives []. Raises ImageError, which names the picture by its number.
    """
    if sources is None:
        return []
    if isinstance(sources, (list, tuple)):
        total = f" of {len(sources)}"
    elif hasattr(sources, "__next__") and not hasattr(sources, "read"):  # a file is an iterator too
        total = ""
    else:
        return [load_image(sources)]
    images = []
    for number, source in enumerate(sources, start=1):
        try:
            images.append(load_image(source))
        except ImageError as error:
            raise ImageError(f"Picture {number}{total}: {error.what}", error.advice) from error
    if not images:
        raise ImageError(
            "The list of pictures is empty.", "Give at least one picture, or None to ask without one."
        )
    return images
