"""Frames of animations and videos."""

import io
import os
import struct
import sys
import time

import pytest
from corpus import HAS_AVIF, animations, corpus, encode, numbered, picture, video, videos
from helpful import helpful
from PIL import Image
from server import send, serve

from phi3v_helpers.errors import ImageError
from phi3v_helpers.images import frames, load_image, load_images, moving
from phi3v_helpers.images import videos as video_code

needs_av = pytest.mark.skipif(not videos(), reason="PyAV is not installed")


def greys(images):
    return [image.getpixel((20, 10))[0] for image in images]


def expected(count, n):
    """The greys of n of `count` numbered frames."""
    return [round(255 * index / (count - 1)) for index in moving.spread(count, n)]


def near(images, wanted, by=9):
    found = greys(images)
    return len(found) == len(wanted) and all(abs(a - b) <= by for a, b in zip(found, wanted))


def animated(format, count, **options):
    first, *rest = numbered(count)
    return encode(first, format, save_all=True, append_images=rest, **options)


def test_spread():
    assert moving.spread(10, 1) == [0]
    assert moving.spread(10, 2) == [0, 9]
    assert moving.spread(10, 4) == [0, 3, 6, 9]
    assert moving.spread(3, 8) == [0, 1, 2]
    assert (
        moving.spread(10**9, 3) == [0, 500_000_000, 10**9 - 1] or moving.spread(10**9, 3)[1] == 499_999_999.5
    )
    for count in range(1, 60):
        for n in range(1, 60):
            taken = moving.spread(count, n)
            assert len(taken) == len(set(taken)) == min(n, count) and taken == sorted(taken)
            assert taken[0] == 0 and (n == 1 or taken[-1] == count - 1)


FORMATS = ["GIF", "WEBP", "PNG", "TIFF", *(["AVIF"] if HAS_AVIF else [])]


@pytest.mark.parametrize("format", FORMATS)
def test_animations(format):
    data = animated(format, 10, **({"lossless": True} if format == "WEBP" else {}))
    for n in (1, 2, 4, 9, 10, 50):
        images = frames(data, n)
        assert near(images, expected(10, n), by=4 if format == "AVIF" else 0)
        assert {(image.mode, image.size) for image in images} == {("RGB", (40, 28))}


@pytest.mark.parametrize("name", sorted(animations()))
def test_frames_that_build_on_each_other(name):
    first, second, third = frames(animations()[name].data, 3)
    assert max(high for _, high in second.getextrema()) < 4
    assert min(low for low, _ in third.getextrema()) > 251
    assert abs(first.getpixel((0, 27))[2] - picture().getpixel((0, 27))[2]) < 14


def test_a_still_picture_is_one_frame():
    for name in ("JPEG", "PNG RGB", "MPO"):  # the second picture of an MPO is a preview or a map of depths
        assert [image.size for image in frames(corpus()[name].data)] == [picture().size]


def test_transparent_frames_are_on_white():
    clear = [Image.new("RGBA", (8, 8), (0, 0, 0, 0)), Image.new("RGBA", (8, 8), (0, 0, 255, 255))]
    images = frames(encode(clear[0], "WEBP", save_all=True, append_images=clear[1:], lossless=True))
    assert images[0].getpixel((1, 1)) == (255, 255, 255) and images[1].getpixel((1, 1)) == (0, 0, 255)


@needs_av
@pytest.mark.parametrize("container", sorted(videos()))
def test_videos(container):
    data = videos()[container].data
    for n in (1, 2, 5, 12, 50):
        images = frames(data, n)
        assert near(images, expected(12, n)), greys(images)
        assert {(image.mode, image.size) for image in images} == {("RGB", (48, 32))}


LONG = [
    ("mp4", "mpeg4", {}),
    ("mp4", "libx264", {}),  # frames that are stored out of order
    ("matroska", "libx264", {}),
    ("avi", "mpeg4", {"bf": "2"}),
    ("mpegts", "mpeg2video", {}),  # jumps too far
    ("flv", "libx264", {}),
    ("mpeg", "mpeg2video", {}),
    ("asf", "wmv2", {}),
    ("webm", "libvpx-vp9", {"deadline": "realtime"}),
]


@needs_av
@pytest.mark.parametrize(("container", "codec", "options"), LONG)
def test_long_videos_are_jumped_through(container, codec, options):
    data = video(256, container=container, codec=codec, rate=25, **options)
    for n in (2, 6, 40):
        images = frames(data, n)
        assert near(images, expected(256, n), by=6), greys(images)


@needs_av
@pytest.mark.parametrize(("container", "codec", "options"), LONG)
def test_videos_too_long_to_list(container, codec, options, monkeypatch):
    """Their frames are taken at times that are guessed from the length."""
    monkeypatch.setattr(video_code, "INDEX_SECONDS", -1)
    images = frames(video(256, container=container, codec=codec, rate=25, **options), 6)
    by = 40 if container == "mpeg" else 14  # which says no length, so that FFmpeg guesses that too
    assert near(images, expected(256, 6), by), greys(images)


