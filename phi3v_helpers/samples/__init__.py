"""The shipped pictures, by name.

    p3v.samples["stock_chart"]      an RGB PIL image; `p3v.samples.stock_chart` is the same
    p3v.samples.names()             what there is
    p3v.samples.path("stock_chart") its file
    p3v.samples.info("stock_chart") its title, licence, source and alt text

samples.json beside this file says of each name: "title", "licence", "source", "alt", and "file" where that is
not <name>.png.
"""

import json
import sys
import types
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@cache
def _catalogue():
    path = _FOLDER / "samples.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def names():
    """Names of the shipped pictures, a list of str."""
    return list(_catalogue())


def info(name):
    """What is known about a picture: dict with title, licence, source, alt (all str). Raises ImageError."""
    from ..errors import ImageError

    if name not in _catalogue():
        raise ImageError(f"There is no shipped picture {name!r}.", f"Choose one of {', '.join(names())}.")
    return dict(_catalogue()[name])


def path(name):
    """The file of a picture, a Path. Raises ImageError."""
    return _FOLDER / info(name).get("file", f"{name}.png")


class _Samples(types.ModuleType):
    """A module that can be indexed: `p3v.samples["stock_chart"]`."""

    def __getitem__(self, name):
        from ..images import load_image

        return load_image(path(name))

    def __getattr__(self, name):
        if name.startswith("_") or name not in _catalogue():
            raise AttributeError(f"module {__name__!r} has no attribute or picture {name!r}")
        return self[name]

    def __iter__(self):
        return iter(names())

    def __len__(self):
        return len(names())

    def __contains__(self, name):
        return name in _catalogue()

    def __dir__(self):
        return ["names", "info", "path", *names()]


sys.modules[__name__].__class__ = _Samples
