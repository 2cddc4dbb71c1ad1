"""Files on their way from the page into Python, in pieces, so that no limit on a message's size matters.

The page offers files and keeps them; this side asks for one piece after the other, so a slow kernel is never
flooded, and everything that can be decided is decided here. Knows no widgets.

From the page: hello; offer (files: id, name, type, size); piece (id, at, and a buffer); lost (id).
To the page: want (id, at, length, and name and size for the progress); done (id), the page may forget the file.
"""

import io
import threading
from dataclasses import dataclass

from ..errors import Phi3VError

MAX_FILE = 200_000_000  # bytes; more than any camera makes
PIECE = 2_000_000  # bytes; Jupyter loses messages of more than 10 MiB without a word
MAX_NOTES = 3  # sentences at a time, if a whole folder of wrong files is dropped

_CHOOSE = "Choose a PNG, JPEG, WebP, GIF, BMP or TIFF picture."


@dataclass(frozen=True)
class _File:
    id: str
    name: str
    type: str
    size: int


class Inbox:
    """send(message) reaches the page, on_file(name, content) gets what is complete, on_note(text) what went wrong.

    Holds one file at most, as far as it has come. JupyterLab may have two messages dealt with in two threads at once:
    here the second waits, so that on_file is never called twice at the same time.
    """

    def __init__(self, send, on_file, on_note):
        self._send, self._on_file, self._on_note = send, on_file, on_note
        self._queue = []  # the first is the one that is coming in
        self._data = io.BytesIO()
        self._notes = []
        self._lock = threading.RLock()

    def receive(self, message, buffers=()):
        """A message from the page; one of another kind is none of ours."""
        with self._lock:
            self._receive(message, buffers)

    def take(self, files):
        """Files that came complete, by another way: list of (name, bytes)."""
        with self._lock:
            self._clear_notes()
            for name, content in files:
                self._hand_over(name, content)

    def _receive(self, message, buffers):
        kind = message.get("kind")
        if kind == "hello":
            self._forget_the_old_page()
        elif kind == "offer":
            self._take_offer([_File(**file) for file in message["files"]])
        elif self._queue and message.get("id") == self._queue[0].id:  # else: of a file given up
            if kind == "piece":
                self._take_piece(message["at"], buffers)
            elif kind == "lost":
                self._give_up("could not be read to its end. Choose it again.")

    def _forget_the_old_page(self):
        """A page begins with nothing: who offered what we wait for is gone."""
        waiting = len(self._queue)
        while self._queue:
            self._drop_first()
        if waiting:
            files = "A file" if waiting == 1 else f"{waiting} files"
            self._tell(f"{files} did not arrive: the page was loaded anew. Choose again.")

    def _take_offer(self, files):
        if not self._queue:
            self._clear_notes()
        if not files:
            self._tell("What came was no file. Save the picture first, or give its address.")
        for file in files:
            trouble = _refusal(file)
            if trouble:
                self._send({"kind": "done", "id": file.id})
                self._tell(f"{_short(file.name)} {trouble}")
            else:
                self._queue.append(file)
        self._go_on()

    def _take_piece(self, at, buffers):
        here = self._data.tell()
        if at < here:
            return  # asked for twice, so it came twice
        piece = buffers[0] if buffers else b""
        if at > here or not len(piece) or here + len(piece) > self._queue[0].size:
            return self._give_up("arrived damaged. Choose it again.")
        self._data.write(piece)
        self._go_on()

    def _give_up(self, why):
        self._tell(f"{_short(self._drop_first().name)} {why}")
        self._go_on()

    def _go_on(self):
        """Ask for what is missing, then hand over what is complete: whoever gets it may take long, or fail."""
        complete = []
        while self._queue and self._data.tell() == self._queue[0].size:
            content = self._data.getvalue()
            complete.append((self._drop_first().name, content))
        if self._queue:
            file, at = self._queue[0], self._data.tell()
            part = {"at": at, "length": min(PIECE, file.size - at)}
            self._send({"kind": "want", "id": file.id, "name": file.name, "size": file.size, **part})
        for name, content in complete:
            self._hand_over(name, content)

    def _hand_over(self, name, content):
        try:
            self._on_file(name, content)
        except Phi3VError as error:
            self._tell(f"{_short(name)}: {error}")
        except Exception as error:  # in the handler of a message nobody would see it
            self._tell(
                f"{_short(name)}: something went wrong ({type(error).__name__}: {error}). Please report it."
            )

    def _drop_first(self):
        self._data = io.BytesIO()
        file = self._queue.pop(0)
        self._send({"kind": "done", "id": file.id})
        return file

    def _clear_notes(self):
        self._notes = []
        self._on_note("")

    def _tell(self, sentence):
        """All that went wrong since the zone was last at rest: of several files, each may have its trouble."""
        self._notes.append(sentence)
        more = len(self._notes) - MAX_NOTES
        rest = [f"And {more} more."] if more > 0 else []
        self._on_note(" ".join(self._notes[:MAX_NOTES] + rest))


def _refusal(file):
    """Why a file is not even asked for, or None. A browser that does not know a type leaves it empty."""
    if file.type and not file.type.startswith("image/"):
        return f"is no picture but {file.type}. {_CHOOSE}"
    if file.size > MAX_FILE:
        return (
            f"has {file.size / 1e6:.0f} MB; {MAX_FILE / 1e6:.0f} MB is the most. "
            "Make it smaller, or save it where the notebook runs and give its path."
        )
    return None


def _short(name):
    return repr(name if len(name) <= 60 else f"{name[:30]}…{name[-25:]}")
