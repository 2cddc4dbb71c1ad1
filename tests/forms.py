"""What the tests of the forms share: pictures, and ways to find a control and to wait."""

import io
import time

import ipywidgets
from ipywidgets.widgets import widget as ipywidgets_own
from PIL import Image


def png(colour, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = png("red"), png("blue")
LONG = 3000  # tokens: an answer that is not over before the test stops it


def find_all(widget, name):
    """The widgets with the class p3v-<name> in a form, in order."""
    found = [widget] if f"p3v-{name}" in widget._dom_classes else []
    return found + [hit for child in getattr(widget, "children", ()) for hit in find_all(child, name)]


def find(widget, name):
    found = find_all(widget, name)
    assert found, f"the form has no p3v-{name}"
    return found[0]


def text_of(widget):
    """All that the HTML widgets in a form show, one behind the other."""
    own = [widget.value] if isinstance(widget, ipywidgets.HTML) else []
    return " ".join(own + [text_of(child) for child in getattr(widget, "children", ())])


def live_widgets():
    """How many widgets ipywidgets (7 or 8) keeps, int."""
    return len(getattr(ipywidgets_own, "_instances", None) or ipywidgets.Widget.widgets)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
