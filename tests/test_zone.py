"""Drop zone, thumbnails and copy button, without a browser: the page's messages come from page.py."""

import base64
import datetime
import io
import os
import re
import threading
import time
import tracemalloc

import ipywidgets
import pytest
import traitlets
from page import Page
from PIL import Image

from phi3v_helpers.errors import ImageError, Phi3VError
from phi3v_helpers.widgets import inbox, zone

IS_8 = int(ipywidgets.__version__.split(".")[0]) >= 8
needs_anywidget = pytest.mark.skipif(not zone.has_anywidget(), reason="anywidget is not installed")


@pytest.fixture
def plain(monkeypatch):
    """As where anywidget is missing."""
    monkeypatch.setattr(zone, "anywidget", None)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(inbox, "PIECE", 10)


class Form:
    """What a form around a zone notes down."""

    def __init__(self, on_file=None, runs=True):
        self.files, self.notes, self.runs = [], [], 0
        self.zone = zone.drop_zone(on_file or self.take, self.notes.append, self.run if runs else None)

    def take(self, name, content):
        self.files.append((name, content))

    def run(self):
        self.runs += 1

    @property
    def note(self):
        return self.notes[-1]


@pytest.fixture
def form():
    if not zone.has_anywidget():
        pytest.skip("anywidget is not installed")
    return Form()


@pytest.fixture
def page(form):
    return Page(form.zone)


def find(widget, name):
    """The widget with the class p3v-<name>."""
    if f"p3v-{name}" in widget._dom_classes:
        return widget
    found = (find(child, name) for child in getattr(widget, "children", ()))
    return next((widget for widget in found if widget is not None), None)


# --- Files come in ---


def test_a_file_comes_in_pieces_and_one_at_a_time(form, page, small_pieces):
    content = os.urandom(35)
    page.offer(("a.png", content))
    for at, length in ((0, 10), (10, 10), (20, 10), (30, 5)):
        (want,) = page.said("want")
        assert (want["at"], want["length"], want["name"], want["size"]) == (at, length, "a.png", 35)
        page.sent.clear()
        page.send_next()
    assert form.files == [("a.png", content)] and type(form.files[0][1]) is bytes
    assert page.said("want") == [] and page.holds == 0
    assert form.notes == [""]


def test_pieces_fit_through_every_default_limit():
    assert inbox.PIECE < 10 * 2**20 / 4
    assert zone.MAX_FILE == inbox.MAX_FILE == 200_000_000


def test_files_come_one_after_the_other(form, page, small_pieces):
    files = [(f"{n}.png", os.urandom(n)) for n in (25, 10, 0, 0, 31)]
    page.drop(*files)
    assert form.files == files and page.holds == 0
    page.drop(*files[:2])
    assert form.files == files + files[:2]


def test_a_second_file_in_the_middle_waits_for_its_turn(form, page, small_pieces):
    one, two = os.urandom(25), os.urandom(15)
    page.offer(("one.png", one))
    page.send_next()
    page.drop(("two.png", two))
    assert form.files == [("one.png", one), ("two.png", two)]
    assert form.notes == [""]


def test_two_pages_with_the_same_zone(form, small_pieces):
    one, two = Page(form.zone), Page(form.zone)
    form.zone.send = lambda message, buffers=None: [page._take(message, buffers) for page in (one, two)]
    contents = os.urandom(25), os.urandom(15)
    one.offer(("one.png", contents[0]))
    two.offer(("two.png", contents[1]))
    while form.zone._inbox._queue:
        for page in (one, two):
            if page._waiting:
                page.send_next()
    assert form.files == [("one.png", contents[0]), ("two.png", contents[1])]
    assert (one.holds, two.holds) == (0, 0)


@pytest.mark.parametrize("at, piece", [(20, b"x" * 10), (10, b""), (10, b"x" * 16), (10, None)], ids=str)
def test_pieces_that_do_not_fit_end_the_transfer(form, page, small_pieces, at, piece):
    file_id, _ = page.offer(("a.png", os.urandom(25)), ("b.png", b"good"))
    page.send_next()
    page.say(*([] if piece is None else [piece]), kind="piece", id=file_id, at=at)
    assert form.note == "'a.png' arrived damaged. Choose it again."
    assert {"kind": "done", "id": file_id} in page.said("done")
    page._waiting.pop(0)  # what was asked for of the first file
    page.send_next()
    assert form.files == [("b.png", b"good")], "the next one comes all the same"


