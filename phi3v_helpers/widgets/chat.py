"""A conversation in a notebook: question after question about the same pictures, and about those added on the way."""

import json
import os
import sys
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ipywidgets as widgets

from ..chat import next_counts
from ..errors import Phi3VError
from ..prompts import build_prompt
from . import markup, parts, snippet
from .reuse import Reused
from .tray import Tray, add_all

FILE = "phi3v-chat.json"


@dataclass(frozen=True)
class Turn:
    """One question and its answer. pictures: how many came with it. note: a line on what it took."""

    question: str
    answer: str
    pictures: int = 0
    note: str = ""


@dataclass
class Talk:
    """What was said so far; knows nothing of widgets or models."""

    turns: list = field(default_factory=list)

    @property
    def counts(self):
        return [turn.pictures for turn in self.turns]

    @property
    def history(self):
        return [(turn.question, turn.answer) for turn in self.turns]

    def save(self, path, model, pictures):
        """Write it as JSON: never half a file, and pictures by name only. Raises OSError."""
        path = Path(path)
        content = {"model": model, "pictures": pictures, "turns": [asdict(turn) for turn in self.turns]}
        aside = path.with_name(f"{path.name}.part")
        aside.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(aside, path)


def read_talk(path):
    """The Talk in a file that `save` wrote; an empty one where there is no file. Raises Phi3VError."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Talk([Turn(**turn) for turn in content["turns"]])
    except FileNotFoundError:
        return Talk()
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise Phi3VError(
            f"{str(path)!r} holds no conversation that could be read ({error}).",
            "Give the name of a new file.",
        ) from error


def chat_ui(model, images=None, system=None, keep=None):
    """Talk with a model about pictures. Put it last in a cell.

    model: a Phi3Vision. images: None, one source or a list, each as in `load_image` or the name of a sample.
    system: str, a text in front of the conversation.
    keep: a path. The conversation is written there after every answer, and read from there when the cell is run again,
    after a restart of the kernel for instance. Give the same pictures then: the file holds their names only.
    Returns a ChatForm; its `history` is a list of (question, answer). On Colab, where no button works while an
    answer is written, it asks within the cell and returns the Chat.
    Raises ImageError: a picture that cannot be read. Phi3VError: a file that holds something else.
    """
    if "google.colab" in sys.modules:
        from .cell import chat_in_cell

        return chat_in_cell(model, images, system)
    return ChatForm(model, images, system, keep)


class ChatForm(parts.Form):
    """The form. history: list of (question, answer) pairs of str, oldest first."""

    def __init__(self, model, images=None, system=None, keep=None):
        self._model, self._system, self._keep = model, system, keep
        # One for all questions, so that the code of a conversation gives it again.
        self._seed = parts.new_seed()
        self._job = None
        self._tray = add_all(Tray(), images)
        self._talk = read_talk(keep) if keep else Talk()
        # Number of the turn that is asked anew.
        self._editing = None
        self._lock = threading.RLock()
        self._make_parts()
        super().__init__(self._rows(), "chat", "A form to talk with the model about pictures.")
        self._tray.on_change = self._refresh
        self._refresh()

    @property
    def history(self):
        return self._talk.history

    # --- layout ---

    def _make_parts(self):
        self._settings = parts.Settings(self._refresh, system=False)
        self._panel = parts.PicturePanel(self._tray, self._tokens, self._fixed, on_run=self.ask)
        self._turns = parts.hook(widgets.VBox(), "turns")
        self._shown = Reused(self._turns, self._turn)
        self._asked = parts.hook(widgets.HTML(), "asked")
        self._view = parts.AnswerView()
        field = widgets.Textarea(rows=2, description="Question", layout=parts.FULL)
        self._question = parts.hook(field, "question")
        self._question.observe(lambda _: self._show_facts(), "value")
        self._facts = parts.hook(widgets.HTML(), "facts")
        self._make_actions(parts.run_button(self.ask))
        self._make_code()
        self._cancel = parts.button(
            "Do not edit", "cancel", self.cancel_edit, "Leave the conversation as it is"
        )
        self._clear = parts.button(
            "Clear", "clear", self.clear, "Forget the conversation; the pictures stay", "trash"
        )
        self._save = parts.button(
            "Save as JSON", "save", self._on_save, f"Write the conversation to {FILE}", "save"
        )
        self._said = parts.hook(widgets.HTML(), "said")

    def _rows(self):
        settings = widgets.Accordion([self._settings.widget], selected_index=None)
        settings.set_title(0, "Settings")
        return [
            widgets.HTML(markup.quiet(f"You are talking with {self._model.name}.")),
            self._panel.widget,
            self._turns,
            self._asked,
            self._view.widget,
            self._question,
            self._facts,
            widgets.HBox([self._run, self._stop, self._cancel], layout=parts.WRAP),
            widgets.HBox([self._clear, self._save, self._copy], layout=parts.WRAP),
            self._said,
            self._code,
            settings,
        ]

    # --- what the controls do ---

    def ask(self, question=None):
        """Ask a question (str), or what stands in the question field: a Job, or None while an answer is written."""
        if question is not None:
            self._question.value = question
        if self._must_wait():
            return None
        question, options = self._question.value, self._settings.with_seed(self._seed)
        before = self._before()
        chat = self._model.chat(self._tray.images or None, self._system, before.history, before.counts)
        job = self._controller.submit(
            lambda stop: chat.stream(question, stop=stop, **options),
            lambda job: self._on_job(job, chat, before, question),
            only_if_free=True,
        )
        self._job = job or self._job
        return job

    def edit(self, number):
        """Put the question of a turn, counted from 0, into the question field, to be asked anew."""
        if self._must_wait():
            return
        self._editing = number
        self._question.value = self._talk.turns[number].question
        self._refresh()

    def cancel_edit(self):
        self._editing = None
        self._question.value = ""
        self._refresh()

    def clear(self):
        """Forget what was said; the pictures stay."""
        if self._must_wait():
            return
        self._talk = Talk()
        self._view.clear()
        self._kept()
        self.cancel_edit()

    def save(self, path=FILE):
        """Write the conversation as JSON. Pictures are named, not held. Raises Phi3VError."""
        try:
            self._talk.save(path, self._model.name, [picture.name for picture in self._tray.pictures])
        except OSError as error:
            raise Phi3VError(
                f"{str(path)!r} could not be written ({error.strerror or error}).",
                "Give a path in a folder of yours.",
            ) from error

    def code(self):
        """The conversation as Python (str); it is shown in the form too. Uploaded pictures are written to files."""
        questions = [question for question, _ in self.history]
        pictures, counts = parts.pictures_as_code(self._tray), self._talk.counts
        options = self._settings.with_seed(self._seed)
        return self._show_code(
            snippet.chat_code(self._model, pictures, counts, questions, self._system, options)
        )

    def _on_save(self):
        try:
            self.save()
        except Phi3VError as error:
            self._said.value = markup.alarm(str(error))
        else:
            self._say(f"Written to {Path(FILE).resolve()}.")

    def _must_wait(self):
        """Whether an answer is being written, or is about to become a turn, which what follows must not miss."""
        is_busy = self._job is not None and not self._job.wait(0)
        if is_busy:
            self._say("The answer is still being written. Wait for its end, or stop it.")
        return is_busy

    def _say(self, text):
        self._said.value = markup.quiet(text, role="status")

    def _kept(self):
        """Write the conversation to the file of `keep`."""
        if self._keep:
            try:
                self.save(self._keep)
            except Phi3VError as error:
                self._said.value = markup.alarm(str(error))

    # --- what happens meanwhile, told from the controller's thread ---

    def _on_job(self, job, chat, before, question):
        self._show_busy(not job.over)
        self._asked.value = _question(question)
        self._view.show(job)
        if not job.over:
            self._said.value = ""
            if self._question.value == question:
                self._question.value = ""
            return
        if len(chat.history) > len(before.turns):
            self._take(chat, before, job)
        elif not self._question.value:  # nothing was said: the question is not lost
            self._question.value = question
        self._refresh()

    def _take(self, chat, before, job):
        """The answer becomes a turn."""
        question, answer = chat.history[-1]
        self._talk = Talk([*before.turns, Turn(question, answer, chat.image_counts[-1], job.note)])
        self._editing = None
        self._asked.value = ""
        self._view.clear()
        self._kept()

    # --- what is shown ---

    def _fixed(self):
        """How many pictures belong to turns that stay."""
        return sum(self._talk.counts[: self._editing])

    def _refresh(self):
        self._panel.refresh()
        # What one thread has closed, another one must not show.
        with self._lock:
            first = len(self._talk.turns) if self._editing is None else self._editing
            self._shown.show([(n, turn, n >= first) for n, turn in enumerate(self._talk.turns)])
        self._cancel.layout.display = "none" if self._editing is None else ""
        self._show_facts()

    def _turn(self, number, turn, is_dimmed):
        edit = parts.button(
            "Edit", "edit", lambda: self.edit(number), f"Ask question {number + 1} anew", "pencil"
        )
        edit.layout.width = "6em"
        dim = "opacity: 0.5" if is_dimmed else ""
        said = _question(turn.question) + markup.markdown(turn.answer) + markup.quiet(turn.note)
        return parts.hook(widgets.VBox([widgets.HTML(f'<div style="{dim}">{said}</div>'), edit]), "turn")

    def _show_facts(self):
        _, self._facts.value = parts.facts(self._model, self._prompt, self._tray.images, self._settings)

    def _prompt(self):
        before = self._before()
        counts = next_counts(before.counts, len(self._tray.pictures))
        return build_prompt(self._question.value, counts, self._system, before.history)

    def _before(self):
        """What was said before the question that is being written."""
        return self._talk if self._editing is None else Talk(self._talk.turns[: self._editing])


def _question(text):
    style = "font-weight: 600; white-space: pre-wrap; margin-top: 8px; border-top: 1px solid rgba(128, 128, 128, 0.4)"
    return f'<div style="{style}">{markup.escape(text)}</div>'
