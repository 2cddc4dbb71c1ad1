import base64
import io
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from helpful import helpful
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
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
        (np.zeros((8, 8), complex), ("complex",)),
        (np.zeros((8, 8), object), ("object",)),
        (np.zeros((8, 8), [("a", "u1")]), ("type",)),
        (np.zeros((8, 8), "M8[s]"), ("datetime64",)),
        (np.broadcast_to(np.uint8(0), (10**6, 10**6, 3)), ("cannot be read",)),
        (np.full((8, 8), 255.0), ("255", "0..1")),
        (np.full((8, 8), -0.1), ("-0.1",)),
        (np.full((8, 8), np.nan), ("nan",)),
        (np.full((8, 8, 3), "x"), ("<U1",)),
    ],
)
def test_arrays_that_are_no_pictures(array, words):
    with helpful(ImageError, *words):
        load_image(array)


def test_masks():
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(np.asarray(load_image(mask))[..., 0], mask * 255)
    assert load_image(torch.eye(4).bool()).getpixel((0, 0)) == WHITE


def test_tensors():
    array = np.asarray(picture())
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)  # (3, 4, 6)
    same(load_image(tensor))
    same(load_image(tensor / 255))
    same(load_image((tensor / 255).double()))
    same(load_image((tensor / 255).requires_grad_()))
    same(load_image((tensor / 255).half()))
    red = torch.ones(3, 2, 2, dtype=torch.bfloat16) * torch.tensor([1, 0, 0]).reshape(3, 1, 1)
    assert load_image(red).getpixel((0, 0)) == RED
    grey = Image.fromarray(array[..., 0]).convert("RGB")
    same(load_image(tensor[0]), grey)
    same(load_image(tensor[:1]), grey)
    same(load_image(torch.nn.Parameter(tensor / 255)))
    assert load_image(torch.zeros(4, 2, 2)).getpixel((0, 0)) == WHITE  # transparent


@pytest.mark.parametrize("side", [1, 3, 4])
def test_the_type_alone_says_where_the_colours_are(side):
    """(3, 5, 3) could be read in two ways: arrays have the colours last, tensors first."""
    assert load_image(np.zeros((side, 5, 3), np.uint8)).size == (5, side)
    assert load_image(torch.zeros(3, 5, side)).size == (side, 5)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda: torch.zeros(8, 9, 3), ("(8, 9, 3)", "permute(2, 0, 1)")),
        (lambda: torch.zeros(2, 3, 8, 8), ("(2, 3, 8, 8)", "list(tensor)")),
        (lambda: torch.zeros(5, 8, 8), ("(5, 8, 8)",)),
        (lambda: torch.zeros(()), ("()",)),
        (lambda: torch.zeros(3, 0, 8), ("no pixels",)),
        (lambda: torch.zeros(3, 8, 8, dtype=torch.int64), ("int64",)),
        (lambda: torch.full((3, 8, 8), 255.0), ("255", "tensor.to(torch.uint8)")),
        (lambda: torch.randn(3, 8, 8), ("floats from -",)),
        (lambda: torch.full((3, 8, 8), torch.nan), ("nan",)),
        (lambda: torch.zeros(3, 8, 8, dtype=torch.complex64), ("complex64",)),
        (lambda: torch.zeros(3, 8, 8, device="meta"), ("tensor cannot be read",)),
        (lambda: torch.eye(8).to_sparse(), ("tensor cannot be read",)),
    ],
)
def test_tensors_that_are_no_pictures(tensor, words):
    with helpful(ImageError, *words):
        load_image(tensor())


