"""The command `phi3v`, or `python -m phi3v_helpers`: ask about pictures, look whether all is well, see it at work.

Each command is a function that describes it to argparse, `add_<name>(commands)`, and one that does it,
`_<name>(options)`, which imports what it needs: `phi3v --help` is quick. Answers go to standard output, everything else
to standard error.
"""

import argparse
import errno
import os
import traceback

from .. import __version__
from ..errors import Phi3VError
from .ask import add_ask
from .batch import add_batch
from .others import add_cache, add_demo, add_doctor
from .serve import add_serve
from .terminal import INTERRUPTED, as_a_program, drop_output, flush, tell
from .tune import add_tune

DONE, ERROR, UNEXPECTED, CLOSED_PIPE = 0, 1, 70, 141
EXAMPLES = """\
examples:
  phi3v ask photo.jpg "What is on the table?"
  phi3v ask before.png after.png "What is the difference?"
  curl -s https://example.org/chart.png | phi3v ask - "Which year is the highest?"
  phi3v serve
  phi3v doctor

exit status: 0 done; 1 not possible, and the message says why; 2 wrong usage; 70 a mistake in phi3v itself;
130 interrupted. PHI3V_DEBUG=1 shows where an error came from; PHI3V_MODEL names the model to take.
"""


def main(arguments=None):
    """Run one command. arguments: list of str; None takes those of the process. Returns the exit status."""
    if arguments is None:
        as_a_program()
    try:
        try:
            return _run(arguments)
        finally:
            flush()
    except BrokenPipeError:  # who reads the answer has read enough, as `head` does
        drop_output()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        drop_output()
        tell(f"phi3v: The output could not be written ({error.strerror}). Make room, or send it elsewhere.")
        return ERROR


def _run(arguments):
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes words once only, so those behind an option are left over.
    words = getattr(options, "words", None)
    if rest and (words is None or any(word.startswith("-") and word != "-" for word in rest)):
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        words += rest
    debug = options.debug or os.environ.get("PHI3V_DEBUG", "0") not in ("", "0")
    try:
        return options.run(options) or DONE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
            raise  # of the output
        if debug:
            traceback.print_exc()
        if isinstance(error, Phi3VError):
            tell(f"phi3v: {error}")
            return ERROR
        hint = "" if debug else " Run it again with --debug to see where, and report that."
        tell(f"phi3v: Something unexpected happened ({type(error).__name__}: {error}).{hint}")
        return UNEXPECTED


def _parser():
    parser = argparse.ArgumentParser(
        prog="phi3v",
        description="Ask Phi-3-vision about pictures; without a GPU, its tiny relative that ships inside.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phi3v-helpers {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (add_ask, add_batch, add_serve, add_tune, add_doctor, add_demo, add_cache):
        add(commands)
    return parser
