"""The parts of a form that need JavaScript: a zone where pictures are dropped or pasted, thumbnails, a copy button.

They are anywidgets; where anywidget is missing, plain ipywidgets stand in. What a picture holds goes through
custom messages and never through a trait: a notebook saved with its widgets' state must not hold it.
"""

import base64
import io
from html import escape
from pathlib import Path

import ipywidgets as widgets
from traitlets import Bool, Unicode

from ..errors import Phi3VError
from .inbox import MAX_FILE, Inbox

try:
    import anywidget
except ImportError:
    anywidget = None

__all__ = ["MAX_FILE", "copy_button", "drop_zone", "has_anywidget", "take_files", "thumbnail"]

_FOLDER = Path(__file__).parent
_Base = anywidget.AnyWidget if anywidget else widgets.DOMWidget
_HINT = (
    "Files above 10 MB may get lost on the way, unless Jupyter was started with <code>make lab</code>. "
    "A path or an address always works."
)


def _read(name):
    return (_FOLDER / name).read_text(encoding="utf-8")


def has_anywidget():
    """Whether the real parts are made, and not those that stand in."""
    return anywidget is not None


# --- Files come in ---


def drop_zone(on_file, on_note, on_run=None):
    """The way files come in: dropped, pasted or chosen. A widget of the class p3v-zone.

    on_file(name, content) gets every file that is complete; a Phi3VError that it raises is told as a note.
    on_note(text) gets what went wrong, and "" when new files begin to come.
    on_run() is called at Ctrl+Enter or Cmd+Enter anywhere in the form around the zone, the closest p3v-form.
    """
    zone = DropZone(on_file, on_note, on_run) if has_anywidget() else _upload_button(on_file, on_note)
    return zone.add_class("p3v-zone")


class DropZone(_Base):
    """See drop_zone and drop_zone.js; the files themselves are the Inbox's affair."""

    _esm, _css = _read("drop_zone.js"), _read("zone.css")
    runs = Bool().tag(sync=True)  # else Ctrl+Enter is left to Jupyter

    def __init__(self, on_file, on_note, on_run=None):
        super().__init__(runs=on_run is not None)
        self._on_run = on_run
        self._inbox = Inbox(lambda message: self.send(message), on_file, on_note)
        self.on_msg(lambda _, message, buffers: self._receive(message, buffers))

    def _receive(self, message, buffers):
        if message["kind"] == "run":
            self._on_run()
        else:
            self._inbox.receive(message, buffers)


def _upload_button(on_file, on_note):
    upload = widgets.FileUpload(accept="image/*", multiple=True, description="Choose pictures")
    upload.layout.width = "auto"
    inbox = Inbox(lambda _: None, on_file, on_note)

    def on_value(_):
        files = take_files(upload)
        if files:
            inbox.take(files)

    upload.observe(on_value, "value")
    hint = widgets.HTML(f'<span style="opacity: 0.7">{_HINT}</span>')
    return widgets.VBox([upload.add_class("p3v-upload"), hint])


def take_files(upload):
    """Take the files out of a FileUpload: list of (name, bytes).

    To be called when its value changes. It is emptied at once, or the pictures would be saved with the notebook; as
    that changes the value again, this is called again, and gives [].
    """
    files = uploaded_files(upload.value)
    if files:
        _empty(upload)
    return files


def uploaded_files(value):
    """The value of a FileUpload -> list of (file name, bytes), in ipywidgets 7 and 8 alike."""
    if isinstance(value, dict):  # 7: {name: {"content": bytes, ...}}
        return [(name, bytes(entry["content"])) for name, entry in value.items()]
    return [(entry["name"], bytes(entry["content"])) for entry in value]  # 8: ({"name", "content", ...}, ...)


def _empty(upload):
    if isinstance(upload.value, dict):  # 7: three traits hold it, and the value is made of them
        upload.data, upload.metadata = [], []
        upload.set_trait("value", {})
    else:
        upload.value = ()


# --- Pictures are shown ---


def thumbnail(image, alt, height=72):
    """A small view of a PIL image. alt: what it shows, for those who cannot see it. height: in pixels."""
    content = _small(image, height)
    view = (Thumbnail if has_anywidget() else _plain_thumbnail)(content, alt, height)
    return view.add_class("p3v-thumbnail")


class Thumbnail(_Base):
    """A picture that is sent when the page asks for it."""

    _esm, _css = _read("thumbnail.js"), _read("zone.css")

    def __init__(self, content, alt, height):
        super().__init__()
        self._content, self._about = content, {"kind": "picture", "alt": alt, "height": height}
        self.on_msg(lambda *_: self.send(self._about, [self._content]))


def _plain_thumbnail(content, alt, height):
    address = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    return widgets.HTML(f'<img src="{address}" alt="{escape(alt)}" height="{height}">')


def _small(image, height):
    """The bytes of a JPEG for sharp screens: of twice the height, and never wider than four times its height."""
    scale = min(8 * height / image.width, 2 * height / image.height, 1)
    size = [max(1, round(side * scale)) for side in image.size]
    file = io.BytesIO()
    image.convert("RGB").resize(size, reducing_gap=2).save(file, "JPEG", quality=85)
    return file.getvalue()


# --- Text is copied ---


def copy_button(label, make_text):
    """A button that puts what make_text() returns (str) on the clipboard. A widget with a part of the class p3v-copy.

    A Phi3VError that make_text raises is told beside the button. Without anywidget the clipboard is out of reach:
    then the button only calls make_text, which should show the text as well.
    """
    return CopyButton(label, make_text) if has_anywidget() else _plain_button(label, make_text)


class CopyButton(_Base):
    """Asks Python for the text when it is clicked, and says how it went."""

    _esm, _css = _read("copy_button.js"), _read("zone.css")
    label = Unicode().tag(sync=True)

    def __init__(self, label, make_text):
        super().__init__(label=label)
        self._make_text = make_text
        self.on_msg(lambda _, message, __: self._answer(message["id"]))
        self.add_class("p3v-copy")

    def click(self):
        """As if it were clicked, but for the clipboard, which only a reader's own click opens."""
        self._answer(None)

    def _answer(self, view):
        text, trouble = _attempt(self._make_text)
        self.send({"kind": "text", "id": view, "text": text, "trouble": trouble})


def _plain_button(label, make_text):
    button, note = widgets.Button(description=label), widgets.HTML()
    button.layout.width = "auto"

    def on_click(_):
        _, trouble = _attempt(make_text)
        note.value = escape(trouble)

    button.on_click(on_click)
    return widgets.HBox([button.add_class("p3v-copy"), note])


def _attempt(make_text):
    """(text, "") or ("", what went wrong)."""
    try:
        return make_text(), ""
    except Phi3VError as error:
        return "", str(error)
    except Exception as error:  # in the handler of a message nobody would see it
        return "", f"Something went wrong ({type(error).__name__}: {error}). Please report it."
