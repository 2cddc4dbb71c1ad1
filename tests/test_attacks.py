"""Files made to do harm: they cost little time and memory, run nothing, and are refused in a sentence."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib

import mutations
import numpy as np
import pytest
from corpus import HAS_AVIF, corpus, encode, picture
from helpful import helpful
from PIL import Image

from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import guards, load_image


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, pixels=bytes(1000)):
    """A PNG that says it is so large; `chunks` come before its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + end


def patched(name, place, order, *numbers):
    """A file of the corpus with other numbers in its header."""
    data = bytearray(corpus()[name].data)
    struct.pack_into(order, data, place, *numbers)
    return bytes(data)


def tiff(*tags, order="<", extra=b""):
    """A TIFF whose first page has these tags: (tag, type, count, value)."""
    entries = b"".join(struct.pack(order + "HHLL", *tag) for tag in sorted(tags))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "LH", 8, len(tags)) + entries + struct.pack(order + "L", 0) + extra


BASIC = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def icon(inner):
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def bombs():
    jpeg = corpus()["JPEG"].data
    sof = jpeg.index(b"\xff\xc0") + 5
    jp2 = corpus()["JPEG2000 RGB"].data
    ihdr, siz = jp2.index(b"ihdr") + 4, jp2.index(b"\xff\x51") + 6
    huge_jp2 = bytearray(jp2)
    struct.pack_into(">II", huge_jp2, ihdr, 60_000, 60_000)
    struct.pack_into(">II", huge_jp2, siz, 60_000, 60_000)
    return {
        "png": png(50_000, 50_000),
        "png of the largest size": png(2**31 - 1, 2**31 - 1),
        "gif with a huge screen": patched("GIF P", 6, "<HH", 65_535, 65_535),
        "bmp": patched("BMP RGB", 18, "<ii", 60_000, 60_000),
        "bmp upside down": patched("BMP RGB", 18, "<ii", 60_000, -60_000),
        "jpeg": jpeg[:sof] + struct.pack(">HH", 65_000, 65_000) + jpeg[sof + 4 :],
        "webp": patched("WEBP RGBA True True", 21, "<I", 0x0FFFFFFF),
        "tga": patched("TGA RGB", 12, "<HH", 65_535, 65_535),
        "ppm": b"P6\n60000 60000\n255\n" + bytes(100),
        "jpeg 2000": bytes(huge_jp2),
        "tiff": tiff((256, 4, 1, 60_000), (257, 4, 1, 60_000), *BASIC[2:], (273, 4, 1, 8), (279, 4, 1, 9)),
        "icon with a huge png": icon(png(20_000, 20_000)),
        "icon with a huge bitmap": icon(
            struct.pack("<IiiHHIIiiII", 40, 20_000, 40_000, 1, 32, 0, 0, 0, 0, 0, 0)
        ),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_picture_that_says_it_is_huge(name):
    started = time.perf_counter()
    with helpful(ImageError):
        load_image(bombs()[name])
    assert time.perf_counter() - started < 2


@pytest.mark.skipif(sys.platform != "linux", reason="measures with Linux's units")
def test_bombs_cost_no_memory(tmp_path):
    """All of them in one process, which a single one of them would make too large."""
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import pathlib, re, sys\n"
        "from phi3v_helpers.images import load_image\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try: load_image(path)\n"
        "    except ValueError: pass\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000  # KiB


def test_just_above_and_just_below_the_limit(monkeypatch):
    data = encode(Image.new("1", (100, 100)), "PNG")
    for format in ("PNG", "JPEG2000"):
        data = encode(Image.new("L", (100, 100)), format)
        monkeypatch.setattr("phi3v_helpers.images.decoding.MAX_PIXELS", 10_000)
        monkeypatch.setattr("phi3v_helpers.images.decoding.LIMITS", {})
        assert load_image(data).size == (100, 100)
        monkeypatch.setattr("phi3v_helpers.images.decoding.MAX_PIXELS", 9_999)
        with helpful(ImageError, "more pixels than is safe", "100 x 100"):
            load_image(data)
    monkeypatch.setattr("phi3v_helpers.images.decoding.LIMITS", {"JPEG2000": 10_000})
    assert load_image(data).size == (100, 100)


def test_what_is_in_memory_already_may_be_larger(monkeypatch):
    monkeypatch.setattr("phi3v_helpers.images.decoding.MAX_PIXELS", 10)
    assert load_image(Image.new("RGB", (10, 10))).size == (10, 10)
    assert load_image(np.zeros((10, 10), np.uint8)).size == (10, 10)


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80_000_000))),
        chunk(b"tEXt", b"a\0" + bytes(1_000_000)) * 20,
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        struct.pack(">I", 2**31 - 1) + b"tEXt",
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "acTL", "cut"],
)
def test_a_png_with_chunks_that_swell(bomb):
    started = time.perf_counter()
    try:
        assert load_image(png(2, 2, bomb, pixels=bytes(14))).size == (2, 2)
    except ImageError as error:
        assert "damaged" in error.what
    assert time.perf_counter() - started < 5


