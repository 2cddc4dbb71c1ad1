"""Files of every kind -> pictures: what is shown, and what is said of those that are none."""

import base64
import io
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from corpus import corpus, encode, picture
from helpful import helpful
from PIL import Image, ImageFile

from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import decoding, load_image
from phi3v_helpers.images.kinds import kind_of


def shows(image, sample):
    """The whole picture of the sample, and not half of it."""
    pixels = np.asarray(image).astype(float)
    if image.mode != "RGB" or pixels.shape != sample.expected.shape:
        return False
    difference = np.abs(pixels - sample.expected)
    return difference.max() == 0 if sample.near == 0 else difference.mean() <= sample.near


def test_the_corpus_is_large():
    assert len(corpus()) > 90


@pytest.mark.parametrize("name", sorted(corpus()))
def test_every_format_and_mode_shows_what_was_written(name):
    assert shows(load_image(corpus()[name].data), corpus()[name])


@pytest.mark.parametrize("name", sorted(corpus()))
def test_a_cut_file_is_refused_and_never_shown_in_part(name):
    sample = corpus()[name]
    refused = 0
    for part in range(1, 20):
        try:
            image = load_image(sample.data[: len(sample.data) * part // 20])
        except ImageError as error:
            refused += 1
            assert error.what.endswith(".")
        else:
            assert shows(image, sample), f"{part} of 20 parts"
    assert refused > 0


@pytest.mark.parametrize("name", ["JPEG", "PNG RGB", "WEBP lossy", "TIFF RGB", "GIF P", "BMP RGB"])
def test_what_stands_behind_a_picture_does_no_harm(name):
    behind = b"PK\3\4 <html> %PDF-1.7 " + bytes(1000)
    assert shows(load_image(corpus()[name].data + behind), corpus()[name])


@pytest.mark.parametrize("ending", [".png", ".jpg", ".txt", ".pdf", ".mp4", ""])
def test_endings_do_not_matter(ending, tmp_path):
    path = tmp_path / f"picture{ending}"
    path.write_bytes(corpus()["JPEG"].data)
    assert shows(load_image(path), corpus()["JPEG"])


def test_inverted_cmyk_of_adobe_programs():
    plain = encode(picture().convert("CMYK"), "JPEG")
    assert b"Adobe" in plain  # Pillow writes it inverted, as Adobe's programs do
    assert np.abs(np.asarray(load_image(plain)).astype(int) - np.asarray(picture())).mean() < 14


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "La", "RGBa", "RGBX", "PA"])
def test_rare_colour_modes(mode):
    assert load_image(Image.new(mode, (4, 4))).size == (4, 4)
    grey = Image.new("RGB", (4, 4), (90, 90, 90))
    if mode in ("HSV", "YCbCr", "RGBX"):
        assert load_image(grey.convert(mode)).getpixel((0, 0)) == (90, 90, 90)
    if mode in ("La", "RGBa"):
        half = grey.convert(mode.upper())
        half.putalpha(128)
        assert abs(load_image(half.convert(mode)).getpixel((0, 0))[0] - 172) < 2
    if mode == "LAB":
        assert (
            min(load_image(encode(Image.new(mode, (4, 4), (255, 128, 128)), "TIFF")).getpixel((0, 0))) > 250
        )