def test_a_piece_that_comes_twice_or_late_is_no_harm(form, page, small_pieces):
    content = os.urandom(25)
    (file_id,) = page.offer(("a.png", content))
    page.send_next()
    page.say(content[:10], kind="piece", id=file_id, at=0)
    page.say(b"x" * 10, kind="piece", id="of another file", at=0)
    assert len(page.said("want")) == 2
    page.send_next(), page.send_next()
    page.say(content[20:], kind="piece", id=file_id, at=20)
    assert form.files == [("a.png", content)]


def test_more_files_wake_a_transfer_that_was_interrupted(form, page, small_pieces):
    content = os.urandom(25)
    page.offer(("a.png", content))
    page._waiting.clear()  # its message was lost
    page.drop(("b.png", b"b"))
    assert form.files == [("a.png", content), ("b.png", b"b")]


def test_a_file_that_cannot_be_read_in_the_page(form, page, small_pieces):
    folder, _ = page.offer(("folder", b"x" * 40), ("b.png", b"b"))
    page.say(kind="lost", id=folder)
    assert form.note == "'folder' could not be read to its end. Choose it again."
    page._waiting.pop(0)
    page.send_next()
    assert form.files == [("b.png", b"b")]


def test_a_page_that_is_loaded_anew_ends_what_came_from_it(form, small_pieces):
    page = Page(form.zone)
    page.say(kind="hello")
    assert form.notes == [], "nothing was lost"
    page.offer(("a.png", b"x" * 25), ("b.png", b"b"))
    page.send_next()
    page = Page(form.zone)
    page.say(kind="hello")
    assert form.note == "2 files did not arrive: the page was loaded anew. Choose again."
    page.drop(("c.png", b"c" * 25))
    assert form.files == [("c.png", b"c" * 25)] and form.note == ""


def test_too_large_a_file_is_not_even_asked_for(form, page):
    offered = {"id": "1", "name": "big.tif", "type": "image/tiff", "size": zone.MAX_FILE + 1}
    page.say(kind="offer", files=[offered])
    assert "'big.tif' has 200 MB; 200 MB is the most." in form.note and "give its path" in form.note
    assert page.said("want") == [] and page.said("done") == [{"kind": "done", "id": "1"}]
    page.say(kind="offer", files=[{**offered, "size": zone.MAX_FILE}])
    assert len(page.said("want")) == 1 and form.note == ""


def test_what_is_no_picture_is_refused_and_the_rest_taken(form, page):
    page.offer(("notes.txt", b"x"), type="text/plain")
    assert form.note.startswith("'notes.txt' is no picture but text/plain. Choose a PNG")
    assert page.holds == 0
    page.drop(("unknown to this browser.heic", b"x"), type="")
    assert len(form.files) == 1 and form.note == ""
    page.say(kind="offer", files=[])
    assert form.note.startswith("What came was no file.")


def test_many_troubles_are_told_in_a_few_sentences(form, page):
    page.offer(*[(f"{n}.txt", b"") for n in range(20)], type="text/plain")
    assert form.note.count("is no picture") == 3 and form.note.endswith(" And 17 more.")
    page.offer(("x" * 250 + ".txt", b""), type="text/plain")
    assert len(form.note) < 200


def test_what_goes_wrong_with_a_file_is_a_note(small_pieces):
    if not zone.has_anywidget():
        pytest.skip("anywidget is not installed")
    taken = []

    def on_file(name, content):
        if name == "bad.png":
            raise ImageError("The picture is damaged.", "Save it again.")
        if name == "worse.png":
            raise ZeroDivisionError("oh")
        taken.append(name)

    form = Form(on_file)
    Page(form.zone).drop(("bad.png", b"x" * 12), ("worse.png", b"x"), ("good.png", b"x" * 30))
    assert taken == ["good.png"]
    assert "'bad.png': The picture is damaged. Save it again." in form.note
    assert "'worse.png': something went wrong (ZeroDivisionError: oh)" in form.note


def test_an_interrupted_kernel_loses_one_file_and_no_more():
    if not zone.has_anywidget():
        pytest.skip("anywidget is not installed")
    taken = []

    def on_file(name, content):
        taken.append(name)
        if name == "a.png":
            raise KeyboardInterrupt

    form = Form(on_file)
    page = Page(form.zone)
    page.offer(("a.png", b"a"), ("b.png", b"b"))
    with pytest.raises(KeyboardInterrupt):
        page.send_next()
    page.send_next()
    assert taken == ["a.png", "b.png"] and page.holds == 0


