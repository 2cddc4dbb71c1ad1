"""Is everything here that is needed, and what can this machine do? `phi3v doctor`, or `p3v.doctor()`."""

import importlib
import sys
import types
import warnings

from .report import Check, Report, fail, note, reason

__all__ = ["Check", "Report", "checks", "doctor"]

# (module, function), in the order of the report. A function takes nothing and gives an iterable of Check.
_ALWAYS = (
    ("software", "python"),
    ("software", "this_package"),
    ("software", "needed_packages"),
    ("software", "optional_packages"),
    ("settings", "settings"),
)
_WITH_TORCH = (
    ("machine", "devices"),
    ("machine", "attention"),
    ("models", "tiny_model"),
    ("models", "chosen_model"),
    ("models", "big_model"),
    ("models", "model_files"),
)
_LAST = (("settings", "picture_cache"),)
_ONLINE = (("models", "hub"),)


def doctor(online=False):
    """Look at this machine, the installed packages and the models; takes about ten seconds.

    online: ask the Hugging Face Hub, too, whether the models can be had; otherwise nothing is sent anywhere.
    Returns a Report, a list of `Check` that shows itself as text. Nothing is raised: what cannot be looked at is a
    check that failed.
    """
    return Report(checks(online))


def checks(online=False):
    """As `doctor`, an iterator: each Check as soon as it is there."""
    found = []
    for name in _ALWAYS:
        found += (some := _run(*name))
        yield from some
    if any(check.name in ("torch", "transformers", "import") and check.status == "fail" for check in found):
        yield note("model", "The device and the models were not looked at", "repair the packages above first")
    else:
        for name in _WITH_TORCH:
            yield from _run(*name)
    for name in (*_LAST, *(_ONLINE if online else ())):
        yield from _run(*name)


def _run(module, function):
    """What one function finds. Whatever goes wrong in it is a Check, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(getattr(importlib.import_module(f".{module}", __name__), function)())
    except Exception as error:
        what = f"{function.replace('_', ' ').capitalize()}: could not be checked ({reason(error)})"
        return [fail(function, what, "report this, with all lines of `phi3v doctor`")]


class _Doctor(types.ModuleType):
    """A module that can be called: `p3v.doctor()` works, even after `import phi3v_helpers.doctor`."""

    def __call__(self, *args, **options):
        return doctor(*args, **options)


sys.modules[__name__].__class__ = _Doctor
