"""What the forms are made of: the panel with the pictures, the settings, the place of an answer.

Every control has a class p3v-<name>, for the tests. A function that a thread may call only sets values.
"""

import functools
import random
import threading
import time

import ipywidgets as widgets

from .. import samples
from ..errors import Phi3VError
from . import markup, zone
from .controller import FAILED, Controller
from .reuse import Reused

MIDDLE = {"width": "22em"}
WIDE = {"width": "auto", "flex": "1 1 auto"}
FULL = {"width": "98%"}
WRAP = {"flex_flow": "row wrap", "align_items": "flex-end"}
SETTLED = 0.4  # seconds in which no letter comes in
LABELLED = {"description_width": "initial"}


def hook(widget, *names):
    """The widget, with the classes by which tests and styles find it."""
    for name in names:
        widget.add_class(f"p3v-{name}")
    return widget


def button(label, name, on_click, tooltip="", icon="", **more):
    """A Button whose callback gets no argument. Without a label, the tooltip is what a screen reader says."""
    made = widgets.Button(description=label, tooltip=tooltip or label, icon=icon, **more)
    made.on_click(lambda _: on_click())
    return hook(made, name)


def small_button(icon, name, tooltip, on_click):
    layout = {"width": "2.4em", "min_width": "2.4em", "padding": "0", "margin": "1px"}
    return button("", name, on_click, tooltip, icon, layout=layout)


def labelled(kind, name, description, layout=None, on_change=None, **more):
    """A control that shows its whole description. on_change() is called after every change."""
    made = kind(description=description, style=LABELLED, layout=layout or {}, **more)
    if on_change:
        made.observe(lambda _: on_change(), "value")
    return hook(made, name)


class Form(widgets.VBox):
    """The outside of a form, and what all forms have: to run, to stop, and code to copy.

    Where it cannot be shown, as in a file on the web, it is a sentence.
    """

    def __init__(self, rows, name, sentence):
        super().__init__(rows, layout={"max_width": "900px"})
        self._sentence = sentence
        hook(self, "form", name)

    def _make_actions(self, run):
        """run: the button that asks."""
        self._controller, self._run = Controller(), run
        self._stop = button("Stop", "stop", self.stop, "End the answer here", "stop", disabled=True)

    def _make_code(self):
        """A button that copies what the form's `code` returns, and where it is shown once there is some."""
        self._copy = zone.copy_button("Copy as code", self.code)
        layout = FULL | {"height": "12em", "display": "none"}
        self._code = labelled(widgets.Textarea, "code", "Code", layout)

    def stop(self):
        """End what is being written."""
        self._controller.stop()

    def _show_busy(self, busy):
        self._run.disabled, self._stop.disabled = busy, not busy

    def _show_code(self, text):
        self._code.value, self._code.layout.display = text, ""
        return text

    def _tokens(self):
        """Those of each picture, for the PicturePanel."""
        return self._model.image_tokens(self._tray.images, self._settings.num_crops)

    def __repr__(self):
        return f"{self._sentence} Run this cell to use it."