@needs_anywidget
def test_two_threads_do_not_hand_over_at_once(small_pieces):
    """JupyterLab deals with messages in two threads: more files may be offered while on_file is at work."""
    inside, most, entered = 0, 0, threading.Event()

    def on_file(name, content):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        entered.set()
        time.sleep(0.05)
        inside -= 1

    page = Page(Form(on_file).zone)
    thread = threading.Thread(target=page.drop, args=(("a.png", b"x" * 35),))
    thread.start()
    assert entered.wait(5)
    page.drop(("b.png", b"b"))
    thread.join()
    assert most == 1 and page.holds == 0


def test_ctrl_enter_runs(form, page):
    page.say(kind="run")
    assert form.runs == 1 and form.zone.runs


@needs_anywidget
def test_without_on_run_the_key_is_left_to_jupyter():
    assert Form(runs=False).zone.runs is False


def text_of(state):
    """Everything in a widget's state, as one text."""
    return repr(state)


def test_the_state_holds_nothing_of_a_file(form, page, small_pieces):
    before = text_of(form.zone.get_state())
    page.offer(("secret.png", b"s3cret-" * 9))
    page.send_next()
    assert text_of(form.zone.get_state()) == before
    page.send_next()
    while page._waiting:
        page.send_next()
    assert len(form.files) == 1 and text_of(form.zone.get_state()) == before
    assert "s3cret" not in before and "secret" not in before


def test_memory_is_bounded(form):
    """A file is held once while it comes in; what was announced costs nothing."""
    page = Page(form.zone)
    tracemalloc.start()
    page.say(kind="offer", files=[{"id": "1", "name": "a.tif", "type": "image/tiff", "size": zone.MAX_FILE}])
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    piece = bytes(inbox.PIECE)
    for at in range(0, 40_000_000, inbox.PIECE):
        page.say(piece, kind="piece", id="1", at=at)
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    page.say(kind="lost", id="1")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 5_000_000


# --- Without anywidget: FileUpload ---


def choose(upload, *files):
    """As if a reader had chosen (name, content), in the shape of the ipywidgets that is installed."""
    about = [{"name": name, "type": "image/png", "size": len(content)} for name, content in files]
    if IS_8:
        now = datetime.datetime.now(datetime.timezone.utc)
        upload.value = tuple(
            {**entry, "content": memoryview(content), "last_modified": now}
            for entry, (_, content) in zip(about, files)
        )
    else:
        contents = [memoryview(content) for _, content in files]
        upload.set_state({"metadata": about, "data": contents, "_counter": upload._counter + len(files)})


def test_upload_button_where_anywidget_is_missing(plain):
    assert not zone.has_anywidget()
    form = Form()
    assert "p3v-zone" in form.zone._dom_classes
    upload = find(form.zone, "upload")
    assert upload.multiple and upload.accept == "image/*"
    choose(upload, ("a.png", b"aaa"), ("b.png", b"bbb"))
    assert form.files == [("a.png", b"aaa"), ("b.png", b"bbb")] and form.notes == [""]
    assert not upload.value
    choose(upload, ("a.png", b"aaa"))
    assert len(form.files) == 3, "the same file may be chosen again"
    hint = form.zone.children[1].value
    assert "10 MB" in hint and "make lab" in hint and "path" in hint


def test_upload_button_keeps_no_picture_in_its_state(plain):
    form = Form()
    upload = find(form.zone, "upload")
    choose(upload, ("a.png", b"s3cret"))
    assert form.files
    state = text_of({name: list(map(bytes_of, [value])) for name, value in upload.get_state().items()})
    assert "s3cret" not in state