@needs_av
def test_videos_from_everywhere(tmp_path):
    data = videos()["mp4"].data
    path = tmp_path / "clip.png"  # endings do not matter
    path.write_bytes(data)
    for source in (path, str(path), path.as_uri(), data, io.BytesIO(data), memoryview(data)):
        assert near(frames(source, 2), [0, 255])
    with path.open("rb") as file:
        assert near(frames(file, 2), [0, 255])
    with serve(lambda h: send(h, data)) as server:
        assert near(frames(server.url, 2, allow_private=True), [0, 255])
    assert near(load_images(frames(path, 2)), [0, 255])


@needs_av
def test_a_video_held_upright_is_turned():
    lying = bytearray(videos()["mp4"].data)
    place = lying.index(b"tkhd") + 4 + 40
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    assert struct.unpack_from(">i", lying, place) == (1 << 16,)
    lying[place : place + 36] = quarter
    assert {image.size for image in frames(bytes(lying), 2)} == {(32, 48)}


@needs_av
def test_sound_without_pictures():
    import av
    import numpy as np

    for container, codec, words in (("mp4", "aac", "no moving pictures"), ("ipod", "aac", "sound")):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as out:
            stream = out.add_stream(codec, rate=44100, layout="mono")
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.rate = 44100
            out.mux(stream.encode(sound))
            out.mux(stream.encode())
        with helpful(ImageError, words):
            frames(file.getvalue())


@needs_av
@pytest.mark.parametrize("container", ["mp4", "mov", "matroska", "avi"])
@pytest.mark.parametrize("part", [0.02, 0.5])
def test_a_damaged_video(container, part):
    data = videos()[container].data
    try:
        images = frames(data[: int(len(data) * part)], 3)
    except ImageError as error:
        assert "damaged or incomplete" in error.what
    else:
        assert (
            container in ("matroska", "avi") and greys(images)[0] == 0
        )  # made to be watched while they come


@needs_av
def test_load_image_refers_to_frames():
    with helpful(ImageError, "MP4", "video", "p3v.frames"):
        load_image(videos()["mp4"].data)


def test_nothing_that_moves():
    with helpful(ImageError, "a web page"):
        frames(b"<html>")
    with helpful(ImageError, "There is no file"):
        frames("nowhere.mp4")
    with helpful(ImageError, "damaged"):
        frames(corpus()["PNG RGB"].data[:60])


@pytest.mark.parametrize("n", [0, -1, 1.5, None, "3", 10**9])
def test_a_number_of_frames_that_is_none(n):
    with helpful(ImageError, "n is ", "number of frames"):
        frames(animations()["GIF animated"].data, n)


def test_without_its_reader(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # an import fails then
    with helpful(ImageError, 'pip install "phi3v-helpers[video]"'):
        frames(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom")


def test_frames_that_are_too_large_together(monkeypatch):
    monkeypatch.setattr(moving, "MAX_TOGETHER", 40 * 28 * 4)
    data = animated("GIF", 10)
    assert len(frames(data, 4)) == 4
    with helpful(ImageError, "too much memory", "n=4"):
        frames(data, 5)
    if videos():
        with helpful(ImageError, "too much memory", "n=2"):
            frames(videos()["mp4"].data, 8)


@pytest.mark.parametrize("format", ["WEBP", "GIF", "PNG"])
def test_an_animation_that_takes_too_long(format, monkeypatch):
    data = animated(format, 300)
    monkeypatch.setattr(moving, "MAX_SECONDS", 0)
    with helpful(ImageError, "takes more than"):
        frames(data, 2)


@needs_av
def test_a_video_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(video_code, "MAX_SECONDS", 0)
    with helpful(ImageError, "takes more than 0 s"):
        frames(videos()["mp4"].data)


@needs_av
def test_a_video_that_says_it_is_huge():
    data = videos()["matroska"].data
    place = data.index(b"\xb0\x81\x30\xba\x81\x20")  # width 48, height 32
    with helpful(ImageError):
        frames(data[:place] + b"\xb0\x82\xff\xff\xba\x82\xff\xff"[:6] + data[place + 6 :])


@needs_av
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch):
    """FFmpeg would follow it, to any file or address."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(videos()["mp4"].data)
    lists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {secret}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>{secret}</BaseURL></MPD>',
    ]
    monkeypatch.chdir(tmp_path)
    for text in lists:
        (tmp_path / "clip.mp4").write_text(text)
        with helpful(ImageError, "not a picture, but text"):
            frames(tmp_path / "clip.mp4")
        with helpful(ImageError, "damaged"):
            frames(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + text.encode())


@needs_av
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux does")
def test_no_file_stays_open(tmp_path):
    for name, sample in {**videos(), **animations()}.items():
        (tmp_path / name).write_bytes(sample.data)
        (tmp_path / f"{name} half").write_bytes(sample.data[: len(sample.data) // 2])

    def load_all():
        for path in tmp_path.iterdir():
            try:
                frames(path, 2)
            except ImageError:
                pass

    load_all()
    before = len(os.listdir("/proc/self/fd"))
    load_all()
    assert len(os.listdir("/proc/self/fd")) <= before


@needs_av
def test_what_lies_between_the_frames_is_jumped_over():
    data = video(3000, (320, 240), rate=25)
    started = time.perf_counter()
    assert near(frames(data, 8), expected(3000, 8))
    assert time.perf_counter() - started < 2
