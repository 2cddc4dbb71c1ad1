"""An answer while it is being written: generation in a thread, pieces of text out of a queue.

A thread and an event are the only way of stopping that works in every Jupyter kernel.
"""

import threading
import time

from transformers import StoppingCriteria, TextIteratorStreamer


class Stream:
    """Iterator over the pieces (str) of one answer; together they are the answer.

    answer: the `Answer`, once the iteration is over (what was said, where it was stopped); None before.
    Nothing runs before the first piece is asked for. Dropping the iterator, or `close()`, stops the model.
    What goes wrong in the model is raised from the iteration.
    """

    def __init__(self, tokenizer, run, stop=None, keep=None):
        """run(stopped, streamer): called in a thread, returns an Answer; ends early once `stopped()` is true.
        stop: threading.Event or None. keep(answer): called at the end, with an Answer whole or stopped."""
        self._outcome = _Outcome()
        # No reference back to self: so a dropped stream goes at once, and its generator is closed with it.
        self._pieces = _pieces(tokenizer, run, stop or threading.Event(), keep, self._outcome)

    @property
    def answer(self):
        return self._outcome.answer

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._pieces)

    def close(self):
        """Stop the model, and wait until it has stopped."""
        self._pieces.close()


class _Outcome:
    answer = None
    error = None


def _pieces(tokenizer, run, stop, keep, outcome):
    dropped = threading.Event()  # ours: an event of the caller's is never set for them
    streamer = PieceStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)

    def work():
        try:
            outcome.answer = run(lambda: stop.is_set() or dropped.is_set(), streamer)
        except BaseException as error:  # noqa: B036 - it is raised again where the pieces are read
            outcome.error = error
        finally:
            streamer.on_finalized_text("", stream_end=True)  # or the reader would wait for ever

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from filter(None, streamer)
    finally:
        dropped.set()
        thread.join()
        if keep and outcome.answer is not None:
            keep(outcome.answer)
    if outcome.error is not None:
        raise outcome.error


class PieceStreamer(TextIteratorStreamer):
    """TextIteratorStreamer that keeps the spaces after a line break.

    The original forgets everything at a line break, and the tokenizer then strips a space from the next line,
    as if it were the first. Here the last token stays in the cache, marked as said.
    """

    def put(self, value):
        super().put(value)
        flushed = not self.token_cache and not self.next_tokens_are_prompt
        if flushed and value.numel() == 1:
            self.token_cache = value.reshape(-1).tolist()
            self.print_len = len(self.tokenizer.decode(self.token_cache, **self.decode_kwargs))


class StopWhen(StoppingCriteria):
    """Ends generation after the present token as soon as `stopped()` is true.

    first: when the first token was there, as `time.perf_counter()` counts; None before. steps: how often it was asked,
    once for every call of the model.
    """

    def __init__(self, stopped):
        self.stopped = stopped
        self.first = None
        self.steps = 0

    def __call__(self, input_ids, scores, **kwargs):
        self.steps += 1
        self.first = self.first or time.perf_counter()
        return input_ids.new_full((len(input_ids),), self.stopped(), dtype=bool)
