"""The table in a picture, as a DataFrame."""

import re

from ..images import load_image
from ..needs import needed
from . import tasks
from .writing import in_form

MAX_COLUMNS, MAX_ROWS, MAX_CELL = 12, 100, 100

# Not 007, which is a name, and not what a float would round. The minus may be the printer's.
_NUMBER = re.compile(r"[+\-−]?(?:0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.[0-9]+)?")
_DIGITS = 15


def _of_width(columns):
    """The form of a table of so many columns."""
    cell = {"type": "string", "maxLength": MAX_CELL}
    row = {"type": "array", "items": cell, "minItems": columns, "maxItems": columns}
    rows = {"type": "array", "items": row, "maxItems": MAX_ROWS if columns else 0}
    return {
        "type": "object",
        "properties": {"columns": row, "rows": rows},
        "required": ["columns", "rows"],
        "additionalProperties": False,
    }


FORM = {"anyOf": [_of_width(columns) for columns in range(MAX_COLUMNS + 1)]}


def read_table(vision, image, numbers, options):
    """A DataFrame, see `Phi3Vision.read_table`."""
    with needed("pandas", "Reading a table"):
        import pandas
    data = in_form(vision, [load_image(image)], tasks.TABLE, FORM, options)
    cells = zip(*data["rows"]) if data["rows"] else [()] * len(data["columns"])
    columns = {
        name: as_numbers(column) if numbers else list(column)
        for name, column in zip(usable_names(data["columns"]), cells)
    }
    frame = pandas.DataFrame(columns)
    frame.attrs["model"] = vision.name
    return frame


def usable_names(names):
    """As they are printed (list of str), with numbers behind those that come again, and for those that are empty."""
    names, usable = [name.strip() for name in names], []
    for place, name in enumerate(names, start=1):
        first = unused = name or f"column {place}"
        again = 2
        while unused in usable or unused != name and unused in names:
            unused, again = f"{first} {again}", again + 1
        usable.append(unused)
    return usable


def as_numbers(cells):
    """A list of int or float, with NaN for empty cells, where all others are numbers; else the cells as they are."""
    texts = [cell.strip() for cell in cells]
    if not any(texts) or not all(is_number(text) for text in texts if text):
        return list(cells)
    texts = [text.replace(",", "").replace("−", "-") for text in texts]
    whole = all(text and "." not in text for text in texts)
    return [int(text) if whole else float(text or "nan") for text in texts]


def is_number(text):
    """Whether a cell is a number that a float holds exactly enough: -1,234.5, but not 12 %, 007 or 1.234,5."""
    return bool(_NUMBER.fullmatch(text)) and sum(map(str.isdigit, text)) <= _DIGITS
