"""What every error for people must be."""

from contextlib import contextmanager

import pytest

from phi3v_helpers.errors import Phi3VError


@contextmanager
def helpful(kind, *words):
    """The block raises `kind`, with these words in it, a sentence on what and one on what to do."""
    with pytest.raises(kind) as caught:
        yield caught
    error = caught.value
    assert isinstance(error, Phi3VError)
    assert error.what.endswith(".") and error.advice.endswith((".", ").")), str(error)
    assert len(error.what) < 300, error.what
    for word in words:
        assert word in str(error), f"{word!r} is not in: {error}"