def test_a_jpeg_of_thousands_of_scans():
    data = corpus()["JPEG progressive"].data
    scan = data[data.rindex(b"\xff\xda") : -2]
    with helpful(ImageError, "not safe to open", "scans"):
        load_image(data[:-2] + scan * 5000 + b"\xff\xd9")


def test_a_photograph_with_a_film_behind_it_is_none_of_them():
    film = np.random.RandomState(0).bytes(20_000_000)
    assert film.count(b"\xff\xda") > guards.MAX_SCANS
    for name in ("JPEG", "JPEG progressive"):
        assert load_image(corpus()[name].data + film).size == picture().size


def test_a_tiff_whose_tags_overlap():
    extra = bytes(100_000)
    tags = [*BASIC, (273, 4, 1, 8), (279, 4, 1, 64)]
    tags += [(40_000 + number, 7, len(extra), 2000) for number in range(1000)]
    with helpful(ImageError, "not safe to open", "larger than the file"):
        load_image(tiff(*tags, extra=extra))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_a_million_strips(order):
    data = tiff(
        *BASIC, (273, 3, 1_000_000, 200), (279, 3, 1_000_000, 200), order=order, extra=bytes(4_000_000)
    )
    with helpful(ImageError, "not safe to open", "1000000 values"):
        load_image(data)


def test_a_tiff_of_tiles_larger_than_any_picture():
    tags = [*BASIC, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 64)]
    with helpful(ImageError, "not safe to open", "60000 x 60000"):
        load_image(tiff(*tags))


def test_big_tiff_is_checked_too():
    data = bytearray(corpus()["TIFF L True"].data)  # BigTIFF
    if data[:4] != b"II+\0":
        pytest.skip("this Pillow writes no BigTIFF")
    assert guards.suspicion(bytes(data), "TIFF") is None
    (place,) = struct.unpack_from("<Q", data, 8)
    for index in range(struct.unpack_from("<Q", data, place)[0]):
        if struct.unpack_from("<H", data, place + 8 + 20 * index)[0] == 273:
            struct.pack_into("<Q", data, place + 8 + 20 * index + 4, 10**9)
    with helpful(ImageError, "1000000000 values"):
        load_image(bytes(data))


@pytest.mark.parametrize("name", sorted(corpus()))
def test_no_honest_file_is_suspected(name):
    format = name.split()[0].replace("MPO", "JPEG")
    assert guards.suspicion(corpus()[name].data, format) is None


@pytest.mark.skipif(os.name == "nt", reason="puts a shell script on the path")
def test_ghostscript_is_never_run(tmp_path, monkeypatch):
    script = tmp_path / "gs"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = encode(picture(), "EPS")
    for data in (eps, b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(eps)) + bytes(20) + eps):
        with helpful(ImageError, "PostScript"):
            load_image(data)
    assert not (tmp_path / "ran").exists()