def bytes_of(value):
    """A memoryview would hide what it holds."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, (list, tuple)):
        return [bytes_of(entry) for entry in value]
    return {k: bytes_of(v) for k, v in value.items()} if isinstance(value, dict) else value


class OtherUpload(ipywidgets.VBox):
    """A FileUpload of the ipywidgets that is not installed here, as far as the zone uses it."""

    value = traitlets.Any(() if not IS_8 else {})

    def __init__(self, **_):
        super().__init__()
        self.data, self.metadata = [], []


def test_upload_button_of_the_other_ipywidgets(plain, monkeypatch):
    monkeypatch.setattr(ipywidgets, "FileUpload", OtherUpload)
    form = Form()
    upload = find(form.zone, "upload")
    seven = {"a.png": {"metadata": {"name": "a.png"}, "content": b"aaa"}}
    eight = ({"name": "a.png", "content": memoryview(b"aaa")},)
    upload.data = [b"aaa"]
    upload.value = seven if IS_8 else eight
    assert form.files == [("a.png", b"aaa")]
    assert not upload.value
    assert not IS_8 or upload.data == upload.metadata == []


def test_upload_button_tells_troubles(plain):
    def on_file(name, content):
        raise ImageError("The picture is damaged.", "Save it again.")

    form = Form(on_file)
    choose(find(form.zone, "upload"), ("a.png", b"aaa"))
    assert form.notes == ["", "'a.png': The picture is damaged. Save it again."]


# --- Thumbnails ---


@needs_anywidget
@pytest.mark.parametrize(
    "size, expected",
    [((4000, 3000), (192, 144)), ((9000, 100), (576, 6)), ((1, 5000), (1, 144)), ((20, 10), (20, 10))],
)
def test_a_thumbnail_is_sent_when_the_page_asks(size, expected):
    view = zone.thumbnail(Image.new("RGB", size, "red"), "A <red> thing")
    page = Page(view)
    assert page.sent == []
    page.say(kind="ready")
    ((message, (content,)),) = page.sent
    assert message == {"kind": "picture", "alt": "A <red> thing", "height": 72}
    small = Image.open(io.BytesIO(content))
    assert small.size == expected and small.getpixel((0, 0))[0] > 240
    assert len(content) < 20_000
    state = repr(view.get_state())
    assert "red" not in re.sub("_esm.*", "", state) and repr(content)[2:40] not in state


@needs_anywidget
def test_a_thumbnail_of_any_mode_and_height():
    for mode in ("L", "RGBA", "P", "RGB"):
        page = Page(zone.thumbnail(Image.new(mode, (300, 200)), "", height=40))
        page.say(kind="ready")
        assert Image.open(io.BytesIO(page.sent[0][1][0])).size == (120, 80)


def test_a_plain_thumbnail(plain):
    view = zone.thumbnail(Image.new("RGB", (4000, 3000), "red"), 'A "red" <thing>')
    assert "p3v-thumbnail" in view._dom_classes
    assert 'alt="A &quot;red&quot; &lt;thing&gt;"' in view.value and 'height="72"' in view.value
    content = base64.b64decode(re.search('base64,([^"]+)', view.value)[1])
    assert Image.open(io.BytesIO(content)).size == (192, 144) and len(content) < 20_000


# --- The copy button ---


@needs_anywidget
def test_the_text_goes_to_the_view_that_asked():
    button = zone.copy_button("Copy as code", lambda: "print('ä')")
    page = Page(button)
    page.say(kind="copy", id="a view")
    assert page.sent[0][0] == {"kind": "text", "id": "a view", "text": "print('ä')", "trouble": ""}
    assert button.label == "Copy as code" and "p3v-copy" in button._dom_classes


def failing(error):
    def make_text():
        raise error

    return make_text


TROUBLES = [
    (Phi3VError("No <picture>.", "Add one."), "No <picture>. Add one."),
    (ZeroDivisionError("oh"), "Something went wrong (ZeroDivisionError: oh). Please report it."),
]


@needs_anywidget
@pytest.mark.parametrize("error, told", TROUBLES)
def test_what_make_text_raises_is_told_in_the_page(error, told):
    page = Page(zone.copy_button("Copy", failing(error)))
    page.say(kind="copy", id="a view")
    assert page.sent[0][0] == {"kind": "text", "id": "a view", "text": "", "trouble": told}


@pytest.mark.parametrize("error, told", TROUBLES)
def test_what_make_text_raises_is_told_beside_the_plain_button(plain, error, told):
    row = zone.copy_button("Copy", failing(error))
    find(row, "copy").click()
    assert row.children[1].value == told.replace("<", "&lt;").replace(">", "&gt;")


def test_both_buttons_can_be_clicked_from_python(monkeypatch):
    made = []
    for _ in range(2):
        find(zone.copy_button("Copy", lambda: made.append(1) or ""), "copy").click()
        monkeypatch.setattr(zone, "anywidget", None)
    assert made == [1, 1]


# --- What the page gets ---


def test_nothing_is_fetched_from_elsewhere():
    for path in zone._FOLDER.glob("*.[jc]s*"):
        assert not re.search(r"https?:|\bimport\b|@import|url\(", path.read_text(encoding="utf-8")), path.name
