"""Ends an answer at the fence that closes it."""

import torch
from transformers import LogitsProcessor

TAIL = 16  # tokens that are looked at for a fence: enough for one that is written in single bytes


class UntilFence(LogitsProcessor):
    """Lets nothing but the end come after a line that begins with three backticks. ends: ids of the end tokens."""

    def __init__(self, tokenizer, ends):
        self._tokenizer, self._ends = tokenizer, ends
        self._start = None

    def __call__(self, input_ids, scores):
        if self._start is None:
            self._start = input_ids.shape[1]
        tail = input_ids[0, max(self._start, input_ids.shape[1] - TAIL) :].tolist()
        written = self._tokenizer.decode(tail, clean_up_tokenization_spaces=False)
        is_all = input_ids.shape[1] - self._start <= TAIL
        if before_fence(written if is_all else "…" + written) is None:
            return scores
        ended = torch.full_like(scores, -torch.inf)
        ended[:, self._ends] = scores[:, self._ends]
        return ended


def before_fence(text):
    """What stands before the closing fence, a str; None where there is none."""
    before, fence, _ = ("\n" + text).partition("\n```")
    return before[1:] if fence else None
