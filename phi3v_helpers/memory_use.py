"""What the models in use hold in memory."""

import weakref
from dataclasses import dataclass

alive = weakref.WeakSet()  # every Phi3Vision there is


@dataclass(frozen=True)
class ModelMemory:
    """Of one model: name, device; weights, kept, budget: bytes; pictures, texts: how many of them are kept.

    Kept is what need not be computed again: encoded pictures, and keys and values of conversations. It never exceeds
    the budget, see `load`.
    """

    name: str
    device: str
    weights: int
    kept: int
    budget: int
    pictures: int
    texts: int

    def __str__(self):
        return (
            f"{self.name} on {self.device}: {size(self.weights)} of weights; keeps {size(self.kept)} of at most "
            f"{size(self.budget)}: pictures {self.pictures}, conversations {self.texts}"
        )


class Report(list):
    """A list of ModelMemory that shows one of them a line."""

    def __repr__(self):
        return "\n".join(map(str, self)) or "No model is loaded."


def memory():
    """What the models in use hold: a list of `ModelMemory`, one for each, which shows itself as text.

    `model.forget()` lets go of what a model keeps.
    """
    shared = {id(vision.engine): vision for vision in sorted(alive, key=lambda vision: vision.name)}
    return Report(_of(vision) for vision in shared.values())


def _of(vision):
    kept = vision.engine.kept
    weights, _ = vision.memory(0)
    with vision.lock:
        return ModelMemory(
            vision.name, str(vision.device), weights, kept.nbytes, kept.budget, kept.pictures, kept.texts
        )


def size(number):
    """Bytes in words: "0.4 MB", "25 MB", "8.3 GB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if number >= scale:
            return f"{number / scale:.{0 if number >= 10 * scale else 1}f} {unit}"
    return f"{number / 1e6:.1f} MB"
