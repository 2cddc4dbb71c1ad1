"""Checks of what callers give, that need nothing else."""

from .errors import PromptError


def whole(value, what):
    """The value, if it is a whole number of 1 or more. what: its name. Raises PromptError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PromptError(f"{what} is {value!r}.", "Give a whole number, 1 or more.")
    return value
