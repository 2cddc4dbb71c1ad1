"""The same question for every page of a document, of a folder, or of whatever gives pictures."""

import os
import re
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import ImageError, Phi3VError, PromptError
from ..images import pages
from ..images.arrays import is_array
from ..images.documents import open_document
from ..images.kinds import PDF, kind_of
from ..images.reading import is_path, read
from .fields import form_of
from .writing import request_for

METHODS = ("ask", "read_text", "read_table", "extract", "find_objects")


def each_page(vision, source, method, arguments, progress, options):
    """Iterator of (page, result), see `Phi3Vision.each_page`."""
    if method not in METHODS:
        raise PromptError(
            f"There is no method {str(method)[:40]!r} for pages.", f"Choose one of {', '.join(METHODS)}."
        )
    _check(vision, method, arguments, options)
    numbered, total = _pages(source)
    work = getattr(vision, method)
    return _results(numbered, total, lambda picture: work(picture, *arguments, **options), progress)


def _check(vision, method, arguments, options):
    """Refuse at once what would be refused for every page."""
    if method == "ask":
        vision.request([None], *arguments, **options)
        return
    own = {name: value for name, value in options.items() if name in ("schema", "numbers")}
    request_for(vision, [None], "?", {name: value for name, value in options.items() if name not in own})
    if method == "extract":
        form_of(*arguments, **own)


def _results(numbered, total, work, progress):
    with tqdm(total=total, unit="page", disable=not progress) as bar:
        for page, picture in numbered:
            try:
                result = work(picture())
            except Phi3VError as error:
                result = error
            yield page, result
            bar.update()


def _pages(source):
    """Pairs of a page's number or name and a function that gives its picture; how many there are, or None."""
    if isinstance(source, (list, tuple)):
        return [(number, _gives(one)) for number, one in enumerate(source, start=1)], len(source)
    if hasattr(source, "__next__") and not hasattr(source, "read"):
        return _of_iterator(source), None
    if is_path(source) and (folder := _folder(source)):
        return _of_folder(folder)
    if hasattr(source, "convert") or is_array(source):
        return [(1, _gives(source))], 1
    found = _of_file(source)
    return found, len(found)


def _of_file(source):
    data, what = read(source)
    if kind_of(data) is not PDF:
        return [(1, _gives(source if is_path(source) else data))]
    with open_document(data, what) as document:
        count = len(document)
    return [(number, lambda number=number: next(pages(data, number))) for number in range(1, count + 1)]


def _of_iterator(pictures):
    number = 0
    while True:
        number += 1
        try:
            one = next(pictures)
        except StopIteration:
            return
        except Phi3VError as error:
            yield number, _raises(error)
        else:
            yield number, _gives(one)


def _folder(source):
    try:
        folder = Path(os.fsdecode(source)).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None  # `read` has words for it


def _of_folder(folder):
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise ImageError(
            f"The folder {folder.name[:60]} has no files.", "Give one with pictures or documents."
        )
    files.sort(key=_as_people_sort)
    documents = any(file.suffix.lower() == ".pdf" for file in files)
    return (pair for file in files for pair in _named(file)), None if documents else len(files)


def _named(file):
    try:
        found = _of_file(file)
    except Phi3VError as error:
        found = [(1, _raises(error))]
    for number, picture in found:
        yield file.name if len(found) == 1 else f"{file.name}#page={number}", picture


def _as_people_sort(path):
    """page2 stands before page10."""
    parts = re.split("([0-9]+)", path.name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


def _gives(picture):
    return lambda: picture


def _raises(error):
    def picture():
        raise error

    return picture