def test_slow_formats_stop_in_time(monkeypatch):
    monkeypatch.setattr("phi3v_helpers.images.decoding.MAX_SECONDS", 0.2)
    slow = b"P3\n3000 3000\n255\n" + b"1 " * 27_000_000
    started = time.perf_counter()
    with helpful(ImageError, "takes more than 0.2 s"):
        load_image(slow)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (1, 1)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_extreme_shapes_are_pictures_here(size, format):
    """Whether the model can see them is for its own image processor to say."""
    assert load_image(encode(Image.new("RGB", size, "red"), format)).size == size


def test_two_files_in_one_are_what_their_first_bytes_say():
    for first, second in (
        ("GIF P", "PNG RGB"),
        ("PNG RGB", "JPEG"),
        ("BMP RGB", "GIF P"),
        ("JPEG", "TIFF RGB"),
    ):
        joined = corpus()[first].data + corpus()[second].data
        assert np.array_equal(load_image(joined), load_image(corpus()[first].data))
    with helpful(ImageError, "a web page"):
        load_image(b"<html>" + corpus()["PNG RGB"].data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/stdin", "/dev/tty"):
        if os.path.exists(path):
            with helpful(ImageError):
                load_image(path)
    with helpful(ImageError, "pipe, not a file"):
        load_image(tmp_path / "pipe")


def test_a_file_of_ten_gigabytes(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(png(4, 4))
        file.truncate(10 * 1024**3)  # takes no room on the disk
    started = time.perf_counter()
    with helpful(ImageError, "large.png", "larger than 500 MiB"):
        load_image(path)
    assert time.perf_counter() - started < 1


def test_an_endless_file_object():
    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size=-1):
            self.read_bytes += size
            return bytes(size)

    endless = Endless()
    with helpful(ImageError, "larger than 1 MiB"):
        load_image(endless, max_bytes=1024**2)
    assert endless.read_bytes < 4 * 1024**2


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux does")
def test_no_file_stays_open(tmp_path):
    for name, sample in corpus().items():
        for part, end in (("whole", None), ("half", len(sample.data) // 2)):
            (tmp_path / f"{name} {part}").write_bytes(sample.data[:end])

    def load_all():
        for path in tmp_path.iterdir():
            try:
                load_image(path)
            except ImageError:
                pass

    load_all()
    before = len(os.listdir("/proc/self/fd"))
    load_all()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(os.name == "nt", reason="needs the resource module")
def test_six_hundred_damaged_files_give_pictures_or_errors():
    """As many as you like: python tests/mutations.py --count 10000"""
    results, slowest, peak, failures = mutations.run(600)
    assert not failures, "\n\n".join(failures)
    assert sum(results.values()) == 600 and results["a picture"] > 60
    assert slowest < mutations.MAX_SECONDS and peak < mutations.MAX_BYTES


# Found by tests/mutations.py


@pytest.mark.filterwarnings("error")
def test_floats_that_are_no_numbers():
    values = np.array([[0x7FA00000, 0x7F800000, 0xFF800000, 0x3F800000]], np.uint32).view(np.float32)
    data = bytearray(encode(Image.fromarray(np.ones((1, 4), np.float32)), "TIFF"))
    place = bytes(data).index(np.ones(4, np.float32).tobytes())
    data[place : place + 16] = values.tobytes()  # signalling NaN, infinity, minus infinity, 1
    assert load_image(bytes(data)).getpixel((3, 0)) == (255, 255, 255)


def test_a_big_tiff_that_points_beyond_all_memory():
    with helpful(ImageError, "damaged"):
        load_image(b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(100))


def test_a_tiff_of_many_channels(caplog):
    """Pillow would write to the log."""
    tags = [tag if tag[0] != 277 else (277, 3, 1, 249) for tag in BASIC]
    with helpful(ImageError, "249 channels"):
        load_image(tiff(*tags, (273, 4, 1, 8), (279, 4, 1, 64)))
    assert not caplog.records


@pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
def test_an_avif_in_a_heic_box():
    """Its first brand may be that of any picture; one of the others says AVIF."""
    data = corpus()["AVIF"].data.replace(b"ftypavif", b"ftypmif1", 1)
    assert load_image(data).size == picture().size
