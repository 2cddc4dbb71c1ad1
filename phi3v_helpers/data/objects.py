"""The objects in a picture."""

from collections import Counter
from dataclasses import dataclass

from ..images import load_image
from . import tasks
from .kinds import MAX_ITEMS
from .schemas import bounded
from .writing import in_form

MAX_WORDS = 60  # characters of what, colour and where

_WORDS = {"type": "string", "minLength": 1, "maxLength": MAX_WORDS}
_OR_NULL = {"anyOf": [_WORDS, {"type": "null"}]}
_OBJECT = {
    "type": "object",
    "properties": {"what": _WORDS, "colour": _OR_NULL, "where": _OR_NULL},
    "required": ["what", "colour", "where"],
}
FORM = bounded(
    {
        "type": "object",
        "properties": {"objects": {"type": "array", "items": _OBJECT, "maxItems": MAX_ITEMS}},
        "required": ["objects"],
    }
)


@dataclass(frozen=True)
class Found:
    """An object in a picture. what: str. colour, where: str, or None where the model does not say."""

    what: str
    colour: str | None = None
    where: str | None = None


class Objects(list):
    """A list of Found, in the model's order."""

    def counts(self):
        """How many there are of each colour and kind: dict {(colour, what): int}."""
        return dict(Counter((one.colour, one.what) for one in self))


def find_objects(vision, image, options):
    """Objects, see `Phi3Vision.find_objects`."""
    data = in_form(vision, [load_image(image)], tasks.OBJECTS, FORM, options)
    return Objects(Found(**one) for one in data["objects"])