class PicturePanel:
    """Ways for pictures to come in, and the pictures in their order, to be moved and removed.

    tray: a Tray. tokens(): list of int, those of each picture. fixed(): how many pictures, counted from the first,
    may no longer be moved (a chat has used them). on_run: see `zone.drop_zone`.
    """

    def __init__(self, tray, tokens, fixed=lambda: 0, on_run=None):
        self._tray, self._tokens, self._fixed = tray, tokens, fixed
        # By key: a moved picture must not be encoded again.
        self._thumbnails = {}
        self._lock = threading.RLock()
        self._zone = zone.drop_zone(self._take_file, self.complain, on_run)
        hint = "picture.png or https://…"
        self._address = labelled(widgets.Text, "address", "Path or address", WIDE, placeholder=hint)
        self._address.on_msg(self._on_message)
        add = button("Add", "add", self._take_address, "Add the picture of this path or address")
        self._gallery = hook(widgets.HBox(layout=WRAP | {"display": "none"}), "gallery")
        opener = widgets.ToggleButton(
            description="Sample pictures", tooltip="Show the pictures that come with phi3v"
        )
        hook(opener, "samples").observe(self._open_gallery, "value")
        self._trouble = hook(widgets.HTML(), "trouble")
        cards = hook(widgets.HBox(layout=WRAP), "pictures")
        self._cards = Reused(cards, self._card)
        row = widgets.HBox([self._address, add, opener], layout={"align_items": "center"})
        self.widget = widgets.VBox([self._zone, row, self._gallery, self._trouble, cards])
        self.refresh()

    def complain(self, text):
        """Say what went wrong with a picture, until the next one comes; "" takes it back."""
        self._trouble.value = markup.alarm(text)

    def refresh(self):
        """Show the pictures as they are now."""
        # What one thread has closed, another one must not show.
        with self._lock:
            pictures, fixed = self._tray.pictures, self._fixed()
            self._thumbnails = {
                p.key: self._thumbnails.get(p.key) or zone.thumbnail(p.image, p.alt) for p in pictures
            }
            counted = enumerate(zip(pictures, self._count(pictures)), start=1)
            keys = [(number, picture, tokens, number <= fixed) for number, (picture, tokens) in counted]
            self._cards.show(keys, but=self._thumbnails.values())

    def _count(self, pictures):
        try:
            return self._tokens()
        except Phi3VError as error:  # a picture that this model cannot cut up
            self.complain(str(error))
            return [0] * len(pictures)

    def _card(self, number, picture, tokens, is_fixed):
        size = f"{picture.image.width} × {picture.image.height} · {tokens:,} tokens"
        words = f"{number} · {picture.name}", size
        caption = widgets.HTML("".join(markup.quiet(line) for line in words))
        rows = [self._thumbnails[picture.key], caption]
        if not is_fixed:
            rows.append(self._buttons(number, picture.key))
        return hook(widgets.VBox(rows, layout={"margin": "4px", "max_width": "180px"}), "card")

    def _buttons(self, number, key):
        return widgets.HBox(
            [
                small_button(
                    "arrow-left", "earlier", f"Move picture {number} forward", lambda: self._move(key, -1)
                ),
                small_button(
                    "arrow-right", "later", f"Move picture {number} back", lambda: self._move(key, 1)
                ),
                small_button("times", "remove", f"Remove picture {number}", lambda: self._tray.remove(key)),
            ]
        )

    def _move(self, key, by):
        place = [picture.key for picture in self._tray.pictures].index(key)
        if place + by >= self._fixed():
            self._tray.move(key, by)

    def _take(self, source):
        """Add a picture, or say why not. Returns whether it worked."""
        try:
            self._tray.add(source)
        except Phi3VError as error:
            self.complain(str(error))
            return False
        self.complain("")
        return True

    def _take_file(self, name, content):  # what it raises, the zone tells together with the file's name
        self._tray.add(content, name)

    def _on_message(self, _widget, content, _buffers):
        if content.get("event") == "submit":  # Enter
            self._take_address()

    def _take_address(self):
        # In a thread: a slow site must not keep the other buttons waiting.
        threading.Thread(target=self._fetch, daemon=True).start()

    def _fetch(self):
        typed = self._settled()
        if not typed:
            return self.complain("The path is empty. Type the path or the address of a picture.")
        self._trouble.value = markup.quiet(f"Fetching {typed}…")
        if self._take(typed) and self._address.value.strip() == typed:
            self._address.value = ""

    def _settled(self):
        """What was typed, to its end: a page sends Enter at once, and the last letters only when it hears from us."""
        typed = None
        while typed != self._address.value:
            typed = self._address.value
            time.sleep(SETTLED)
        return typed.strip()

    def _open_gallery(self, change):
        if change["new"] and not self._gallery.children:
            self._gallery.children = [self._sample(name) for name in samples.names()]
        self._gallery.layout.display = "" if change["new"] else "none"

    def _sample(self, name):
        title = samples.info(name)["title"]
        view = zone.thumbnail(samples[name], samples.info(name)["alt"])
        add = button(title, "sample", lambda: self._take(name), f"Add the sample picture: {title}")
        add.layout.width = "150px"
        return widgets.VBox([view, add], layout={"margin": "4px", "align_items": "center"})


