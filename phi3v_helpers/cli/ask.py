"""`phi3v ask PICTURE... "QUESTION"`."""

import json
import os
import re
import sys

from ..errors import ImageError, PromptError
from .options import add_command, add_model_options, given
from .terminal import tell

MOST_QUESTION = 1_000_000  # bytes from standard input


def add_ask(commands):
    parser = add_command(
        commands,
        "ask",
        _ask,
        "ask a question about pictures",
        "Ask a question about pictures. The answer is written to standard output while it comes; which model gave it, "
        "and what it cost, to standard error.",
    )
    parser.usage = 'phi3v ask [options] PICTURE... "QUESTION"'
    parser.add_argument(
        "words",
        nargs="*",
        metavar="PICTURE... QUESTION",
        help='pictures (paths, http addresses, or "-" for one on standard input), then the question ("-": it is on '
        "standard input); a single word is a question without a picture",
    )
    parser.add_argument("-q", "--question", help="the question; all other words are then pictures")
    add_model_options(parser)
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="the longest answer (default: 500)")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="more than 0 makes answers vary (default: 0)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="makes answers with a temperature repeatable")
    parser.add_argument("--num-crops", type=int, metavar="N", help="the most tiles a picture is cut into")
    parser.add_argument("--system", metavar="TEXT", help="a text in front of the conversation")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch addresses of your own network, too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the text")
    parser.add_argument("--quiet", action="store_true", help="write nothing but errors to standard error")


def _ask(options):
    pictures, question = _pictures_and_question(options)
    images = [_open(source, options, number, len(pictures)) for number, source in enumerate(pictures, 1)]
    vision = _load(options)
    names = ("max_new_tokens", "temperature", "seed", "num_crops", "system")
    how = given(options, names)
    if options.json:
        answer = vision.ask(images or None, question, **how)
        about = ("model", "prompt_tokens", "new_tokens", "seconds", "finished")
        print(json.dumps({"answer": answer.text} | {name: getattr(answer, name) for name in about}))
    else:
        stream = vision.stream(images or None, question, **how)
        for piece in stream:
            print(piece, end="", flush=True)
        print(flush=True)
        answer = stream.answer
    if not options.quiet:
        tell(answer.summary())


def _pictures_and_question(options):
    """The pictures as they were given, and the text of the question. Wrong usage ends the program."""
    error, words = options.parser.error, list(options.words)
    if options.question is None:
        if not words:
            error('a question is missing: phi3v ask PICTURE "QUESTION"')
        if _is_picture(words[-1]):
            error(f'{words[-1]!r} is no question; put one behind the pictures: phi3v ask PICTURE "QUESTION"')
    question = words.pop() if options.question is None else options.question
    if [*words, question].count("-") > 1:
        error('standard input ("-") can be one picture or the question, only one of them')
    return words, _question_from_input() if question == "-" else question


def _is_picture(word):
    """Whether a word is an address, a file, or called like one: "photo.jpg" asks nothing."""
    if re.fullmatch(r"\S+\.\w{2,4}|(https?|file)://.*|data:image/.*", word, re.IGNORECASE | re.DOTALL):
        return True
    return os.path.isfile(os.path.expanduser(word))


def _open(source, options, number, count):
    """A picture as it was given -> an RGB PIL image. Before the model is loaded, so that mistakes show at once."""
    from ..images import load_image

    try:
        if source == "-":
            return load_image(_picture_from_input())
        if _is_pattern(source) and not os.path.exists(source):
            raise ImageError(
                f"No file matches {source!r}.", f"Check folder and ending; you are in {os.getcwd()!r}."
            )
        return load_image(source, allow_private=options.allow_private)
    except ImageError as error:
        what = error.what.replace("What the file object holds", "What came on standard input")
        which = f"Picture {number} of {count}: " if count > 1 else ""
        raise ImageError(f"{which}{what}", error.advice) from error


def _is_pattern(word):
    """Whether it looks like the *.png that a shell leaves as it is where no file matches."""
    return any(mark in word for mark in "*?[") and not re.match("data:|[a-z]+://", word, re.IGNORECASE)


def _load(options):
    """The model; what `load` says of it goes to standard error, as the bars of a download do."""
    from contextlib import redirect_stdout

    from ..loading import load

    with redirect_stdout(sys.stderr):
        return load(options.model, options.device, options.dtype, verbose=not options.quiet)


def _picture_from_input():
    """The binary stream that holds it."""
    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError("Standard input holds no picture.", 'Send one: phi3v ask - "QUESTION" < FILE.')
    return sys.stdin.buffer


def _question_from_input():
    if sys.stdin is None:
        raise PromptError("Standard input is closed.", "Give the question as the last word.")
    if sys.stdin.isatty():
        tell("Type the question; end it with Ctrl-D on a line of its own.")
    data = sys.stdin.buffer.read(MOST_QUESTION + 1)
    if len(data) > MOST_QUESTION:
        raise PromptError(f"The question has more than {MOST_QUESTION:,} bytes.", "Ask a shorter one.")
    return data.decode("utf-8", errors="replace").strip()