BOX = b"\0\0\0\x18ftyp"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("empty",)),
        (b"<!DOCTYPE html><html>Sign in</html>", ("a web page",)),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', ("SVG", "Export it as a PNG")),
        (b'{"picture": [1, 2, 3]}', ("text",)),
        (b"name,price\ncat,3\n", ("text",)),
        ("Grüße aus Köln".encode(), ("text",)),
        ("Grüße aus Köln".encode("latin-1"), ("text",)),
        ("Grüße aus Köln".encode("utf-16"), ("text",)),
        (base64.b64encode(corpus()["PNG RGB"].data), ("base64 text", "b64decode")),
        (b"%PDF-1.7 nothing more", ("PDF", "damaged")),
        (BOX + b"mp42\0\0\0\0mp42isom", ("MP4", "video", "p3v.frames")),
        (b"\x1aE\xdf\xa3" + bytes(60), ("video", "p3v.frames")),
        (b"RIFF\0\0\0\0AVI LIST", ("AVI", "p3v.frames")),
        (BOX + b"M4A \0\0\0\0M4A mp42", ("sound",)),
        (b"ID3\4\0" + bytes(50), ("sound",)),
        (b"RIFF\0\0\0\0WAVEfmt ", ("sound",)),
        (b"fLaC\0\0\0\x22", ("sound",)),
        (b"PK\3\4\x14\0" + bytes(40) + b"notes.txt", ("an archive", "Unpack")),
        (b"PK\3\4\x14\0" + bytes(40) + b"word/document.xml", ("Word", "PDF")),
        (b"PK\3\4\x14\0" + bytes(40) + b"xl/workbook.xml", ("Excel",)),
        (b"PK\3\4\x14\0" + bytes(40) + b"ppt/presentation.xml", ("PowerPoint",)),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ("Office",)),
        (b"\x1f\x8b\x08\0", ("archive",)),
        (b"MZ\x90\0\3\0\0\0", ("a program",)),
        (b"\x7fELF\2\1\1\0", ("a program",)),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ("PostScript", "Export")),
        (b"\xd7\xcd\xc6\x9a\0\0", ("WMF",)),
        (b"8BPS\0\1", ("Photoshop",)),
        (b"SIMPLE  =                    T", ("FITS",)),
        (b"icns\0\0\0\x10", ("Apple icon",)),
        (b"DDS |\0\0\0", ("DDS",)),
        (b"qoif\0\0\0\4", ("QOI",)),
        (b"\0\0\0\x0cJXL \r\n\x87\n", ("JPEG XL",)),
        (b"II*\0\x10\0\0\0CR\2\0", ("raw",)),
        (b"\x93NUMPY\1\0v\0", ("numpy.load",)),
        (bytes(range(256)) * 4, ("not a picture",)),
    ],
)
def test_what_is_no_picture_is_named(data, words, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with helpful(ImageError, *words):
        load_image(data)
    with helpful(ImageError, *words, "picture.png"):
        load_image(path)


@pytest.mark.parametrize(
    "words",
    [
        "MZ is a code for Mozambique",
        "BMW",
        "Get free samples",
        "P2 is a protein",
        "GIF89a was a format",
        "II, III",
    ],
)
def test_words_are_not_taken_for_the_start_of_a_file(words):
    assert "program" not in kind_of(words.encode()).name and "video" not in kind_of(words.encode()).name
    with helpful(ImageError):
        load_image(words.encode())


def test_a_preview_within_a_damaged_file_is_not_taken_for_it():
    preview = corpus()["JPEG"].data
    for data in (preview[2:] + preview, b"\0" + preview, b"II*\0" + preview):
        with helpful(ImageError):
            load_image(data)


def test_the_preview_of_a_raw_picture_is_not_taken_for_it():
    with helpful(ImageError, "preview", "Export"):
        load_image(encode(picture(), "TIFF", tiffinfo={254: 1}))


def test_heic_without_its_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # an import fails then
    with helpful(ImageError, "HEIC", 'pip install "phi3v-helpers[heic]"'):
        load_image(BOX + b"heic\0\0\0\0mif1heic")


def test_avif_without_its_reader(monkeypatch):
    monkeypatch.setattr(decoding.features, "get_supported", lambda: ["jpg"])
    with helpful(ImageError, "AVIF", "pip install --upgrade pillow"):
        load_image(BOX + b"avif\0\0\0\0mif1avif")


def test_heic_turned_by_its_camera():
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    lying = picture().transpose(Image.Transpose.ROTATE_90)
    pillow_heif.from_pillow(lying).save(file, quality=90, exif=exif.tobytes())
    image = load_image(file.getvalue())
    assert image.size == picture().size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture())).mean() < 14


def test_settings_of_pillow_are_left_alone():
    Image.init()

    def settings():
        return (
            Image.MAX_IMAGE_PIXELS,
            ImageFile.LOAD_TRUNCATED_IMAGES,
            tuple(Image.ID),
            sorted(Image.OPEN),
            list(warnings.filters),
        )

    before = settings()
    for sample in corpus().values():
        load_image(sample.data)
        with helpful(ImageError):
            load_image(sample.data[:20])
    assert settings() == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_limit_of_the_users_own_is_kept(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with helpful(ImageError, "more pixels"):
        load_image(corpus()["PNG RGB"].data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # no limit of Pillow's: ours is still there
    data = bytearray(corpus()["BMP RGB"].data)
    data[18:26] = (50_000).to_bytes(4, "little") * 2
    with helpful(ImageError, "more pixels than is safe"):
        load_image(bytes(data))


@pytest.mark.filterwarnings("error")
def test_no_warning_is_shown(recwarn, capfd):
    large = Image.new("1", (10_000, 9_500))  # Pillow warns from 89 megapixels on
    load_image(encode(large, "PNG"))
    load_image(encode(picture(), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    load_image(encode(picture().quantize(8), "PNG", transparency=b"\0\x80"))
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_warnings_are_shown_again_after_many_threads():
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_image, [sample.data for sample in corpus().values()]))
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", UserWarning, stacklevel=1)


def test_eight_threads_decode_the_same_as_one():
    names = sorted(corpus()) * 3
    start = threading.Barrier(8)

    def work(_):
        start.wait(20)
        return all(shows(load_image(corpus()[name].data), corpus()[name]) for name in names)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_file_is_not_kept_open_and_the_picture_is_a_plain_one(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(corpus()["PNG RGB"].data)
    image = load_image(path)
    assert type(image) is Image.Image
    path.unlink()
    assert image.getpixel((0, 0)) == picture().getpixel((0, 0))
