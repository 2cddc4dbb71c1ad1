import base64
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpful import helpful
from PIL import Image

from phi3v_helpers import load_image
from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import load_images

RED, GREEN, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (255, 255, 255), (0, 0, 0)


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture():
    """6 x 4, its upper left pixel red, the rest green."""
    image = Image.new("RGB", (6, 4), GREEN)
    image.putpixel((0, 0), RED)
    return image


def same(image, expected=None):
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(expected or picture()))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "picture.png"
    picture().save(path)
    return path


def test_paths(file, monkeypatch):
    same(load_image(file))
    same(load_image(str(file)))
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.setenv("USERPROFILE", str(file.parent))
    same(load_image("~/picture.png"))
    monkeypatch.chdir(file.parent)
    same(load_image("picture.png"))


def test_a_name_says_nothing_about_the_format(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(picture()))
    same(load_image(path))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes(kind):
    same(load_image(kind(encode(picture()))))


def test_pil_images_are_copied():
    original = picture()
    image = load_image(original)
    same(image)
    image.putpixel((0, 0), BLACK)
    assert original.getpixel((0, 0)) == RED


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats(format):
    same(load_image(encode(picture(), format, **({"lossless": True} if format == "WEBP" else {}))))


def test_the_first_frame_is_taken():
    frames = encode(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (6, 4), BLACK)])
    same(load_image(frames))


def test_arrays():
    array = np.asarray(picture())
    same(load_image(array))
    same(load_image(array / 255))
    same(load_image((array / 255).astype(np.float16)))
    same(load_image(np.dstack([array, np.full(array.shape[:2], 255, np.uint8)])))
    same(load_image(array[:, ::-1][:, ::-1]))
    grey = array[..., 0]
    expected = Image.fromarray(grey).convert("RGB")
    same(load_image(grey), expected)
    same(load_image(grey[:, :, None]), expected)
    same(load_image(grey / 255), expected)


