"""Widgets that are shown again and not made again: ipywidgets keeps every widget for good, unless it is closed."""


class Reused:
    """The children of a box: one widget for each key, which stays as long as its key does, and then is closed.

    make(*key): the widget. To be used by one thread at a time.
    """

    def __init__(self, box, make):
        self._box, self._make = box, make
        self._made = {}

    def show(self, keys, but=()):
        """Show the widgets of these keys, in order. but: those that are not closed together with what they are in."""
        old = self._made
        self._made = {key: old.get(key) or self._make(*key) for key in keys}
        self._box.children = list(self._made.values())
        for key in old.keys() - self._made.keys():
            close(old[key], but)


def close(widget, but=()):
    """Close a widget with all that is in it and of it, save those in `but`."""
    if widget in but:
        return
    widget.close()
    own = [getattr(widget, name) for name in ("layout", "style") if widget.has_trait(name)]
    for part in (*getattr(widget, "children", ()), *own):
        close(part, but)
