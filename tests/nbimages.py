"""A pytest plugin that makes nbval compare pictures as well (load it with ``-p nbimages``).

nbval compares text, HTML and streams, but passes over image/png and image/jpeg: a notebook whose picture
was swapped would still be green.  Here every stored picture, be it an output of its own or a ``data:``
address within HTML, is compared with the new one by its decoded pixels: another zlib or a newer JPEG
encoder changes nothing, one changed digit of a chart does.
"""

import base64
import io
import re
from functools import partial

import numpy as np
from nbval.plugin import IPyNbCell
from PIL import Image

BLOCK = 16  # pixels; differences are averaged over blocks of this side, so that small changes count
TOLERANCE = 12  # of 255, the mean difference that any one block may have

PICTURE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
TEXT_TYPES = ("text/html", "text/markdown")
DATA_ADDRESS = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,([A-Za-z0-9+/=\s]+)")


def pytest_itemcollected(item):
    """Put our comparison in front of nbval's, for each cell of a notebook."""
    if isinstance(item, IPyNbCell):
        item.compare_outputs = partial(compare_outputs, item)


def compare_outputs(cell, new, stored, skip_compare=None):
    """Compare all outputs of a cell: everything else by nbval, then the pictures.

    Args:
        cell: nbval's test item; what is wrong is appended to its `comparison_traceback`.
        new, stored: lists of outputs in the notebook format.
        skip_compare: as nbval has it.

    Returns:
        bool: whether they agree.
    """
    same = IPyNbCell.compare_outputs(cell, without_pictures(new), without_pictures(stored), skip_compare)
    if same:
        complaint = compare_pictures(pictures(new), pictures(stored))
        if complaint:
            cell.comparison_traceback.append(complaint)
        same = not complaint
    return same


def compare_pictures(new, stored):
    """Return None if two lists of pictures (bytes of PNG, JPEG, …) look alike, else a sentence on why not."""
    if len(new) != len(stored):
        return f"{len(stored)} picture(s) are stored, the cell now shows {len(new)}."
    for number, (a, b) in enumerate(zip(new, stored, strict=True), start=1):
        a, b = pixels(a), pixels(b)
        if a.shape != b.shape:
            return f"Picture {number} is stored as {size(b)} pixels and is now {size(a)}."
        worst = worst_block(a, b)
        if worst > TOLERANCE:
            return (
                f"Picture {number} differs from the stored one: a block of {BLOCK}x{BLOCK} pixels "
                f"by {worst:.0f} of 255 on average ({TOLERANCE} is allowed)."
            )
    return None


def pictures(outputs):
    """All pictures of a cell's outputs, in order, as bytes."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        found += [base64.b64decode(data[kind]) for kind in PICTURE_TYPES if kind in data]
        for kind in TEXT_TYPES:
            found += [base64.b64decode(address) for address in DATA_ADDRESS.findall(data.get(kind, ""))]
    return found


def without_pictures(outputs):
    """The same outputs for nbval to compare, each picture within HTML or markdown replaced by a word."""
    return [_without_pictures(output) for output in outputs]


def _without_pictures(output):
    if "data" not in output:
        return output
    data = {
        kind: DATA_ADDRESS.sub("(picture)", value) if kind in TEXT_TYPES else value
        for kind, value in output["data"].items()
    }
    return type(output)({**output, "data": data})


def pixels(picture):
    """Decode a picture to an int array (height, width, 3), transparency shown on white."""
    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image).convert("RGB"), dtype=np.int16)


def size(array):
    return f"{array.shape[1]}x{array.shape[0]}"


def worst_block(a, b):
    """The largest mean difference (0 to 255) of any block of BLOCK x BLOCK pixels."""
    difference = np.abs(a - b).max(axis=2)  # (H, W), the channel that differs most
    height, width = difference.shape
    padded = np.pad(difference, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="edge")
    rows, columns = padded.shape[0] // BLOCK, padded.shape[1] // BLOCK
    blocks = padded.reshape(rows, BLOCK, columns, BLOCK)  # (rows, y in block, columns, x in block)
    return float(blocks.mean(axis=(1, 3)).max())
