"""Writing to the disk: alone, and with words for what goes wrong."""

import errno
import os
from contextlib import contextmanager

from ..errors import Phi3VError


@contextmanager
def only_one(path):
    """The block is the only one, of all processes, that writes to this output. Raises Phi3VError."""
    import filelock

    lock = filelock.FileLock(f"{path}.lock")
    with explained(path):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise Phi3VError(
                f"Another process is writing to {name_of(path)}.",
                "Wait for it, or give another name for the output.",
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def explained(path):
    """Turns what the system says about files that cannot be written into a Phi3VError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Phi3VError(
                f"The disk is full: {name_of(path)} could not be written.",
                "Make room and run the same again: what was done is kept.",
            ) from error
        raise Phi3VError(
            f"{name_of(path)} cannot be written ({error.strerror or type(error).__name__}).",
            "Check the folder and its permissions, or give another name for the output.",
        ) from error


def name_of(path):
    return os.path.basename(path)[-60:]
