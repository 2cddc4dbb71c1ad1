"""How the process talks with its terminal: output, width, Ctrl-C."""

import os
import shutil
import signal
import sys

INTERRUPTED = 130  # exit status


def as_a_program():
    """No traceback at Ctrl-C, no error at letters that the terminal does not know."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        # At once: the model is in another thread, and may read a long prompt for a minute before it looks up.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def tell(text):
    """A line for people, on standard error."""
    if sys.stderr:  # else print would take standard output
        print(text, file=sys.stderr, flush=True)


def flush():
    if sys.stdout:
        sys.stdout.flush()


def drop_output():
    """Nothing more can be written: what is still waiting goes nowhere, or Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, AttributeError, ValueError):  # not a file, or closed
        pass
    finally:
        os.close(nowhere)


def width():
    """Columns of the terminal; None where the output goes elsewhere."""
    return max(20, shutil.get_terminal_size().columns) if sys.stdout and sys.stdout.isatty() else None
