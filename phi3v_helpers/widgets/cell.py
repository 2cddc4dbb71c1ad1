"""The forms for Colab: they ask and answer within the running cell.

What a thread sets does not reach the page there, and no button works while a cell runs. So questions are typed, answers
are printed as they come, and interrupting the cell ends an answer: what was said is kept. An empty line ends. A line
that begins with + adds pictures: "+" uploads, "+ clouds.png" takes a path, an address or the name of a sample.

upload(): shows a file chooser, waits, and returns {file name: bytes}; None is Colab's own.
read(prompt): returns a typed line; None is input(). options: as in `Phi3Vision.ask`.
"""

import sys

from ..errors import Phi3VError, PromptError
from . import markup
from .controller import FAILED, PAUSE, Controller
from .pair import SIDES, WAYS, begin, conclude, make_pair, offered, particular
from .tray import Tray, add_all

HINT = "Interrupt the cell to end an answer. + adds a picture, + and a path or address that one."
SETTINGS = {"temperature": float, "num_crops": int, "max_new_tokens": int, "seed": int}
_LIKE = "temperature=0.7 num_crops=4"


def playground_in_cell(model, images=None, question="", upload=None, read=None, **options):
    """Question after question about pictures: uploaded ones, where none are given. Returns the last Answer, or None."""
    desk = Desk(images, upload, read)
    if images is None and not desk.images:
        return print("No picture was chosen. Run the cell again to choose one.")
    answer = None
    for asked in desk.questions(question):
        job = _answer(model.stream, desk.images or None, asked, **options)
        answer = answer if job.answer is None else job.answer
    return answer


def chat_in_cell(model, images=None, system=None, upload=None, read=None, **options):
    """A conversation about pictures: uploaded ones, where none are given. Returns the Chat."""
    desk = Desk(images, upload, read)
    chat = model.chat(desk.images or None, system)
    desk.tray.on_change = lambda: chat.add(desk.images[-1])  # it comes with the next question
    for asked in desk.questions():
        _answer(chat.stream, asked, **options)
    return chat


def compare_in_cell(model, other=None, images=None, question="", upload=None, read=None, **options):
    """Two answers at a time, and how they differ. Returns a list of dicts, as `Comparison.results`."""
    desk = Desk(images, upload, read)
    way, results = _choose_way(desk, other is not None), []
    for asked in desk.questions(question):
        try:
            questions = [asked, desk.line("The other question: ") if way == "questions" else asked]
            chosen = [options | (_read_settings(desk, side) if way == "settings" else {}) for side in SIDES]
            results.append(
                _ask_both(way, make_pair(way, [model, other], desk.tray.pictures, questions, chosen))
            )
        except Phi3VError as error:
            print(error)
        except KeyboardInterrupt:  # at a prompt
            break
    return results


class Desk:
    """The pictures, and what is typed."""

    def __init__(self, images, upload, read):
        self.tray = add_all(Tray(), images)
        self._upload, self._read = upload, read or input  # looked up now: each cell has one of its own
        if images is None:
            self._take_uploads()

    @property
    def images(self):
        return self.tray.images

    def questions(self, default=""):
        """What is asked, until an empty line. An empty first line asks the default."""
        print(HINT)
        first = f"Question (empty: {default!r}): " if default else "Question (empty: end): "
        try:
            asked = self.line(first) or default
            while asked:
                yield asked
                asked = self.line("Next question (empty: end): ")
        except KeyboardInterrupt:  # while nothing is being answered, it ends the form
            return

    def line(self, prompt):
        """What is typed next, str. Lines that add pictures are obeyed on the way."""
        while True:
            typed = self._read(prompt)
            if not typed.lstrip().startswith("+"):
                return typed if typed.strip() else ""
            source = typed.strip()[1:].strip()
            if source:
                self._add(source)
            else:
                self._take_uploads()

    def _take_uploads(self):
        upload = self._upload or sys.modules["google.colab"].files.upload
        for name, content in upload().items():
            self._add(content, name)

    def _add(self, source, name=None):
        try:
            picture = self.tray.add(source, name)
        except Phi3VError as error:
            print(f"{name}: {error}" if name else error)
        else:
            print(
                f"Picture {len(self.images)}: {picture.name}, {picture.image.width} x {picture.image.height}"
            )


def _answer(stream, *question, **options):
    """Print an answer as it comes. stream: `Phi3Vision.stream` or `Chat.stream`. Returns the Job, which is over."""
    job = Controller().submit(lambda stop: stream(*question, stop=stop, **options))
    print_job(job, job.stop)
    return job


def print_job(job, stop):
    """Print what a Job says as it comes, and its end. Interrupting the cell calls stop()."""
    said, is_over = 0, False
    while not is_over:
        try:
            is_over = job.wait(PAUSE)
            piece = job.text[said:]
            said += len(piece)
            print(piece, end="", flush=True)
        except KeyboardInterrupt:
            stop()
    note = job.error if job.state == FAILED else f"[{job.note}]"
    print(f"\n{note}" if said else note)


def _choose_way(desk, has_other):
    ways, default = offered(has_other, len(desk.images))
    for number, way in enumerate(ways, start=1):
        print(f"{number}  {WAYS[way]}")
    typed = desk.line(f"What differs (empty: {ways.index(default) + 1}): ").strip()
    return ways[int(typed) - 1] if typed in map(str, range(1, len(ways) + 1)) else default


def _read_settings(desk, side):
    """Settings as they are typed -> dict. Raises PromptError."""
    typed, settings = desk.line(f"Settings on the {side}, such as {_LIKE}: "), {}
    for part in typed.replace(",", " ").split():
        name, _, value = part.partition("=")
        try:
            settings[name] = SETTINGS[name](value)
        except (KeyError, ValueError) as error:
            raise PromptError(
                f"{part!r} is no setting.", f"Use {', '.join(SETTINGS)}, as in {_LIKE}."
            ) from error
    return settings


def _ask_both(way, sides):
    controller, result = Controller(), begin(way, sides)
    jobs = controller.submit_all([(side.stream, lambda job: None) for side in sides])
    for side, job in zip(SIDES, jobs):
        print(f"\n--- {side}: {particular(result, side)} ---")
        print_job(job, controller.stop)  # a comparison is ended as a whole
    result = conclude(result, jobs)
    print(f"\n{result['verdict']}")
    texts = [job.text for job in jobs]
    if all(job.answer is not None for job in jobs) and markup.differing(*texts):
        for side, text in zip(SIDES, markup.bracketed(*texts)):
            print(f"\n{side}: {text}")
    return result
