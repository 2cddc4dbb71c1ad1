"""The upload-and-ask cell: choose pictures, ask, watch the answer come, stop it.

`Asker` does the work and knows no widgets; `upload_and_ask` lays the widgets out around it. On Colab nothing
that a thread says reaches the page: there `ask_in_cell` asks and answers within the running cell.
"""

import io
import sys
import threading
import time
from html import escape

from .errors import ImageError, Phi3VError
from .images import load_image

PAUSE = 0.05  # seconds between two updates of the page, at least


class Asker:
    """One question at a time, answered in a thread.

    model: a Phi3Vision. show(text, note, busy) is called from that thread with what was said so far (str), a
    line about it (str) and whether the model is at work (bool): at most 20 times a second, and at the end.
    """

    def __init__(self, model, show, **options):
        self._model = model
        self._show = show
        self._options = options
        self._stop = threading.Event()
        self._free = threading.Lock()  # taken while an answer is being written

    def ask(self, sources, question):
        """Begin to answer; returns at once. Does nothing while an earlier answer is being written."""
        if not self._free.acquire(blocking=False):
            return
        self._stop = threading.Event()
        threading.Thread(target=self._work, args=(sources, question, self._stop), daemon=True).start()

    def stop(self):
        """End the answer after the present token; returns at once."""
        self._stop.set()

    def _work(self, sources, question, stop):
        said, shown_at = "", time.monotonic()
        self._show(said, "Looking…", True)
        try:
            stream = self._model.stream(sources or None, question, stop=stop, **self._options)
            for piece in stream:
                said += piece
                if time.monotonic() - shown_at >= PAUSE:
                    self._show(said, "Writing…", True)
                    shown_at = time.monotonic()
            note = stream.answer.summary()
        except Phi3VError as error:
            note = str(error)
        except Exception as error:  # in a thread nobody else would see it
            note = f"Something went wrong ({type(error).__name__}: {error}). Please report it."
        self._free.release()  # first: who sees the end may ask at once
        self._show(said, note, False)


def upload_and_ask(model, question="What is shown in this image?", **options):
    """A small form to ask about your own pictures. Put it last in a cell.

    model: a Phi3Vision. question: the text to begin with. options: as in `Phi3Vision.ask`.
    Returns a widget; on Colab it asks within the cell, and returns the last Answer.
    """
    if "google.colab" in sys.modules:
        return ask_in_cell(model, question, sys.modules["google.colab"].files.upload, **options)
    return _form(model, question, options)


def uploaded_files(value):
    """The value of a FileUpload -> list of (file name, bytes), in ipywidgets 7 and 8 alike."""
    if isinstance(value, dict):  # 7: {name: {"content": bytes, ...}}
        return [(name, bytes(entry["content"])) for name, entry in value.items()]
    return [
        (entry["name"], bytes(entry["content"])) for entry in value
    ]  # 8: ({"name", "content": memoryview}, ...)


def ask_in_cell(model, question, upload, read=input, **options):
    """Upload pictures, then question after question until an empty one; interrupting the cell ends an answer.

    upload(): shows a file chooser, waits, and returns {file name: bytes}. read(prompt): returns a typed line.
    Returns the last Answer, or None.
    """
    files = upload()
    if not files:
        print("No picture was chosen. Run the cell again to choose one.")
        return None
    answer, asked = None, read(f"Question (empty: {question!r}): ") or question
    while asked:
        answer = _print_answer(model, list(files.values()), asked, options) or answer
        asked = read("Next question (empty: end): ")
    return answer


def _print_answer(model, pictures, question, options):
    stream = None
    try:
        stream = model.stream(pictures, question, **options)
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        if stream:
            stream.close()  # keeps what was said
    except Phi3VError as error:
        print(error)
    answer = stream.answer if stream else None
    if answer is not None:
        print(f"\n[{answer.summary()}]")
    return answer


def _form(model, question, options):
    import ipywidgets as widgets

    class Form(widgets.VBox):
        # What a notebook shows where the form cannot be: before it is run, or on a web page.
        def __repr__(self):
            return "A form to choose pictures and ask about them. Run this cell to use it."

    parts = {
        "upload": widgets.FileUpload(accept="image/*", multiple=True, description="Pictures"),
        "address": widgets.Text(placeholder="or a path or address (uploads above 10 MB may get lost)"),
        "preview": widgets.HBox(),
        "question": widgets.Textarea(value=question, rows=2, layout=widgets.Layout(width="98%")),
        "ask": widgets.Button(description="Ask", button_style="primary"),
        "stop": widgets.Button(description="Stop", disabled=True),
        "answer": widgets.HTML(),
        "status": widgets.HTML(),
    }
    upload, address, preview, text, ask, stop, answer, status = parts.values()
    address.layout.width, address.layout.flex = "auto", "1"
    rows = [widgets.HBox([upload, address]), preview, text, widgets.HBox([ask, stop]), answer, status]
    parts["form"] = Form(rows, layout=widgets.Layout(max_width="700px"))
    for name, widget in parts.items():
        widget.add_class(f"p3v-{name}")  # for tests in a browser

    def show(said, note, busy):  # from the thread: sets values, displays nothing
        answer.value = f'<div style="white-space: pre-wrap; line-height: 1.4">{escape(said)}</div>'
        status.value = f'<span style="opacity: 0.7">{escape(note)}</span>'
        ask.disabled, stop.disabled = busy, not busy

    asker = Asker(model, show, **options)

    def on_upload(_):
        preview.children = [_thumbnail(widgets, *file) for file in uploaded_files(upload.value)]

    def on_ask(_):
        typed = address.value.strip()
        sources = [content for _, content in uploaded_files(upload.value)]
        asker.ask(sources + ([typed] if typed else []), text.value)

    upload.observe(on_upload, "value")
    ask.on_click(on_ask)
    stop.on_click(lambda _: asker.stop())
    return parts["form"]


def _thumbnail(widgets, name, content):
    """A small view of an uploaded picture, or what is wrong with it."""
    try:
        image = load_image(content)
    except ImageError as error:
        return widgets.HTML(f"{escape(name)}: {escape(str(error))}")
    image.thumbnail((160, 160))
    file = io.BytesIO()
    image.save(file, "PNG")
    view = widgets.Image(value=file.getvalue(), format="png")
    view.layout.object_fit, view.layout.margin = "contain", "2px"
    return view
