"""Two answers side by side: about two pictures, to two questions, with two settings, or of two models."""

import sys

import ipywidgets as widgets

from ..errors import ImageError
from . import markup, parts, snippet
from .pair import SIDES, WAYS, begin, conclude, make_pair, offered, particular
from .tray import Tray, add_all


def compare_ui(model, other=None, images=None, question="What is shown in this image?"):
    """Compare two answers: about two pictures, to two questions, with two settings or of two models.

    Put it last in a cell.
    model: a Phi3Vision. other: another one, to compare with it. images: to begin with: None, one source or a list,
    each as in `load_image` or the name of a sample. question: str, the text to begin with.
    Returns a Comparison; its `results` is a list of what was asked and answered. On Colab, where no button works
    while an answer is written, it asks within the cell and returns that list.
    Raises ImageError: a picture that cannot be read.
    """
    if "google.colab" in sys.modules:
        from .cell import compare_in_cell

        return compare_in_cell(model, other, images, question)
    return Comparison(model, other, images, question)


class Comparison(parts.Form):
    """The form.

    results: list of dicts with "differs" (one of pair.WAYS), "left" and "right" (dicts with model, question,
    pictures (names), options, answer, state and note), and "verdict" (str).
    """

    def __init__(self, model, other=None, images=None, question=""):
        self._models = [model, model if other is None else other]
        # Of the last questions, so that their code gives the same answers.
        self._seed = None
        self._tray = add_all(Tray(), images)
        self.results = []
        self._make_parts(question)
        super().__init__(self._rows(), "compare", "A form to compare two answers.")
        self._tray.on_change = self._panel.refresh
        self._on_way()

    # --- layout ---

    def _make_parts(self, question):
        ways, first = offered(self._models[0] is not self._models[1], len(self._tray.pictures))
        options = {"options": [(WAYS[way], way) for way in ways], "value": first}
        self._way = parts.labelled(widgets.Dropdown, "way", "What differs", on_change=self._on_way, **options)
        self._settings = [parts.Settings(lambda: self._panel.refresh()) for _ in SIDES]
        self._choices = [
            widgets.VBox([widgets.HTML(_heading(side)), settings.widget])
            for side, settings in zip(SIDES, self._settings)
        ]
        self._panel = parts.PicturePanel(self._tray, self._tokens, on_run=self.run)
        self._questions = [
            parts.hook(parts.labelled(widgets.Textarea, "question", "", value=question, rows=3), side)
            for side in SIDES
        ]
        self._headings = [parts.hook(widgets.HTML(), f"{side}-heading") for side in SIDES]
        self._views = [parts.AnswerView(f"{side}-answer") for side in SIDES]
        self._make_actions(parts.run_button(self.run))
        self._make_code()
        self._verdict = parts.hook(widgets.HTML(), "verdict")

    def _rows(self):
        names = " and ".join(dict.fromkeys(model.name for model in self._models))
        self._more = widgets.Accordion([_columns(self._choices)], selected_index=None)
        self._more.set_title(0, "Settings")
        answers = [widgets.VBox([head, view.widget]) for head, view in zip(self._headings, self._views)]
        return [
            widgets.HTML(markup.quiet(f"You are asking {names}.")),
            self._panel.widget,
            self._way,
            _columns(self._questions),
            parts.hook(self._more, "more"),
            widgets.HBox([self._run, self._stop, self._copy], layout=parts.WRAP),
            self._verdict,
            _columns(answers),
            self._code,
        ]

    # --- what the controls do ---

    def run(self):
        """Ask both: a list of two Jobs, or None, and nothing is done, while answers are being written."""
        seed = parts.new_seed()
        try:
            sides = self._sides(seed)
        except ImageError as error:
            return self._panel.complain(str(error))
        result, begun = begin(self._way.value, sides), []
        jobs = self._controller.submit_all(
            [(side.stream, lambda job: self._on_job(result, begun, job)) for side in sides],
            only_if_free=True,
        )
        if jobs:
            self._seed = seed
        return jobs

    def code(self):
        """What the form would do now, as Python (str); it is shown in the form too. Raises Phi3VError.

        Pictures that were uploaded are written to the folder "phi3v-pictures" beside the notebook.
        """
        sides = self._sides(self._seed or parts.new_seed())
        pictures = {p.key: code for p, code in zip(self._tray.pictures, parts.pictures_as_code(self._tray))}
        models = self._models if self._way.value == "models" else self._models[:1]
        asked = [([pictures[p.key] for p in side.pictures], side.question, side.options) for side in sides]
        return self._show_code(snippet.compare_code(models, asked))

    def _sides(self, seed):
        """What stands in the form; one seed for both, as chance is not what is compared. Raises ImageError."""
        questions = [field.value for field in self._questions]
        options = [settings.with_seed(seed) for settings in self._settings]
        return make_pair(self._way.value, self._models, self._tray.pictures, questions, options)

    # --- what happens meanwhile, told from the controller's thread ---

    def _on_job(self, result, begun, job):
        if not begun:
            self._begin(result)
        if job not in begun:
            begun.append(job)
        place = begun.index(job)
        is_end = place == 1 and job.over
        self._show_busy(not is_end)
        self._views[place].show(job)
        if is_end:
            self._end(conclude(result, begun), [job.text for job in begun])

    def _begin(self, result):
        """The old answers go; what is asked stands above each column."""
        self._verdict.value = ""
        self._panel.complain("")
        for side, heading, view in zip(SIDES, self._headings, self._views):
            view.clear()
            heading.value = _heading(side, f": {particular(result, side)}")
        self._views[1].show_note("Waiting for the answer on the left…")

    def _end(self, result, texts):
        self.results.append(result)
        self._verdict.value = f'<b role="status">{markup.escape(result["verdict"])}</b>'
        is_whole = all(result[side]["state"] == "done" for side in SIDES)
        if is_whole and markup.differing(*texts):
            for view, html in zip(self._views, markup.difference(*texts)):
                view.show_html(html)

    # --- what is shown ---

    def _on_way(self):
        """Show what may differ twice, and all else once."""
        way = self._way.value
        for control in (self._choices[1], self._choices[0].children[0]):
            control.layout.display = "" if way == "settings" else "none"
        self._questions[1].layout.display = "" if way == "questions" else "none"
        for side, text in zip(SIDES, self._questions):
            text.description = f"{side.capitalize()} question" if way == "questions" else "Question"
        if way == "settings":
            self._more.selected_index = 0
        self._panel.complain("")
        self._panel.refresh()

    def _tokens(self):
        model, crops, images = self._models[0], self._settings[0].num_crops, self._tray.images
        if self._way.value == "pictures":  # each is asked about alone
            return [model.image_tokens([image], crops)[0] for image in images]
        return model.image_tokens(images, crops)


def _columns(pair):
    """Two widgets side by side, or one below the other where there is no room."""
    for widget in pair:
        widget.layout.flex, widget.layout.min_width, widget.layout.width = "1 1 320px", "240px", "auto"
    layout = {"flex_flow": "row wrap", "grid_gap": "0 24px"}
    return parts.hook(widgets.HBox(pair, layout=layout), "columns")


def _heading(side, text=""):
    return (
        f'<div style="font-weight: 600; white-space: pre-wrap">{side.capitalize()}{markup.escape(text)}</div>'
    )
