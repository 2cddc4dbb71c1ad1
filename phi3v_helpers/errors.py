"""Errors for people: one sentence on what was wrong, one on what to do."""


class Phi3VError(Exception):
    """Anything that phi3v_helpers refuses or could not do.

    what: a sentence that says what was wrong, with the value.
    advice: a sentence that says what to do about it.
    Both are attributes too; `str(error)` is the one behind the other.
    """

    def __init__(self, what, advice):
        super().__init__(what, advice)  # both, so that the error can be pickled
        self.what = what
        self.advice = advice

    def __str__(self):
        return f"{self.what} {self.advice}"


class ImageError(Phi3VError, ValueError):
    """A picture that cannot be found, fetched or read."""


class PromptError(Phi3VError, ValueError):
    """A question, tag, option or length that the model cannot take."""


class LoadError(Phi3VError):
    """A model that cannot be found, downloaded or put where it was asked for."""