def test_a_transparent_array():
    array = np.zeros((2, 2, 4))
    array[0, 0] = 1
    image = load_image(array)
    assert image.getpixel((0, 0)) == WHITE and image.getpixel((1, 1)) == WHITE


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), ("(3, 8, 8)", "np.moveaxis")),
        (np.zeros((2, 8, 8, 3), np.uint8), ("list(array)",)),
        (np.zeros((8, 8, 2), np.uint8), ("(8, 8, 2)",)),
        (np.zeros(8), ("(8,)",)),
        (np.zeros((0, 8, 3), np.uint8), ("no pixels",)),
        (np.zeros((8, 8, 3), np.int64), ("int64", "uint8")),
        (np.zeros((8, 8), bool), ("bool",)),
        (np.full((8, 8), 255.0), ("255", "0..1")),
        (np.full((8, 8), -0.1), ("-0.1",)),
        (np.full((8, 8), np.nan), ("nan",)),
        (np.full((8, 8, 3), "x"), ("<U1",)),
    ],
)
def test_arrays_that_are_no_pictures(array, words):
    with helpful(ImageError, *words):
        load_image(array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored lying on its left side
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(turned[orientation]) if orientation in turned else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    same(load_image(encode(stored, "PNG", exif=exif)))


def test_broken_exif_does_no_harm():
    same(load_image(encode(picture(), "PNG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")))


def test_transparency_becomes_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((0, 0), (*RED, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    loaded = load_image(encode(image))
    assert loaded.getpixel((3, 3)) == WHITE
    assert loaded.getpixel((0, 0)) == RED
    assert loaded.getpixel((1, 0)) == (127, 127, 127)


def test_transparency_of_every_kind():
    def corner(image, **options):
        return load_image(encode(image, **options)).getpixel((1, 1))

    palette = Image.new("RGB", (2, 2), GREEN).quantize(2)
    assert corner(palette) == GREEN
    assert corner(palette, transparency=palette.getpixel((1, 1))) == WHITE
    assert corner(Image.new("LA", (2, 2), (0, 0))) == WHITE
    assert corner(Image.new("L", (2, 2), 7), transparency=7) == WHITE
    assert corner(Image.new("RGB", (2, 2), GREEN), transparency=GREEN) == WHITE
    assert load_image(Image.new("PA", (2, 2), (0, 0))).getpixel((1, 1)) == WHITE


def test_modes():
    assert load_image(encode(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")).getpixel((0, 0)) == RED
    assert load_image(encode(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == WHITE
    assert load_image(encode(picture().convert("P"))).getpixel((0, 0)) == RED
    assert load_image(Image.new("HSV", (2, 2), (0, 255, 255))).getpixel((0, 0)) == RED
    assert load_image(encode(Image.new("YCbCr", (2, 2), (255, 128, 128)), "JPEG")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_are_scaled_not_clipped(mode):
    array = np.array([[0, 32768], [65535, 257]], np.uint16)
    image = Image.fromarray(array if mode == "I;16" else array.astype(np.int32))
    assert image.mode == mode
    assert np.asarray(load_image(image))[..., 0].tolist() == [[0, 128], [255, 1]]
    assert np.asarray(load_image(encode(Image.fromarray(array))))[..., 0].tolist() == [[0, 128], [255, 1]]


def test_floats_and_small_integers_in_pil_images():
    assert load_image(Image.new("F", (2, 2), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(Image.new("F", (2, 2), 200.0)).getpixel((0, 0)) == (200, 200, 200)
    assert load_image(Image.new("I", (2, 2), 200)).getpixel((0, 0)) == (200, 200, 200)
    assert load_image(Image.new("F", (2, 2), float("nan"))).getpixel((0, 0)) == BLACK


def test_no_such_file():
    with helpful(ImageError, "no file", "'nowhere/cat.png'"):
        load_image("nowhere/cat.png")
    with helpful(ImageError, "empty"):
        load_image("")
    with helpful(ImageError):
        load_image("a" * 5000)
    with helpful(ImageError):
        load_image("nul\0.png")
    with helpful(ImageError):
        load_image("~nobody-of-this-name/cat.png")


def test_a_folder(tmp_path):
    with helpful(ImageError, "is a folder"):
        load_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(file):
    file.chmod(0)
    with helpful(ImageError, "permissions"):
        load_image(file)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("empty",)),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", ("web page",)),
        (b"\n  <HTML lang='en'>", ("web page",)),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', ("SVG",)),
        (b"%PDF-1.7 ...", ("PDF",)),
        (b"\0\0\0\x18ftypheic\0\0\0\0", ("HEIC",)),
        (b"just some text", ("not a picture",)),
        (bytes(range(256)) * 4, ("not a picture",)),
    ],
)
def test_files_that_are_no_pictures(data, words, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with helpful(ImageError, *words, "picture.png"):
        load_image(path)
    with helpful(ImageError, *words):
        load_image(data)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files(format, part):
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8))
    data = encode(noise, format)
    with helpful(ImageError):
        load_image(data[: int(len(data) * part)])


def test_damaged_files_never_raise_anything_else():
    random = np.random.RandomState(1)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        whole = encode(picture().resize((32, 32)), format)
        for _ in range(100):
            data = bytearray(whole)
            for place in random.randint(0, len(data), 8):
                data[place] = random.randint(256)
            try:
                assert load_image(bytes(data)).mode == "RGB"
            except ImageError:
                pass


def test_a_truncated_pil_image_is_said_to_be_damaged():
    data = encode(Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)))
    with helpful(ImageError, "damaged"):
        load_image(Image.open(io.BytesIO(data[: len(data) // 2])))


def bomb(side):
    """A PNG that says it is `side` x `side` pixels, in a few hundred bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb():
    with helpful(ImageError, "more pixels than is safe"):
        load_image(bomb(50_000))


def test_no_pixels():
    with helpful(ImageError, "no pixels"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("source", [None, 7, {}, object(), {"content": b""}])
def test_things_that_are_no_source(source):
    with helpful(ImageError, type(source).__name__):
        load_image(source)


def test_load_images(file):
    assert load_images(None) == []
    assert len(load_images(file)) == len(load_images([file])) == 1
    several = load_images((file, str(file), file.read_bytes(), picture(), np.asarray(picture())))
    assert len(several) == 5
    for image in several:
        same(image)


def test_load_images_says_which_one_is_wrong(file):
    with helpful(ImageError, "Picture 2 of 3", "missing.png"):
        load_images([file, Path("missing.png"), file])
    with helpful(ImageError, "list of pictures is empty"):
        load_images([])
    with helpful(ImageError, "Picture 1 of 1", "list"):
        load_images([[file]])


def test_base64_text_is_not_mistaken_for_bytes():
    with helpful(ImageError):
        load_image(base64.b64encode(encode(picture())).decode())
