"""The playground: pictures, a question, settings; run, stop, look at what the model sees, take it along as code."""

import sys

import ipywidgets as widgets

from ..demo import QUESTIONS
from ..prompts import build_prompt
from . import markup, parts, snippet
from .tray import Tray, add_all

READY = {
    "Describe": "Describe this image in detail.",
    "Read the text": "Read out the text in this image.",
    "Count": "How many shapes are there?",
    "Make a table": "Put the data in this image into a table.",
    "Introduce a stock": QUESTIONS[0][1],
    "Title and author": QUESTIONS[1][1],
    "Compare two pictures": QUESTIONS[2][1],
}
PROMPT_STYLE = "white-space: pre-wrap; margin: 0; line-height: 1.3; max-height: 12em; overflow: auto"
SHOWN = 50  # entries of the history that are shown; the list itself has all


def playground(model, images=None, question="What is shown in this image?"):
    """Ask about your own pictures. Put it last in a cell.

    model: a Phi3Vision. images: to begin with: None, one source or a list, each as in `load_image` or a name of a
    sample. question: str, the text to begin with.
    Returns a Playground; its `history` is a list of what was asked and answered. On Colab, where no button works
    while an answer is written, it asks within the cell and returns the last Answer.
    Raises ImageError: a picture that cannot be read.
    """
    if "google.colab" in sys.modules:
        from .cell import playground_in_cell

        return playground_in_cell(model, images, question)
    return Playground(model, images, question)


class Playground(parts.Form):
    """The form. history: list of dicts with question, pictures (names), options, answer (str), state and note."""

    def __init__(self, model, images=None, question=""):
        self._model = model
        # Of the last question, so that its code gives the same answer.
        self._seed = None
        self._tray = add_all(Tray(), images)
        self.history = []
        self._make_parts(question)
        super().__init__(self._rows(), "playground", "A form to choose pictures and ask about them.")
        self._tray.on_change = self._on_pictures
        self._refresh()

    # --- layout ---

    def _make_parts(self, question):
        self._settings = parts.Settings(self._on_pictures)
        self._panel = parts.PicturePanel(self._tray, self._tokens, on_run=self.run)
        ready = [("choose one…", ""), *READY.items()]
        self._ready = parts.labelled(
            widgets.Dropdown, "ready", "Ready questions", parts.MIDDLE, self._on_ready, options=ready
        )
        field = widgets.Textarea(question, rows=3, description="Question", layout=parts.FULL)
        self._question = parts.hook(field, "question")
        self._question.observe(lambda _: self._refresh(), "value")
        self._facts, self._prompt = parts.hook(widgets.HTML(), "facts"), parts.hook(widgets.HTML(), "prompt")
        self._make_actions(parts.run_button(self.run))
        self._make_code()
        self._view = parts.AnswerView()
        self._past = parts.hook(widgets.HTML(), "history")

    def _rows(self):
        seen = widgets.Accordion([self._prompt], selected_index=0)
        seen.set_title(0, "The prompt, as the model sees it")
        more = widgets.Accordion([self._settings.widget, self._past], selected_index=None)
        for place, title in enumerate(("Settings", "History")):
            more.set_title(place, title)
        return [
            widgets.HTML(markup.quiet(f"You are asking {self._model.name}.")),
            self._panel.widget,
            self._ready,
            self._question,
            self._facts,
            seen,
            widgets.HBox([self._run, self._stop, self._copy]),
            self._view.widget,
            self._code,
            parts.hook(more, "more"),
        ]

    # --- what the controls do ---

    def run(self):
        """Ask what stands in the form: a Job, or None (and nothing is done) while an answer is being written."""
        question, options = self._question.value, self._settings.with_seed(parts.new_seed())
        names, images = [picture.name for picture in self._tray.pictures], self._tray.images
        entry = {"question": question, "pictures": names, "options": options}
        job = self._controller.submit(
            lambda stop: self._model.stream(images or None, question, stop=stop, **options),
            lambda job: self._on_job(job, entry),
            only_if_free=True,
        )
        if job:  # else the code would be that of a question that was not asked
            self._seed = options.get("seed")
        return job

    def code(self):
        """What the form would do now, as Python (str); it is shown in the form too.

        Pictures that were uploaded are written to the folder "phi3v-pictures" beside the notebook, to be read by it.
        """
        pictures = parts.pictures_as_code(self._tray)
        options = self._settings.with_seed(self._seed or parts.new_seed())
        return self._show_code(snippet.ask_code(self._model, pictures, self._question.value, options))

    def _on_job(self, job, entry):  # from the controller's thread
        self._show_busy(not job.over)
        self._view.show(job)
        if job.over:
            self.history.append(
                entry | {"answer": job.text, "state": job.state, "note": job.error or job.note}
            )
            self._past.value = _history(self.history)
            self._refresh()

    def _on_ready(self):
        if self._ready.value:
            self._question.value = self._ready.value
            # So that the same one can be chosen again.
            self._ready.value = ""

    def _on_pictures(self):
        self._panel.refresh()
        self._refresh()

    # --- what the model sees ---

    def _refresh(self):
        prompt, self._facts.value = parts.facts(
            self._model, self._make_prompt, self._tray.images, self._settings
        )
        self._prompt.value = f'<pre style="{PROMPT_STYLE}">{markup.escape(prompt)}</pre>'

    def _make_prompt(self):
        return build_prompt(self._question.value, len(self._tray.images), self._settings.system)


def _history(entries):
    """The last questions and answers, the latest first."""
    rows = []
    for number, entry in reversed(list(enumerate(entries, start=1))[-SHOWN:]):
        pictures = ", ".join(entry["pictures"]) or "no picture"
        rows.append(
            f'<div style="border-bottom: 1px solid rgba(128, 128, 128, 0.4); padding: 4px 0">'
            f"<b>{number}. {markup.escape(entry['question'])}</b>{markup.quiet(pictures)}"
            f"{markup.markdown(entry['answer'])}{markup.quiet(entry['note'])}</div>"
        )
    return f'<div style="max-height: 24em; overflow: auto">{"".join(rows)}</div>'
