"""What was computed is kept for the next question: encoded pictures, and the keys and values of what was read.

All of it together stays below a budget in bytes; what was not used for the longest time goes first.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch

from .devices import free_memory
from .model.cache import GrowingCache

SHARE = 8  # an eighth of the free memory
MOST = 4 * 10**9  # bytes
WORTH_A_COPY = 16  # tokens; fewer are computed again sooner than copied


@dataclass
class Text:
    """A conversation as the decoder knows it: one number for each token (see `signature`), their keys and values."""

    signature: torch.Tensor
    cache: object

    @property
    def nbytes(self):
        tensors = (tensor for layer in self.cache.layers for tensor in (layer.keys, layer.values))
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


class Kept:
    """budget: bytes, of device memory. Not for several threads at once."""

    def __init__(self, budget):
        self.budget = budget
        self._things = OrderedDict()  # key -> features (tokens, D) of a picture, or Text; the newest last
        self._count = 0

    @property
    def nbytes(self):
        return sum(thing.nbytes for thing in self._things.values())

    @property
    def pictures(self):
        """How many pictures are kept."""
        return len(self._things) - len(self._texts())

    @property
    def texts(self):
        """How many conversations are kept."""
        return len(self._texts())

    def picture(self, key):
        """The features of a picture, or None."""
        if key in self._things:
            self._things.move_to_end(key)
        return self._things.get(key)

    def keep_picture(self, key, features):
        self._keep(key, features)

    def keep_text(self, signature, cache):
        """signature: of the tokens whose keys and values are right; the cache may hold more."""
        guessed = cache.get_seq_length() - len(signature)
        if guessed > 0:  # wrong guesses of `look_up` that are still in it
            cache.crop(-guessed)
        self._count += 1
        self._keep(self._count, Text(signature[: cache.get_seq_length()], cache))

    def beginning(self, signature, fits, take=True):
        """What is known of the beginning of a new prompt.

        signature: int64 (T,). fits(known, length): whether the first `length` tokens of a text of `known` tokens
        can go on to this prompt.
        take: the caller may have the tensors themselves, which are then kept no longer; else a copy.
        Returns (cache, how many tokens it holds), at most T - 1 of them: the last token has to be read to go on.
        """
        best, common = None, 0
        for key, text in self._texts().items():
            length = min(_common(text.signature, signature), len(signature) - 1)
            if length > common and fits(len(text.signature), length):
                best, common = key, length
        if best is None:
            return GrowingCache(), 0
        text = self._things[best]
        if take and common * 2 >= len(text.signature):  # most of it: go on with the same tensors
            del self._things[best]
            text.cache.crop(common - len(text.signature))
            return text.cache, common
        if common < WORTH_A_COPY:
            return GrowingCache(), 0
        self._things.move_to_end(best)
        return _copied(text.cache, common), common

    def clear(self):
        self._things.clear()

    def _texts(self):
        return {key: thing for key, thing in self._things.items() if isinstance(thing, Text)}

    def _keep(self, key, thing):
        self._things[key] = thing
        while self._things and self.nbytes > self.budget:
            self._things.popitem(last=False)


def usual_budget(device):
    """Bytes for what is kept on a torch.device: an eighth of the memory that is free now, 4 GB at most."""
    return min(free_memory(device) // SHARE, MOST)


def _common(one, other):
    """How many numbers two tensors have in common from the start."""
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _copied(cache, length):
    """A new cache with the first tokens of another."""
    copy = GrowingCache()
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys[:, :, :length], layer.values[:, :, :length], number)
    return copy