def test_torch_is_not_imported_for_an_array():
    code = (
        "import sys, numpy as np, phi3v_helpers as p\n"
        "p.load_image(np.zeros((4, 4), np.uint8)); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


DTYPES = st.one_of(
    nps.boolean_dtypes(), nps.integer_dtypes(), nps.unsigned_integer_dtypes(), nps.floating_dtypes(),
    nps.complex_number_dtypes(), nps.unicode_string_dtypes(max_len=3),
)  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(nps.arrays(DTYPES, nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_any_array_is_a_picture_or_an_error(array):
    try:
        image = load_image(array)
    except ImageError as error:
        assert error.what.endswith(".") and error.advice.endswith(".")
    else:
        assert image.mode == "RGB" and image.size == array.shape[1::-1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(nps.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_any_colours_come_back_exactly(array):
    for source in (
        array,
        array / 255,
        torch.from_numpy(array).permute(2, 0, 1),
        encode(Image.fromarray(array)),
    ):
        assert np.array_equal(np.asarray(load_image(source)), array)


def test_an_array_that_cannot_be_had():
    class Broken:
        def __array__(self, *_, **__):
            raise RuntimeError("the device is gone")

    with helpful(ImageError, "RuntimeError"):
        load_image(Broken())


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


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_base64_text_is_not_mistaken_for_a_path(format):
    text = base64.b64encode(encode(picture().resize((60, 40)), format)).decode()
    for written in (text, "\n".join(text[start : start + 76] for start in range(0, len(text), 76))):
        with helpful(ImageError, "base64 text", "data:;base64,"):
            load_image(written)
    assert load_image("data:;base64," + text).size == (60, 40)


def test_data_addresses():
    data = encode(picture())
    letters = base64.b64encode(data).decode()
    spread = "\n ".join(letters[start : start + 60] for start in range(0, len(letters), 60))
    for address in (
        f"data:image/png;base64,{letters}",
        f"  DATA:image/png;charset=utf-8;BASE64,{letters}\n",
        f"data:;base64,{spread}",
        f"data:image/jpeg;base64,{letters.rstrip('=')}",
        f"data:image/png;base64,{quote(letters)}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(data).decode()}",
        f"data:image/png,{quote(data)}",
    ):
        same(load_image(address))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("data:image/png;base64,iVBOR*!", ("image/png", "no valid base64")),
        ("data:image/png;base64,A", ("no valid base64",)),
        ("data:image/png;base64,Grüße", ("no valid base64",)),
        ("data:image/png;base64", ("no comma",)),
        ("data:", ("no comma",)),
        ("data:,", ("empty",)),
        ("data:image/png;base64,", ("empty",)),
        ("data:text/html,<html>Sign%20in</html>", ("text/html", "web page")),
        ("data:text/plain;base64,SGVsbG8=", ("text/plain", "text")),
        ("data:image/svg+xml,%3Csvg/%3E", ("SVG",)),
    ],
)
def test_data_addresses_that_hold_no_picture(address, words):
    with helpful(ImageError, *words):
        load_image(address)


def test_a_large_data_address():
    for address in ("data:;base64," + "A" * 3000, "data:," + "A" * 1001, "data:," + "A" * 10_000):
        with helpful(ImageError, "The data address", "larger than"):
            load_image(address, max_bytes=1000)


def test_file_addresses(tmp_path):
    path = tmp_path / "a picture #1 with 100%.png"
    path.write_bytes(encode(picture()))
    same(load_image(path.as_uri()))
    same(load_image(path.as_uri().replace("file:///", "FILE://localhost/")))
    with helpful(ImageError, "names the computer 'elsewhere'"):
        load_image("file://elsewhere/picture.png")
    with helpful(ImageError, "no file"):
        load_image("file:///nowhere/picture.png")


def test_file_objects(file):
    data = file.read_bytes()
    with file.open("rb") as opened:
        same(load_image(opened))
        assert not opened.closed
    behind = io.BytesIO(b"12345" + data)
    behind.seek(5)
    same(load_image(behind))
    with tempfile.NamedTemporaryFile() as temporary:
        temporary.write(data)
        temporary.seek(0)
        same(load_image(temporary))
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr("picture.png", data)
        with archive.open("picture.png") as opened:
            same(load_image(opened))


def test_a_pipe_that_cannot_be_rewound(file):
    reader, writer = os.pipe()
    with open(writer, "wb") as out:
        out.write(file.read_bytes())
    with open(reader, "rb", buffering=0) as pipe:
        same(load_image(pipe))
    code = "import sys, phi3v_helpers as p; print(p.load_image(sys.stdin.buffer).size)"
    done = subprocess.run([sys.executable, "-c", code], input=file.read_bytes(), capture_output=True)
    assert done.stdout.strip() == b"(6, 4)"


class Gives:
    """A file object whose `read` gives, or raises, the same again and again."""

    def __init__(self, answer):
        self.answer = answer

    def read(self, size=-1):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("text", ("gives text",)),
        (b"", ("empty",)),
        (None, ("NoneType",)),
        (7, ("int",)),
        (OSError("gone"), ("OSError",)),
        (RuntimeError("gone"), ("RuntimeError",)),
    ],
)
def test_file_objects_that_give_no_bytes(answer, words):
    with helpful(ImageError, *words):
        load_image(Gives(answer))


def test_files_opened_as_text_or_closed(file):
    with file.open(encoding="utf-8") as opened:
        with helpful(ImageError, "gives text", '"rb"'):
            load_image(opened)
    with helpful(ImageError, "gives text"):
        load_image(io.StringIO("text"))
    with file.open("rb") as opened:
        pass
    with helpful(ImageError, "cannot be read"):
        load_image(opened)


def test_a_closed_pil_image(file):
    image = Image.open(file)
    image.close()
    with helpful(ImageError, "The picture"):
        load_image(image)


def test_a_folder_that_was_removed(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with helpful(ImageError, "no file"):
        load_image("picture.png")


def test_iterators(file):
    assert len(load_images(iter([file, file]))) == 2
    assert len(load_images(load_image(file) for _ in range(3))) == 3
    assert len(load_images(map(str, [file]))) == 1
    with helpful(ImageError, "Picture 2:", "missing.png"):
        load_images(iter([file, "missing.png"]))
    with helpful(ImageError, "list of pictures is empty"):
        load_images(iter([]))
    with file.open("rb") as opened:
        assert len(load_images(opened)) == 1  # a file is an iterator too, of lines
    for wrong in ({"a": file}, {file}):
        with helpful(ImageError, type(wrong).__name__):
            load_images(wrong)


def test_what_goes_wrong_in_an_iterator_is_its_own():
    def pictures():
        yield picture()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        load_images(pictures())
