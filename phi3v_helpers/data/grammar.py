"""Keeps a model to a grammar, token by token, with llguidance.

The table of a tokenizer and the compiled grammars are kept, as long as the engine that they are for.
"""

import json
import threading
from collections import OrderedDict
from weakref import WeakKeyDictionary

import torch
from transformers import LogitsProcessor

from ..errors import Phi3VError, PromptError
from ..needs import needed

KEPT = 32  # compiled grammars of a tokenizer
# As json.dumps writes. A space may stand in front: a tokenizer of words with their spaces begins texts so.
_GRAMMAR = 'start: " "? json\njson: %json {}'
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_lock = threading.Lock()
_grammars = WeakKeyDictionary()  # Engine -> Grammars


def grammars_of(engine):
    """The Grammars of an Engine. Raises Phi3VError: llguidance is absent, or does not know this kind of tokenizer."""
    with _lock:
        if engine not in _grammars:
            _grammars[engine] = Grammars(engine)
        return _grammars[engine]


class Grammars:
    """Makes Constraints for one tokenizer. May be used from several threads."""

    def __init__(self, engine):
        with needed("llguidance", "Getting data out of pictures"):
            import llguidance.hf
        tokenizer = engine.processor.tokenizer
        size = max(len(tokenizer), engine.model.config.vocab_size)
        try:
            self.table = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=list(engine.ends))
        except (ValueError, TypeError) as error:
            raise Phi3VError(
                f"The tokenizer of this model, a {type(tokenizer).__name__}, cannot be kept to a grammar.",
                "Load the model from a folder with a tokenizer.json.",
            ) from error
        self._kept, self._lock = OrderedDict(), threading.Lock()

    def constraint(self, form):
        """A fresh Constraint to a form (see `schemas`), for one answer. Raises PromptError."""
        text = json.dumps(form)
        with self._lock:
            if text not in self._kept:
                self._kept[text] = self._compiled(form)
            self._kept.move_to_end(text)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return Constraint(self._kept[text].deep_copy(), self.table)

    def _compiled(self, form):
        from llguidance import LLMatcher

        grammar = _GRAMMAR.replace("{}", json.dumps(form | {"x-guidance": _STYLE}))
        matcher = LLMatcher(self.table, grammar, log_level=0)
        if matcher.is_error():
            reason = matcher.get_error().split("JSON schema:")[-1].strip().splitlines()[0].rstrip(".:")
            raise PromptError(
                f"The schema cannot be followed: {reason[:200]}.", "Change or leave out that part of it."
            )
        return matcher


class Constraint(LogitsProcessor):
    """For one answer: lets through only tokens that go on with the grammar; where it is complete, those that end."""

    def __init__(self, matcher, table):
        self._matcher, self._table = matcher, table
        self._length, self._ids = None, []

    @property
    def text(self):
        """What was written up to the last token but one, which of a finished answer is all but its end: str."""
        return self._table.decode_bytes(self._ids).decode()

    def __call__(self, input_ids, scores):
        if self._length is not None:
            new = input_ids[0, self._length :].tolist()
            self._matcher.consume_tokens(new)
            self._ids += new
        self._length = input_ids.shape[1]
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8).bool()
        if not self._matcher.is_accepting():
            allowed[self._table.eos_tokens] = (
                False  # as text that a pattern asks for, they would end the answer
            )
        allowed = allowed[: scores.shape[-1]].to(scores.device)
        scores = scores.masked_fill(~allowed, -torch.inf)
        if self._matcher.is_error() or scores.isneginf().all():
            raise Phi3VError("The schema cannot be followed token by token.", "Simplify its patterns.")
        return scores
