"""Pages of PDF documents as pictures."""

import io
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from corpus import corpus, encode, numbered, picture
from helpful import helpful
from server import send, serve

from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import documents, load_image, load_images, pages

pytest.importorskip("pypdfium2")


def pdf(count=3):
    """A document whose pages are `numbered` pictures of 40 x 28 pixels at 150 dots per inch."""
    first, *rest = numbered(count)
    return encode(first, "PDF", save_all=True, append_images=rest, resolution=150)


def blank(*sizes):
    """A document of empty pages of these (width, height), in points."""
    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    for size in sizes:
        document.new_page(*size).close()
    file = io.BytesIO()
    document.save(file)
    document.close()
    return file.getvalue()


def written(*objects, trailer=b""):
    """A document of these objects, numbered from 1; the first is its catalogue."""
    body, places = b"%PDF-1.7\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    start = len(body)
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
        + b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, start)
    )


PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"


def greys(images):
    return [image.getpixel((20, 14))[0] for image in images]


def test_all_pages_in_order():
    images = list(pages(pdf(3)))
    assert greys(images) == [0, 128, 255]
    assert {(image.mode, image.size) for image in images} == {("RGB", (40, 28))}


def test_some_pages():
    document = pdf(3)
    assert greys(pages(document, [3, 1])) == [255, 0]
    assert greys(pages(document, 2)) == [128]
    assert greys(pages(document, range(2, 4))) == [128, 255]
    assert greys(pages(document, np.int64(3))) == [255]


@pytest.mark.parametrize("numbers", [0, 4, -1, [1, 4], 10**30])
def test_a_page_that_is_not_there(numbers):
    with helpful(ImageError, "There is no page", "1 to 3"):
        pages(pdf(3), numbers)


@pytest.mark.parametrize("numbers", ["1", "all", 1.5, [1.0], [None], {"a": 1}])
def test_numbers_that_are_none(numbers):
    with helpful(ImageError, "numbers is"):
        pages(pdf(1), numbers)


def test_pages_from_everywhere(tmp_path):
    data = pdf(2)
    (tmp_path / "letter.pdf").write_bytes(data)
    sources = [tmp_path / "letter.pdf", str(tmp_path / "letter.pdf"), data, bytearray(data), io.BytesIO(data)]
    for source in sources:
        assert greys(pages(source)) == [0, 255]
    with serve(lambda h: send(h, data)) as server:
        assert greys(pages(server.url, allow_private=True)) == [0, 255]


def test_pages_go_where_pictures_go():
    assert greys(load_images(pages(pdf(3), [1, 3]))) == [0, 255]


def test_dots_per_inch():
    (image,) = pages(blank((720, 360)), dpi=72)
    assert image.size == (720, 360) and image.getpixel((9, 9)) == (255, 255, 255)
    (image,) = pages(blank((720, 360)))
    assert image.size == (1500, 750)
    for dpi in (0, -1, float("nan"), float("inf"), "150", None):
        with helpful(ImageError, "dpi"):
            pages(blank((720, 360)), dpi=dpi)


@pytest.mark.parametrize("size", [(14_400, 14_400), (1_000_000, 1_000_000), (1_000_000, 1), (3, 1_000_000)])
def test_a_page_of_absurd_size_is_drawn_smaller(size):
    (image,) = pages(blank(size))
    assert image.width * image.height < 1.01 * documents.MAX_PAGE_PIXELS
    assert max(image.size) <= documents.MAX_PAGE_SIDE
    (image,) = pages(blank((72, 72)), dpi=1e9)
    assert image.width * image.height < 1.01 * documents.MAX_PAGE_PIXELS


def test_pages_are_drawn_when_they_are_asked_for(monkeypatch):
    drawn = []
    draw = documents._draw
    monkeypatch.setattr(documents, "_draw", lambda *given: drawn.append(given[1]) or draw(*given))
    taken = pages(blank(*[(72, 72)] * 500))
    assert drawn == []
    next(taken), next(taken)
    assert drawn == [0, 1]
    taken.close()


def test_load_image_takes_a_document_of_one_page():
    assert (
        np.abs(np.asarray(load_image(corpus()["PDF"].data)).astype(int) - np.asarray(picture())).mean() < 14
    )
    with helpful(ImageError, "of 3 pages", "p3v.pages"):
        load_image(pdf(3))


def test_a_filled_in_form_shows_what_was_filled_in():
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (XXXXXX) /Rect [10 10 90 40] "
        b"/DA (/Helv 24 Tf 0 g) /P 3 0 R /F 4 >>"
    )
    form = written(
        b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [4 0 R] /NeedAppearances true "
        b"/DR << /Font << /Helv 5 0 R >> >> /DA (/Helv 24 Tf 0 g) >> >>",
        PAGES,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 50] /Annots [4 0 R] >>",
        field,
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    )
    assert np.asarray(load_image(form)).min() < 100  # letters, not an empty page


def test_an_encrypted_document():
    key = b"<" + b"41" * 32 + b">"
    encrypted = written(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        PAGES,
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 50] >>",
        b"<< /Filter /Standard /V 1 /R 2 /O %s /U %s /P -4 >>" % (key, key),
        trailer=b"/Encrypt 4 0 R /ID [<00> <00>]",
    )
    for take in (load_image, pages):
        with helpful(ImageError, "encrypted", "without a password"):
            take(encrypted)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.7])
def test_a_damaged_document(part):
    data = pdf(1)
    for take in (load_image, lambda data: list(pages(data))):
        with helpful(ImageError, "PDF", "damaged"):
            take(data[: int(len(data) * part)])


def test_a_document_that_refers_to_itself():
    loop = written(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 1000000000 >>",
    )
    with helpful(ImageError):
        load_image(loop)


def test_no_document():
    with helpful(ImageError, "no PDF document", "a PNG picture"):
        pages(encode(picture(), "PNG"))
    with helpful(ImageError, "no PDF document", "a web page"):
        pages(b"<html>")
    with helpful(ImageError, "There is no file"):
        pages("nowhere.pdf")


def test_without_its_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)  # an import fails then
    for take in (load_image, pages):
        with helpful(ImageError, 'pip install "phi3v-helpers[pdf]"'):
            take(pdf(1))


def test_eight_threads_draw_the_same_as_one():
    """PDFium crashes where it runs in two at a time."""
    document, start = pdf(9), threading.Barrier(8)

    def work(_):
        start.wait(20)
        taken = pages(document)
        some = [next(taken) for _ in range(5)]  # the others are left, for any thread to clean up
        return greys(some) == greys(pages(document, [1, 2, 3, 4, 5]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(16)))
