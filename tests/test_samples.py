"""The shipped pictures."""

from pathlib import Path

import pytest
from helpful import helpful
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers.errors import ImageError

NAMES = p3v.samples.names()


def test_what_the_lessons_need_is_there():
    assert {"stock_chart", "book_cover", "shapes_1", "shapes_2"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_picture_with_all_that_must_be_known_of_it(name):
    image = p3v.samples[name]
    assert isinstance(image, Image.Image) and image.mode == "RGB" and min(image.size) >= 100
    assert getattr(p3v.samples, name).tobytes() == image.tobytes()
    path = p3v.samples.path(name)
    assert isinstance(path, Path) and path.is_file() and path.stat().st_size < 500_000
    info = p3v.samples.info(name)
    for key in ("title", "licence", "source", "alt"):
        assert isinstance(info[key], str) and info[key].strip(), f"{name} has no {key}"
    assert p3v.load_image(path).size == image.size


def test_every_picture_in_the_folder_is_in_the_list():
    folder = p3v.samples.path(NAMES[0]).parent
    listed = {p3v.samples.path(name).name for name in NAMES}
    assert {path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".webp")} == listed


def test_it_is_like_a_mapping():
    assert list(p3v.samples) == NAMES and len(p3v.samples) == len(NAMES)
    assert NAMES[0] in p3v.samples and "nothing" not in p3v.samples
    assert set(NAMES) <= set(dir(p3v.samples))


def test_each_time_a_new_picture():
    p3v.samples[NAMES[0]].putpixel((0, 0), (1, 2, 3))
    assert p3v.samples[NAMES[0]].getpixel((0, 0)) != (1, 2, 3)
    p3v.samples.info(NAMES[0])["alt"] = "changed"
    assert p3v.samples.info(NAMES[0])["alt"] != "changed"


def test_unknown_names():
    for wrong in (p3v.samples.path, p3v.samples.info, p3v.samples.__getitem__):
        with helpful(ImageError, "'stock_chrat'", "stock_chart"):
            wrong("stock_chrat")
    with pytest.raises(AttributeError, match="stock_chrat"):
        p3v.samples.stock_chrat  # noqa: B018
