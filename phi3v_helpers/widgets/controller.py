"""Questions in a row, answered one after the other in a thread: what drives every form.

Knows no widgets. A callback of a button may call anything here: nothing waits for the model.
"""

import logging
import threading
import time
from collections import deque

from ..errors import Phi3VError

# Seconds between two reports of a growing text, at least: a page cannot follow more.
PAUSE = 0.05
WAITING, LOOKING, WRITING = "waiting", "looking", "writing"
DONE, STOPPED, FAILED = "done", "stopped", "failed"
_NOTES = {WAITING: "Waiting for the answer before…", LOOKING: "Looking…", WRITING: "Writing…"}


class Job:
    """One question on its way to its answer.

    state: "waiting", "looking" (no text yet), "writing", and at the end "done", "stopped" or "failed".
    text: str, what was said so far. answer: the Answer, once there is one. error: str, what went wrong, or None.
    seconds_to_text: float, from the start of the work to the first piece of text, or None.
    """

    def __init__(self, start, on_change):
        self._start = start
        self._on_change = on_change
        self._stop = threading.Event()
        self._over = threading.Event()
        self.state = WAITING
        self.text = ""
        self.answer = None
        self.error = None
        self.seconds_to_text = None
        # From the first piece of text to the last; `answer.seconds` began elsewhere.
        self._seconds_after = 0.0

    @property
    def over(self):
        return self.state in (DONE, STOPPED, FAILED)

    @property
    def note(self):
        """A line for people: what is going on, or what it took."""
        if not self.over:
            return "Stopping…" if self._stop.is_set() else _NOTES[self.state]
        if self.state == FAILED:
            return "No answer." if not self.text else "The answer broke off."
        began = self.answer is not None and self.answer.prompt_tokens
        return self._cost() if began else "Stopped before it began."

    def wait(self, timeout=None):
        """Wait for the end, and for what was told of it. Returns whether it came within `timeout` seconds."""
        return self._over.wait(timeout)

    def stop(self):
        """End the answer after the present token, or never begin it; returns at once."""
        self._stop.set()

    def _cost(self):
        line = self.answer.summary()
        if self.seconds_to_text is not None:
            line += f" · first words after {self.seconds_to_text:.1f} s"
            if self.answer.new_tokens > 1 and self._seconds_after > 0:
                line += f", then {(self.answer.new_tokens - 1) / self._seconds_after:.0f} tokens/s"
        return line

    def run(self, let_go):
        """In the controller's thread: from the question to the end. let_go() is called before the end is told,
        so that whoever sees it may ask at once."""
        state = self._answer()
        self._start = None  # it may hold pictures
        let_go()
        self._tell(state)
        self._on_change = None  # as may this
        self._over.set()

    def _answer(self):
        if self._stop.is_set():
            return STOPPED
        self._tell(LOOKING)
        try:
            self._read(self._start(self._stop))
        except Phi3VError as error:
            self.error = str(error)
        except BaseException as error:  # noqa: B036 - in a thread nobody else would see it
            self.error = f"Something went wrong ({type(error).__name__}: {error}). Please report it."
        if self.error:
            return FAILED
        return STOPPED if self._stop.is_set() and not self.answer.finished else DONE

    def _read(self, stream):
        started = told = time.monotonic()
        for piece in stream:
            self.text += piece
            now = time.monotonic()
            if self.seconds_to_text is None:
                self.seconds_to_text = now - started
            self._seconds_after = now - started - self.seconds_to_text
            if now - told >= PAUSE:
                self._tell(WRITING)
                told = now
        self.answer = stream.answer

    def _tell(self, state):
        self.state = state
        try:
            self._on_change(self)
        except Exception:  # a page that is gone must not end the answers of the others
            logging.getLogger(__name__).exception("An answer could not be shown.")


class Controller:
    """A queue of jobs, and a thread while there is something to do.

    May be used from several threads. Nothing is lost and nothing is mixed: each job has a text of its own, and the
    next one starts when the last one is over.
    """

    def __init__(self):
        self._lock = threading.RLock()  # reentrant: an interrupted callback may come back in
        self._waiting = deque()
        self._current = None
        self._worker = None

    @property
    def busy(self):
        """Whether a job is being answered or waits."""
        with self._lock:
            return self._current is not None or bool(self._waiting)

    def submit(self, start, on_change=lambda job: None, only_if_free=False):
        """Answer a question as soon as those before it are over; returns its Job at once.

        With only_if_free nothing is done, and None returned, while another one is being answered or waits.

        start(stop): returns a Stream that ends when the threading.Event `stop` is set.
        on_change(job): called from the thread when the work begins, while the text grows, and at the end.
        """
        jobs = self.submit_all([(start, on_change)], only_if_free)
        return jobs[0] if jobs else None

    def submit_all(self, questions, only_if_free=False):
        """Several questions as one: no other comes between them, and `stop` means all of them.

        questions: list of (start, on_change), each as in `submit`. Returns their Jobs, or None.
        """
        jobs = [Job(*question) for question in questions]
        with self._lock:
            if only_if_free and self.busy:
                return None
            # First the thread, which waits for the lock: a KeyboardInterrupt between the two must not leave jobs alone.
            if not (self._worker and self._worker.is_alive()):
                self._worker = threading.Thread(target=self._work, daemon=True, name="phi3v-answers")
                self._worker.start()
            self._waiting += jobs
        return jobs

    def stop(self):
        """End the present answer after its token, and let those that wait never begin; returns at once."""
        with self._lock:
            jobs = [*([self._current] if self._current else []), *self._waiting]
        for job in jobs:
            job.stop()

    def _work(self):
        while True:
            with self._lock:
                if not self._waiting:
                    self._worker = None  # while we hold the lock: the next question starts another
                    return
                self._current = self._waiting.popleft()
            self._current.run(self._let_go)

    def _let_go(self):
        with self._lock:
            self._current = None
