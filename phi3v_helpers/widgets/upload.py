"""The upload-and-ask cell: choose pictures, ask, watch the answer come, stop it. The smallest of the forms."""

import sys

import ipywidgets as widgets

from ..errors import ImageError
from ..images import load_image
from . import markup, parts, zone
from .reuse import close


def upload_and_ask(model, question="What is shown in this image?", **options):
    """A small form to ask about your own pictures. Put it last in a cell.

    model: a Phi3Vision. question: the text to begin with. options: as in `Phi3Vision.ask`.
    Returns a widget; on Colab it asks within the cell, and returns the last Answer.
    """
    if "google.colab" in sys.modules:
        from .cell import playground_in_cell

        return playground_in_cell(model, None, question, **options)
    return UploadForm(model, question, options)


class UploadForm(parts.Form):
    """The form: one question at a time, about the pictures that were chosen last and the one of the path."""

    def __init__(self, model, question, options):
        self._model, self._options = model, options
        # What was chosen last, as bytes.
        self._files = []
        self._make_parts(question)
        rows = [
            widgets.HBox([self._upload, self._address]),
            self._preview,
            self._question,
            widgets.HBox([self._run, self._stop]),
            self._view.widget,
        ]
        super().__init__(rows, "upload-and-ask", "A form to choose pictures and ask about them.")

    def _make_parts(self, question):
        self._upload = widgets.FileUpload(accept="image/*", multiple=True, description="Pictures")
        hint = "or a path or address (uploads above 10 MB may get lost)"
        self._address = widgets.Text(placeholder=hint, layout=parts.WIDE)
        self._preview = widgets.HBox(layout=parts.WRAP)
        self._question = widgets.Textarea(value=question, rows=2, layout=parts.FULL)
        named = {"address": self._address, "preview": self._preview, "question": self._question}
        for name, widget in named.items():
            parts.hook(widget, name)
        parts.hook(self._upload, "upload").observe(self._on_upload, "value")
        self._make_actions(parts.button("Ask", "ask", self.ask, button_style="primary"))
        self._view = parts.AnswerView()

    def ask(self):
        """Ask what stands in the form: a Job, or None, and nothing is done, while an answer is being written."""
        typed, question = self._address.value.strip(), self._question.value
        sources = self._files + ([typed] if typed else [])
        return self._controller.submit(
            lambda stop: self._model.stream(sources or None, question, stop=stop, **self._options),
            self._on_job,
            only_if_free=True,
        )

    def _on_job(self, job):  # from the controller's thread
        self._show_busy(not job.over)
        self._view.show(job)

    def _on_upload(self, _):
        files = zone.take_files(self._upload)
        if files:  # else it was emptied
            self._files = [content for _, content in files]
            old = self._preview.children
            self._preview.children = [_thumbnail(*file) for file in files]
            for view in old:
                close(view)


def _thumbnail(name, content):
    """A small view of an uploaded picture, or what is wrong with it."""
    try:
        return zone.thumbnail(load_image(content), name, height=120)
    except ImageError as error:
        return widgets.HTML(markup.alarm(f"{name}: {error}"))
