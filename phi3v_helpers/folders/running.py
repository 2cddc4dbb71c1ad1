"""`batch`: ask about all pictures, write every row down at once, and the file of answers when all are there."""

import hashlib
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass

from ..checks import whole
from ..errors import PromptError
from .disk import only_one
from .inputs import items_of
from .journal import Journal
from .output import Output

LOAD_OPTIONS = (
    "device",
    "dtype",
    "attention",
    "revision",
    "compile",
    "keep_bytes",
)  # of `load`, beside model
DECISIVE = ("model", "revision", "dtype", "num_crops")  # which of them make other answers


@dataclass(frozen=True)
class Done:
    """path: of the file of answers. rows, errors: int. may_pass: int, errors that another run may not meet again."""

    path: str
    rows: int
    errors: int
    may_pass: int

    def __str__(self):
        text = f"{self.rows:,} rows are in {self.path}"
        if self.errors:
            text += f", {self.errors:,} of them with an error"
        return (
            f"{text}. To try {self.may_pass:,} of these again, run the same again."
            if self.may_pass
            else f"{text}."
        )


def batch(
    pictures,
    question,
    out,
    *,
    model="auto",
    at_once=None,
    progress=True,
    fresh=False,
    allow_private=False,
    ray=False,
    workers=None,
    **options,
):
    """Ask about a great many pictures, and write a file with a row for each. A run that ended early can be taken up.

    pictures: one or an iterable of
        a path or an address of a picture, as in `load_image`;
        a folder, for the files in it whose ending is that of a picture or a PDF document, sorted;
        a pattern ("photos/**/*.jpg"), for the files that match, sorted;
        "@" and the name of a list: CSV, JSONL or Parquet with a column picture and, for rows with one of their own,
            question; else a text file with a picture in each line; paths count from the present folder;
        a pair (any of these, question).
    question: str, for all that bring none; None where all do.
    out: path that ends in .parquet (needs pyarrow), .jsonl or .csv. Its folder must exist.
    model: as in `load`, or a Phi3Vision.
    at_once: as in `ask_many`. allow_private: as in `load_image`. progress: show a progress bar.
    fresh: True begins anew, and replaces what is there.
    ray: True or an address works on the machines of a Ray cluster, a model for each GPU (without GPUs, for every
        four cores); True takes the one at hand (`ray.init`, RAY_ADDRESS), or all of this machine. Needs
        `pip install "phi3v-helpers[ray]"` on each machine, and pictures that all of them can reach.
    workers: int, how many models there, instead.
    options: of `ask`, but look_up; and of `load`: device, dtype, attention, revision, compile, keep_bytes.
    The columns: picture (as given), question, answer, model, prompt_tokens, new_tokens, seconds, finished (as in
    Answer) and error: None, or what was wrong with the picture or its question, and what to do; then all but the model
    is None.
    Rows stand in the order of the pictures.

    Beside the output there is a journal (out + ".journal"; and an empty ".lock"), so that the same call goes on where
    the last one ended, however that was; only errors of the network and of full memory are tried again. It refuses to
    go on with other pictures, questions, model or options. A picture that has changed since is not noticed.
    Returns a Done: path, rows, errors, may_pass.
    Raises ImageError, PromptError, LoadError, Phi3VError: it cannot begin, cannot write (a full disk), or another
    process writes to the same output.
    """
    output = Output(out)
    if at_once is not None:
        whole(at_once, "at_once")
    if workers is not None:
        whole(workers, "workers")
        if not ray:
            raise PromptError("workers is for a cluster.", "Give ray=True too, or leave it out.")
    items = items_of(pictures, question)
    spec, vision = _what_to_load(model, options)
    with only_one(output.path):
        if not fresh:
            output.refuse_to_replace()
        with Journal(output.journal, _description(items, spec, options), fresh) as journal:
            todo = [item for item in items if item.place not in journal or item.place in journal.failed]
            how = {"at_once": at_once, "options": options, "allow_private": allow_private}
            with _stopped_in_words(journal, len(items)):
                if todo and ray:
                    from .with_ray import rows_from_cluster

                    results = rows_from_cluster(todo, spec, vision, how, ray, workers)
                else:
                    results = _rows_from_here(todo, spec, vision, how, progress) if todo else ()
                _collect(results, journal, len(items), progress)
            journal.sync()
            output.write(_whole_rows(journal, items))
            return Done(str(out), len(items), len(journal.errors), len(journal.failed))


def _what_to_load(model, options):
    """(what to give `load`, Phi3Vision or None). Takes the options of `load` out of `options`."""
    if hasattr(model, "ask_many"):
        return dict(model.load_options or {"model": model.name}), model
    if model == "auto":
        model = os.environ.get("PHI3V_MODEL") or model
    spec = {name: options.pop(name) for name in LOAD_OPTIONS if name in options}
    return {"model": os.fspath(model), **spec}, None


def _description(items, spec, options):
    """What makes a run the same run: name -> [words for errors, what must be equal]."""
    first, more = items[0].question, len({item.question for item in items}) - 1
    model = {name: str(spec[name]) for name in DECISIVE if name in spec}
    options = {name: repr(value) for name, value in sorted(options.items()) if value is not None}
    return {
        "pictures": [f"{len(items):,}", _digest(item.picture for item in items)],
        "questions": [
            f"{first[:60]!r}{f' and {more:,} more' * bool(more)}",
            _digest(item.question for item in items),
        ],
        "model": [", ".join(model.values()), model],
        "options": [", ".join(f"{name}={value:.40}" for name, value in options.items()) or "none", options],
    }


def _digest(texts):
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _rows_from_here(items, spec, vision, how, progress):
    """Load the model -> iterator of (its identity, place, row, may_pass)."""
    from ..loading import load
    from .asking import identity, refuse_options, rows_of

    vision = vision or load(**spec, verbose=progress)
    refuse_options(vision, items, how["options"])
    who = identity(vision)
    return ((who, *result) for result in rows_of(vision, items, **how))


def _collect(results, journal, total, progress):
    """Write every row down as it comes."""
    from tqdm.auto import tqdm

    done = len(journal) - len(journal.failed)
    with tqdm(total=total, initial=done, unit="picture", disable=not progress) as bar:
        for who, place, row, may_pass in results:
            journal.set_model(who)
            journal.add(place, row, may_pass)
            bar.set_postfix({"errors": len(journal.errors)} if journal.errors else {}, refresh=False)
            bar.update()


@contextmanager
def _stopped_in_words(journal, total):
    """At Ctrl-C, says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        done = f"{len(journal):,} of {total:,} pictures are done"
        print(f"\nStopped: {done}. Run the same again to go on with the rest.", file=sys.stderr)
        raise


def _whole_rows(journal, items):
    for place, row in journal.rows():
        yield {"picture": items[place].picture, "question": items[place].question, **row}