class Settings:
    """Length, temperature, tiles and system text. on_change() is called after every change."""

    def __init__(self, on_change=lambda: None, system=True):
        control = functools.partial(labelled, on_change=on_change)
        length, temperature = {"min": 1, "max": 100_000}, {"min": 0, "max": 1.5, "step": 0.1}
        tiles = [("as the model's card advises", 0), ("up to 4", 4), ("up to 16", 16)]
        hint = "none: the model was trained without"
        self._length = control(
            widgets.BoundedIntText, "length", "Most new tokens", {"width": "15em"}, value=500, **length
        )
        self._temperature = control(widgets.FloatSlider, "temperature", "Temperature", MIDDLE, **temperature)
        self._crops = control(widgets.Dropdown, "crops", "Tiles of a picture", MIDDLE, options=tiles)
        self._system = control(widgets.Text, "system", "System text", WIDE, placeholder=hint)
        rows = [widgets.HBox([self._length, self._temperature, self._crops], layout=WRAP)]
        self.widget = widgets.VBox([*rows, *([self._system] if system else [])])

    @property
    def system(self):
        return self._system.value.strip() or None

    @property
    def num_crops(self):
        return self._crops.value or None  # a Dropdown takes None for "nothing is chosen"

    @property
    def options(self):
        """What is to be given to `ask`, a dict; what it would take anyway is left out."""
        chosen = {"max_new_tokens": self._length.value, "num_crops": self.num_crops}
        if self._temperature.value > 0:
            chosen["temperature"] = round(self._temperature.value, 1)
        return {name: value for name, value in chosen.items() if value is not None}

    def with_seed(self, seed):
        """`options` with the system text, and with a seed where chance comes in: the answer can be had again."""
        options = self.options | ({"system": self.system} if self.system else {})
        return options | ({"seed": seed} if "temperature" in options else {})


class AnswerView:
    """The place of one answer. `show(job)` may be called from a thread."""

    def __init__(self, name="answer"):
        self._body, self._trouble = hook(widgets.HTML(), name), hook(widgets.HTML(), f"{name}-trouble")
        self._status = hook(widgets.HTML(), "status")
        self.widget = widgets.VBox([self._body, self._trouble, self._status])

    def show(self, job):
        """The text as it grows, as Markdown at the end; what it took; what went wrong, in its place."""
        self.show_text(job.text, job.over)
        self._trouble.value = markup.alarm(job.error) if job.state == FAILED else ""
        self.show_note(job.note)

    def show_text(self, text, over=True):
        self._body.value = (markup.markdown if over else markup.plain)(text) if text else ""

    def show_html(self, html):
        self._body.value = html

    def show_note(self, text):
        self._status.value = markup.quiet(text, role="status")

    def clear(self):
        for part in (self._body, self._trouble, self._status):
            part.value = ""


def run_button(on_run):
    return button("Run", "run", on_run, "Ask the question (Ctrl+Enter)", "play", button_style="primary")


def new_seed():
    return random.SystemRandom().randrange(1, 1_000_000)


def pictures_as_code(tray):
    """An expression for each picture; uploaded ones are written beside the notebook. Raises Phi3VError."""
    try:
        return tray.as_code()
    except OSError as error:
        raise Phi3VError(
            f"The pictures could not be written beside the notebook ({error.strerror or error}).",
            "Give them by their paths instead of uploading them.",
        ) from error


def facts(model, make_prompt, images, settings):
    """The prompt (str, empty where there can be none), and the line beneath the question, as HTML."""
    prompt = ""
    try:
        prompt = make_prompt()
        return prompt, _costs(model, prompt, images, settings)
    except Phi3VError as error:
        return prompt, markup.alarm(str(error))


def _costs(model, prompt, images, settings):
    """Tokens, share of the context, memory. Raises Phi3VError."""
    count = model.measure(prompt, images, settings.num_crops, wait=False)
    if count is None:  # the model is at work, and a button must not wait for it
        return markup.quiet("The tokens are counted when the answer is there.")
    new_tokens = settings.options["max_new_tokens"]
    weights, cache = model.memory(count + new_tokens)
    line = markup.quiet(
        f"{int(count):,} tokens: {count.image_tokens:,} of pictures, {count.text_tokens:,} of text · "
        f"{count / model.context:.1%} of the context of {model.context:,} · "
        f"about {_size(weights + cache)} of memory: {_size(weights)} weights, up to {_size(cache)} for this question"
    )
    if count + new_tokens <= model.context:
        return line
    return line + markup.alarm(
        f"With an answer of up to {new_tokens:,} tokens this is more than the model can hold. "
        "Remove pictures, take fewer tiles or a shorter answer."
    )


def _size(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6)):,} MB"
