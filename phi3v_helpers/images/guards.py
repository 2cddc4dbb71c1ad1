"""What a hostile file says of itself, found in its headers before anything is allocated for it.

The size of a picture is checked once Pillow has read its header, which suffices for most formats. These are the others:
files whose headers alone cost memory or time, or that hold a second picture with a size of its own.
"""

import re
import struct

MAX_PIXELS = 120_000_000  # the sensors of today's cameras and phones fit: 108 megapixels
LIMITS = {"JPEG2000": 50_000_000}  # by format, where reading takes 24 bytes a pixel and not 4 to 12
MAX_SCANS = 100  # of a JPEG, which is gone through once for each; cameras and programs write up to 12
MAX_VALUES = 200_000  # of a TIFF's tag: a strip a row, of 60,000 rows in three planes
MAX_ICON = 4096**2  # pixels
MAX_EXIF = 1024**2  # bytes; a JPEG holds 64 KB
MAX_CHANNELS = 6  # of a TIFF; Pillow knows none that has more

_MARKER = re.compile(
    rb"\xff+([^\xff\x00\x01\xd0-\xd7])"
)  # of a JPEG, with a length; the others are among pixels
_CHANNELS, _TILE_WIDTH, _TILE_LENGTH = 277, 322, 323
_KINDS = {1: (1, 2, 6, 7), 2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}  # bytes: types of tags
_SIZES = {kind: size for size, kinds in _KINDS.items() for kind in kinds}
_BYTES = (1, 2, 7)  # the types of tags that are kept as they are, not as a number for each


def suspicion(data, format):
    """Why this file must not be opened, as "it …"; None where nothing speaks against it.

    data: bytes. format: as Pillow names it.
    """
    check = {"JPEG": _jpeg, "TIFF": _tiff, "ICO": _ico}.get(format)
    try:
        return check and check(data)
    except (struct.error, OverflowError):
        return None  # cut off, or pointing to nowhere: Pillow will say so


def _jpeg(data):
    if data.count(b"\xff\xda") > MAX_SCANS and _scans(data) > MAX_SCANS:
        return "it is built of too many scans"


def _scans(data):
    """How many scans a JPEG has up to its end. Much may follow there: phones append a film."""
    place, scans = 2, 0
    while scans <= MAX_SCANS:
        found = _MARKER.search(data, place)
        if not found or found[1] == b"\xd9":
            break
        scans += found[1] == b"\xda"
        place = found.end() + struct.unpack_from(">H", data, found.end())[0]
    return scans


def _tiff(data):
    """Tags that overlap, so that a small file grows when it is read, and tiles larger than any picture."""
    total, tile = 0, {}
    for tag, kind, count, value in _tags(data):
        size = count * _SIZES.get(kind, 0)
        total += size
        if count > MAX_VALUES and kind not in _BYTES:
            return f"its tag {tag} has {count} values"
        if tag == _CHANNELS and value > MAX_CHANNELS:
            return f"it has {value} channels"
        if size and tag in (_TILE_WIDTH, _TILE_LENGTH):
            tile[tag] = value
    if total > 2 * len(data):
        return "its tags say they are larger than the file"
    if tile.get(_TILE_WIDTH, 0) * tile.get(_TILE_LENGTH, 0) > MAX_PIXELS:
        return f"it is built of tiles of {tile[_TILE_WIDTH]} x {tile[_TILE_LENGTH]} pixels"


def _tags(data):
    """(tag, type, count, first value) of each tag of a TIFF's first page."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:  # BigTIFF
        start, number, entry = 8, "Q", "HHQ8s"
    else:
        start, number, entry = 4, "H", "HHL4s"
    (place,) = struct.unpack_from(order + ("Q" if number == "Q" else "L"), data, start)
    (tags,) = struct.unpack_from(order + number, data, place)
    place += struct.calcsize(order + number)
    for index in range(min(tags, 65536)):
        tag, kind, count, raw = struct.unpack_from(
            order + entry, data, place + index * struct.calcsize("<" + entry)
        )
        short = struct.unpack(order + "H", raw[:2])[0]
        yield tag, kind, count, short if kind == 3 else struct.unpack(order + "L", raw[:4])[0]


def _ico(data):
    """An icon holds whole pictures, which Pillow decodes before it tells their size."""
    (pictures,) = struct.unpack_from("<H", data, 4)
    for index in range(pictures):
        (place,) = struct.unpack_from("<I", data, 6 + 16 * index + 12)
        if data[place : place + 4] == b"\x89PNG":
            width, height = struct.unpack_from(">II", data, place + 16)
        else:
            width, height = struct.unpack_from("<ii", data, place + 4)
        if abs(width * height) > MAX_ICON:
            return f"it holds a picture of {width} x {height} pixels"
