"""The pages of a PDF document as pictures, drawn by pypdfium2 (`pip install "phi3v-helpers[pdf]"`)."""

import operator
import threading
from contextlib import contextmanager

from ..errors import ImageError
from . import fetching
from .kinds import PDF, kind_of
from .reading import read

DPI = 150
MAX_PAGE_PIXELS = 40_000_000  # larger pages are drawn smaller; A2 at 300 dots per inch fits
MAX_PAGE_SIDE = 30_000  # pixels

_lock = threading.RLock()  # PDFium may run in one thread at a time


def pages(
    source,
    numbers=None,
    dpi=DPI,
    *,
    timeout=fetching.TIMEOUT,
    max_bytes=fetching.MAX_BYTES,
    allow_private=False,
):
    """The pages of a PDF document, one after the other.

    source: as in `load_image`: a path, an address, bytes or a file object.
    numbers: None for all pages, one number or a list of numbers, counted from 1.
    dpi: pixels an inch; a page of more than 40 megapixels is drawn smaller.
    timeout, max_bytes, allow_private: as in `load_image`.
    Returns an iterator of RGB PIL images, each drawn when it is asked for: model.ask(p3v.pages("letter.pdf"), "…").
    Raises ImageError: no PDF document, damaged, encrypted, no such page.
    """
    data, what = read(source, timeout, max_bytes, allow_private)
    if (kind := kind_of(data)) is not PDF:
        raise ImageError(f"{what} is no PDF document: it is {kind.name}.", "Give a PDF document.")
    if not isinstance(dpi, (int, float)) or not 0 < dpi < float("inf"):
        raise ImageError(f"dpi is {dpi!r}.", "Give a number of pixels an inch, such as 150.")
    with open_document(data, what) as document:
        wanted = _numbers(numbers, len(document))
    return _drawn(data, what, wanted, dpi)


def only_page(data, what):
    """The page of a PDF document of one page: RGB PIL image. Raises ImageError where there are more."""
    with open_document(data, what) as document:
        count = len(document)
        if count != 1:
            raise ImageError(
                f"{what} is a PDF document of {count} pages.",
                'Choose some: p3v.pages("…", [1, 2]) gives pictures.',
            )
        return _draw(document, 0, DPI, what)


def _drawn(data, what, numbers, dpi):
    for number in numbers:
        with open_document(data, what) as document:
            image = _draw(document, number - 1, dpi, f"Page {number} of it")
        yield image


@contextmanager
def open_document(data, what):
    """An open document, for one thread at a time; forms are drawn as they are filled in.

    Never kept open while pages are handed out: whoever takes them may stop midway, and in another thread.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise ImageError(
            f"{what} is a PDF document, which needs a reader of its own.",
            'Install it: pip install "phi3v-helpers[pdf]" (or save the page as PNG).',
        ) from error
    with _lock:
        try:
            document = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise ImageError(
                    f"{what} is a PDF document that is encrypted.", "Save it without a password first."
                ) from error
            raise _damaged(what) from error
        try:
            if document.get_formtype():
                document.init_forms()
            yield document
        finally:
            document.close()


def _draw(document, index, dpi, what):
    """Page number index (from 0) -> RGB PIL image."""
    page = None
    try:
        page = document[index]
        width, height = page.get_size()  # points, 72 an inch
        most = min((MAX_PAGE_PIXELS / (width * height)) ** 0.5, MAX_PAGE_SIDE / max(width, height))
        scale = min(dpi / 72, most) * 0.999_999  # sides are rounded up: 40.000_000_1 pixels must not be 41
        bitmap = page.render(scale=scale)
        image = bitmap.to_pil().convert("RGB")
        bitmap.close()
        return image
    except (Exception, MemoryError) as error:  # PdfiumError, and what absurd sizes bring about
        raise _damaged(what) from error
    finally:
        if page is not None:
            page.close()


def _damaged(what):
    return ImageError(
        f"{what} is a PDF document that is damaged or incomplete.", "Save or download it again."
    )


def _numbers(numbers, count):
    """None, a number or several -> a list of numbers from 1 to count."""
    if numbers is None:
        return range(1, count + 1)
    try:
        numbers = [operator.index(numbers)]
    except TypeError:
        pass
    try:
        wanted = [operator.index(number) for number in numbers]
    except TypeError as error:
        raise ImageError(
            f"numbers is {str(numbers)[:60]!r}.", "Give the number of one page or a list of them, from 1 on."
        ) from error
    for number in wanted:
        if not 1 <= number <= count:
            raise ImageError(
                f"There is no page {number}: the document has {count} of them.",
                f"Give numbers from 1 to {count}.",
            )
    return wanted
