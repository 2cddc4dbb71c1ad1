"""The text in a picture."""

from ..answers import Answer
from ..images import load_image
from . import tasks
from .fence import before_fence
from .writing import fenced


def read_text(vision, image, options):
    """An Answer, see `Phi3Vision.read_text`."""
    answer = fenced(vision, [load_image(image)], tasks.TEXT, tasks.FENCE, options)
    before = before_fence(answer)
    text = answer.text if before is None else before
    return Answer(text.rstrip().lstrip("\n"), **vars(answer))
