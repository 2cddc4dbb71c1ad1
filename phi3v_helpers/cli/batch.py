"""`phi3v batch PICTURES... --ask "QUESTION" --out FILE`."""

import re
import signal
import sys

from .options import add_command, add_model_options, given
from .terminal import tell


def add_batch(commands):
    parser = add_command(
        commands,
        "batch",
        _batch,
        "ask about many pictures, and write a file of answers",
        "Ask about many pictures, and write a file with a row for each: picture, question, answer, model, tokens, "
        "seconds, and, where there is no answer, what was wrong. Stopped or killed, the same command goes on.",
    )
    parser.usage = 'phi3v batch [options] PICTURES... --ask "QUESTION" --out FILE'
    parser.add_argument(
        "words",
        nargs="*",
        metavar="PICTURES",
        help='paths, http addresses, folders, patterns ("photos/**/*.jpg", in quotes), or "@" and the name of a list: '
        "CSV, JSONL or Parquet with columns picture and question, or text with a picture in each line",
    )
    parser.add_argument(
        "--ask", metavar="QUESTION", help="the question, for all that bring none of their own"
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="ends in .parquet, .jsonl or .csv")
    parser.add_argument("--fresh", action="store_true", help="begin anew, and replace what is there")
    add_model_options(parser)
    parser.add_argument("--at-once", type=int, metavar="N", help="pictures that are computed together")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=True,
        default=False,
        metavar="ADDRESS",
        help="work on the machines of a Ray cluster (default: the one at hand, else one of this machine)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="models in the cluster (default: one a GPU)")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="the longest answer (default: 500)")
    parser.add_argument("--num-crops", type=int, metavar="N", help="the most tiles a picture is cut into")
    parser.add_argument("--system", metavar="TEXT", help="a text in front of each question")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch addresses of your own network, too"
    )
    parser.add_argument("--quiet", action="store_true", help="write nothing but errors to standard error")


def _batch(options):
    from contextlib import redirect_stdout

    from ..folders import batch

    if not options.words:
        options.parser.error("pictures are missing: phi3v batch PICTURES... --ask QUESTION --out FILE")
    if isinstance(options.ray, str) and not re.fullmatch(r"auto|local|(\w+://)?[^/\s]+:\d+", options.ray):
        options.parser.error(f"{options.ray!r} is no address of a cluster; write --ray behind the pictures")
    names = ("max_new_tokens", "num_crops", "system")
    how = given(options, names)
    how |= {name: getattr(options, name) for name in ("device", "dtype") if getattr(options, name) != "auto"}
    ours = signal.getsignal(signal.SIGINT)
    if callable(ours):  # and not ignored: let it say how to go on, instead of ending at once
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with redirect_stdout(sys.stderr):
            done = batch(
                options.words,
                options.ask,
                options.out,
                model=options.model,
                at_once=options.at_once,
                progress=not options.quiet,
                fresh=options.fresh,
                allow_private=options.allow_private,
                ray=options.ray,
                workers=options.workers,
                **how,
            )
    finally:
        signal.signal(signal.SIGINT, ours)
    if not options.quiet:
        tell(str(done))
