"""The pictures of a form, and the files and expressions that code gets for them."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from helpful import helpful
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers.widgets.tray import FOLDER, Tray, add_all


def picture(colour="red", size=(40, 30)):
    return Image.new("RGB", size, colour)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def names(tray):
    return [picture.name for picture in tray.pictures]


def same(left, right):
    return np.array_equal(np.asarray(left), np.asarray(right))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder of a notebook's own."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# --- what comes in ---


def test_kinds_and_names(here):
    picture().save("red.png")
    tray = Tray()
    for source, name, kind, shown in (
        ("stock_chart", None, "sample", p3v.samples.info("stock_chart")["title"]),
        ("red.png", None, "path", "red.png"),
        (f"  {here}/red.png ", None, "path", "red.png"),
        (Path("red.png"), None, "path", "red.png"),
        (encoded(picture()), "mine.png", "upload", "mine.png"),
        (bytearray(encoded(picture())), "", "upload", "picture of 40 x 30"),
        (memoryview(encoded(picture())), None, "upload", "picture of 40 x 30"),
        (picture(), None, "given", "picture of 40 x 30"),
        (np.zeros((3, 5, 3), np.uint8), None, "given", "picture of 5 x 3"),
    ):
        added = tray.add(source, name)
        assert (added.kind, added.name) == (kind, shown)
        assert added is tray.pictures[-1] and added.image.mode == "RGB"
    assert len(tray.images) == len({picture.key for picture in tray.pictures}) == 9
    assert tray.pictures[0].alt == p3v.samples.info("stock_chart")["alt"]
    assert tray.pictures[1].alt == "red.png"


def test_an_address(monkeypatch):
    content = encoded(picture("blue"))
    monkeypatch.setattr("phi3v_helpers.images.fetching.download", lambda address, *_, **__: content)
    added = Tray().add("HTTPS://example.org/pictures/blue.png?size=9")
    assert (added.kind, added.name) == ("address", "blue.png")
    assert same(added.image, picture("blue"))


def test_every_change_is_told():
    seen = []
    tray = Tray(lambda: seen.append(len(tray.pictures)))
    first, second = tray.add(picture()), tray.add(picture())
    tray.move(first.key, 1)
    tray.remove(second.key)
    tray.clear()
    assert seen == [1, 2, 2, 1, 0]


def test_add_all():
    assert add_all(Tray(), None).pictures == []
    assert names(add_all(Tray(), "shapes_1")) == [p3v.samples.info("shapes_1")["title"]]
    assert len(add_all(Tray(), ("shapes_1", picture())).pictures) == 2
    with helpful(p3v.ImageError, "nowhere.png"):
        add_all(Tray(), ["shapes_1", "nowhere.png"])


@pytest.mark.parametrize(
    "source, words",
    [
        ("nowhere.png", "There is no file 'nowhere.png'."),
        ("", "The path is empty."),
        ("   ", "The path is empty."),
        (b"no picture", "not a picture"),
        (b"", "0 bytes"),
        (encoded(Image.effect_noise((90, 90), 9))[:400], "damaged"),
        ("file:///etc/passwd", "'/etc/passwd' is not a picture, but text"),
        (17, "A int is no picture."),
        (None, "A NoneType is no picture."),
    ],
)
def test_errors_leave_all_as_it_was(source, words):
    seen = []
    tray = Tray(lambda: seen.append(1))
    tray.add(picture())
    before = tray.pictures
    with helpful(p3v.ImageError, words):
        tray.add(source)
    assert tray.pictures is before and seen == [1]


# --- order ---


@pytest.mark.parametrize(
    "moved, by, order",
    [
        ("a", 1, "bac"),
        ("a", 2, "bca"),
        ("a", 9, "bca"),
        ("a", -1, "abc"),
        ("b", -1, "bac"),
        ("b", 1, "acb"),
        ("b", 0, "abc"),
        ("c", 1, "abc"),
        ("c", -1, "acb"),
        ("c", -9, "cab"),
    ],
)
def test_moving_stops_at_the_ends(moved, by, order):
    tray = Tray()
    keys = {name: tray.add(encoded(picture()), name).key for name in "abc"}
    tray.move(keys[moved], by)
    assert "".join(names(tray)) == order
    assert all(tray.pictures[order.index(name)].key == key for name, key in keys.items())


def test_what_is_gone_can_be_moved_and_removed_without_harm():
    tray = add_all(Tray(), [picture(), picture()])
    gone = tray.pictures[0].key
    tray.remove(gone)
    left = tray.pictures
    tray.remove(gone)
    tray.move(gone, 1)
    assert tray.pictures == left


def test_a_list_once_got_stays_as_it_was():
    tray = add_all(Tray(), [picture("red"), picture("blue")])
    got, copy = tray.pictures, list(tray.pictures)
    tray.move(got[0].key, 1)
    tray.add(picture())
    tray.remove(got[1].key)
    assert got == copy


def test_pictures_that_come_in_while_others_go():
    tray = Tray()
    content = encoded(picture())

    def work():
        for _ in range(50):
            keep, drop = tray.add(content), tray.add(content)
            tray.move(keep.key, -1)
            tray.remove(drop.key)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tray.pictures) == len({picture.key for picture in tray.pictures}) == 200


# --- as code ---


def read(expression):
    """The picture that an expression gives to `ask`."""
    return p3v.load_image(eval(expression, {"p3v": p3v}))


def test_every_kind_reads_again_to_the_same_pixels(here, monkeypatch):
    noise = Image.effect_noise((50, 40), 90).convert("RGB")
    noise.save("noise.png")
    content = encoded(picture("blue"))
    monkeypatch.setattr("phi3v_helpers.images.fetching.download", lambda address, *_, **__: content)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # lies on its side
    photo = io.BytesIO()
    noise.save(photo, "JPEG", exif=rotated)
    sources = [
        "clouds",
        "noise.png",
        Path("noise.png"),
        "https://example.org/blue.png",
        encoded(noise),
        photo.getvalue(),
        encoded(Image.new("RGBA", (9, 9), (255, 0, 0, 90))),
        encoded(noise, "WEBP"),
        noise,
        np.asarray(noise),
    ]
    tray = add_all(Tray(), sources)
    expressions = tray.as_code()
    assert expressions[:4] == [
        'p3v.samples["clouds"]',
        "'noise.png'",
        "'noise.png'",
        "'https://example.org/blue.png'",
    ]
    assert all(same(read(e), image) for e, image in zip(expressions, tray.images, strict=True))
    assert tray.images[5].size == (40, 50)
    assert all(e.startswith(f"'{FOLDER}/picture-of-") for e in expressions[4:])


def test_uploads_are_written_as_they_came(here):
    photo = encoded(Image.effect_noise((50, 40), 90).convert("RGB"), "JPEG")
    tray = Tray()
    tray.add(photo, "photo.JPG")
    assert tray.as_code() == [f"'{FOLDER}/photo.jpg'"]
    assert (here / FOLDER / "photo.jpg").read_bytes() == photo


def test_uploads_are_written_once(here):
    tray = Tray()
    tray.add(encoded(picture("red")), "a.png")
    tray.add(picture("blue"))
    first = tray.as_code()
    times = {path: path.stat().st_mtime_ns for path in (here / FOLDER).iterdir()}
    assert tray.as_code() == first
    tray.add(encoded(picture("red")), "a.png")  # the same one again
    assert tray.as_code() == [*first, first[0]]
    assert {path: path.stat().st_mtime_ns for path in (here / FOLDER).iterdir()} == times
    assert len(times) == 2


def test_other_files_are_never_overwritten(here):
    folder = here / FOLDER
    folder.mkdir()
    (folder / "a.png").write_bytes(b"mine")
    (here / "elsewhere.txt").write_bytes(b"mine")
    (folder / "b.png").symlink_to(here / "nothing-yet.png")  # writing through it would make that file
    tray = Tray()
    for name, colour in (("a.png", "red"), ("a.png", "blue"), ("a.png", "red")):
        tray.add(encoded(picture(colour)), name)
    assert tray.as_code() == [f"'{FOLDER}/{name}.png'" for name in ("a-2", "a-3", "a-2")]
    assert (folder / "a.png").read_bytes() == b"mine"
    tray.clear()
    tray.add(encoded(picture()), "b.png")
    assert tray.as_code() == [f"'{FOLDER}/b-2.png'"]
    assert not (here / "nothing-yet.png").exists()


@pytest.mark.parametrize(
    "name, file",
    [
        ("../../etc/x.png", "x.png"),
        ("/etc/x.png", "x.png"),
        ("..\\..\\x.png", "x.png"),
        ("C:\\x.png", "C-x.png"),
        ("a b.png", "a-b.png"),
        ("", "picture-of-40-x-30.png"),
        ("..", "picture.png"),
        ("...png", "picture.png"),
        (".png", "png.png"),
        ("~/x.png", "x.png"),
        ("x.py", "x.png"),
        ("x", "x.png"),
        ("x.png\n", "x.png"),
        ("x.p\0ng", "x.png"),
        ("a\0b\n.png", "a-b.png"),
        ("x.\ud800", "x.png"),
        ("x\ud800y.png", "x-y.png"),
        ("Größe 1:2.jpeg", "Größe-1-2.jpeg"),
        ("😀.png", "picture.png"),
        ("$(reboot)'\".png", "reboot.png"),
        ("x" * 300 + ".png", "x" * 50 + ".png"),
        ("ü" * 300 + ".png", "ü" * 50 + ".png"),
    ],
)
def test_odd_names_stay_in_the_folder(here, name, file):
    tray = Tray()
    tray.add(encoded(picture("green")), name)
    expression = tray.as_code()[0]
    assert [path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()] == [
        f"{FOLDER}/{file}"
    ]
    assert eval(expression) == f"{FOLDER}/{file}"
    assert same(read(expression), picture("green"))


def test_odd_paths_are_written_as_python(here):
    for name in ('it\'s "quoted".png', "back\\slash.png", "a\nb.png", "😀\u2028.png"):
        picture().save(name)
        tray = add_all(Tray(), Path(name))
        assert same(read(tray.as_code()[0]), picture())


def test_a_folder_of_ones_own(here, tmp_path):
    tray = add_all(Tray(), picture())
    assert eval(tray.as_code(tmp_path / "deep" / "er")[0]) == f"{tmp_path}/deep/er/picture-of-40-x-30.png"
    assert not (here / FOLDER).exists()


def test_a_folder_that_cannot_be_written(here):
    (here / FOLDER).write_text("a file")
    with pytest.raises(OSError):
        add_all(Tray(), picture()).as_code()
    assert add_all(Tray(), "clouds").as_code() == ['p3v.samples["clouds"]']
