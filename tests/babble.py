"""Models that say what a test wants: anything that a grammar lets through, or a given text."""

import random
from contextlib import contextmanager
from itertools import chain, repeat

import torch

CLOSING = b'"]},:0123456789 ultrsnefa'  # bytes that get strings and lists to their end


def babble(grammars, ends, form, seed, most=3000):
    """Random ids that keep to a form, and the text that the constraint read: (list of int, str)."""
    constraint, choice, ids = grammars.constraint(form), random.Random(seed), []
    table, scores = grammars.table, torch.zeros(1, grammars.table.vocab_size)
    while len(ids) < most:
        allowed = (constraint(torch.tensor([[0, *ids]]), scores)[0] == 0).nonzero().flatten().tolist()
        weights = [30 if table.decode_bytes([id]) in _closing() else 1 for id in allowed]
        token = choice.choices(allowed, weights)[0]
        if token in ends:
            return ids, constraint.text
        ids.append(token)
    raise AssertionError(f"no end: {constraint.text[:200]}")


def _closing():
    return [bytes([byte]) for byte in CLOSING]


@contextmanager
def saying(vision, text):
    """Within the block the model wants to say `text` (str), token by token; what is forbidden it cannot say."""
    ids = chain(vision.tokenizer(text, add_special_tokens=False).input_ids, repeat(vision.engine.ends[0]))

    def say(module, given, logits):
        logits = torch.zeros_like(logits)
        logits[:, -1, next(ids)] = 100
        return logits

    handle = vision.model.lm_head.register_forward_hook(say)
    try:
        yield
    finally:
        handle.remove()
