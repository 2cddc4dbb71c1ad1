"""Packages that only some methods need."""

from contextlib import contextmanager

from .errors import Phi3VError


@contextmanager
def needed(package, what, extra="data"):
    """The block imports `package`, for `what` (str). Raises Phi3VError, which names the command, where it is absent."""
    try:
        yield
    except ImportError as error:
        raise Phi3VError(
            f"{what} needs {package}, which cannot be imported here.",
            f'Install it: pip install "phi3v-helpers[{extra}]".',
        ) from error
