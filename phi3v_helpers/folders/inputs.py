"""What `batch` is to look at: folders, patterns and lists of pictures -> one Item after the other."""

import csv
import glob
import json
import os
import re
from dataclasses import dataclass

from ..errors import ImageError, PromptError
from ..needs import needed

# A folder's other files are no pictures, or none that can be read; which of these really are shows when they are read.
ENDINGS = (
    ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .heic .heif .jp2 .j2k .jpx .ppm .pgm .pbm .pnm "
    ".tga .ico .pdf"
).split()
TABLES = (".csv", ".jsonl", ".parquet")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One picture and its question. place: int, its row from 0. picture: str, a path or an address, as given."""

    place: int
    picture: str
    question: str


def items_of(pictures, question):
    """List of Items. pictures, question: as in `batch`. Raises ImageError, PromptError."""
    if question is not None and not (isinstance(question, str) and question.strip()):
        raise PromptError(
            f"The question is {question!r:.60}.",
            "Ask something about the pictures, in a str that is not empty.",
        )
    given = [pictures] if isinstance(pictures, (str, os.PathLike)) else pictures
    try:
        given = iter(given)
    except TypeError as error:
        raise ImageError(
            f"A {type(pictures).__name__} is no list of pictures.", "Give a folder, a pattern, or paths."
        ) from error
    pairs = [pair for number, one in enumerate(given, 1) for pair in _pairs(one, number, question)]
    if not pairs:
        raise ImageError("There are no pictures to ask about.", "Give a folder, a pattern, or paths.")
    for number, (picture, own) in enumerate(pairs, 1):
        if own is None:
            raise PromptError(
                f"Picture {number}, {_short(picture)}, has no question.",
                "Give one for all, or pairs (picture, question), or a list with a column question.",
            )
    return [Item(place, picture, own) for place, (picture, own) in enumerate(pairs)]


def _pairs(given, number, question):
    """One thing that was given -> pairs (picture, question or None)."""
    if isinstance(given, tuple) and len(given) == 2:
        given, question = given
    if isinstance(given, os.PathLike):
        given = os.fsdecode(given)
    if not isinstance(given, str) or not isinstance(question, (str, type(None))):
        raise ImageError(
            f"Picture {number} is a {type(given).__name__}, with which no run could be taken up again.",
            "Give paths or addresses, or pairs (path, question); for pictures in memory there is model.ask_many.",
        )
    if given.startswith("@"):
        return [(picture, own or question) for picture, own in _of_list(os.path.expanduser(given[1:]))]
    return [(picture, question) for picture in _expanded(given)]


def _expanded(source):
    """A folder or a pattern -> the paths of its pictures, sorted; anything else is a picture itself."""
    if _ADDRESS.match(source):
        return [source]
    path = os.path.expanduser(source)
    try:
        if os.path.isdir(path):
            found = [os.path.join(source, entry.name) for entry in os.scandir(path) if _is_picture(entry)]
        elif os.path.lexists(path) or not any(mark in source for mark in "*?["):
            found = [source]  # which may not be there, as its row will say
        else:
            found = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{_short(source)} cannot be opened ({getattr(error, 'strerror', None) or error}).",
            "Check its name and permissions.",
        ) from error
    if not found:
        raise ImageError(f"There are no pictures in {_short(source)}.", "Check the folder, and the ending.")
    if found == [source] and path.lower().endswith((*TABLES, ".txt")):
        raise ImageError(f"{_short(source)} is no picture.", f"If it lists some, give '@{source[-60:]}'.")
    return sorted(found, key=_as_people_sort)


def _is_picture(entry):
    named = not entry.name.startswith(".") and os.path.splitext(entry.name)[1].lower() in ENDINGS
    return named and entry.is_file()


def _as_people_sort(name):
    """page2 stands before page10."""
    parts = re.split("([0-9]+)", name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _of_list(path):
    """The pairs (picture, question or None) that a file lists; a row, or a line, each."""
    ending = os.path.splitext(path)[1].lower()
    try:
        if ending not in TABLES:
            with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:  # names may be any bytes
                return [(line.strip(), None) for line in file if line.strip()]
        rows = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[ending](path)
        return [_pair_of_row(row, number, path) for number, row in enumerate(rows, 1)]
    except OSError as error:
        raise ImageError(
            f"The list {_short(path)} cannot be read ({error.strerror or type(error).__name__}).",
            "Check its name and permissions.",
        ) from error
    except (ValueError, csv.Error) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"The list {_short(path)} is damaged, or not what its ending says ({str(error)[:80]}).",
            "Give CSV, JSONL or Parquet with a column picture, or a text file with a picture in each line.",
        ) from error


def _csv(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _jsonl(path):
    with open(path, encoding="utf-8-sig") as file:
        return [json.loads(line) for line in file if line.strip()]


def _parquet(path):
    with needed("pyarrow", "A list in Parquet", "batch"):
        import pyarrow.parquet as parquet
    return parquet.read_table(path).to_pylist()


def _pair_of_row(row, number, path):
    picture, question = (row.get(name) if isinstance(row, dict) else None for name in ("picture", "question"))
    if not (isinstance(picture, str) and picture.strip() and isinstance(question, (str, type(None)))):
        raise ImageError(
            f"Row {number} of {_short(path)} names no picture.",
            "Its columns are picture, a path or an address, and question where rows have their own.",
        )
    return picture, question if question and question.strip() else None


def _short(text):
    """A path that fits into a sentence; of an address, which may hold keys, nothing."""
    return (
        "an address"
        if _ADDRESS.match(text)
        else repr(text if len(text) <= 80 else f"{text[:40]}…{text[-30:]}")
    )
