"""Packages that only some runs need."""

from importlib import import_module

from ..errors import Phi3VError


def pyarrow(module, what):
    """The module `pyarrow.<module>`, for `what` (str). Raises Phi3VError, which names the command, without it."""
    return _needed(f"pyarrow.{module}", what, "batch")


def ray(what):
    """The module `ray.data`, see `pyarrow`."""
    return _needed("ray.data", what, "ray")


def _needed(module, what, extra):
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise Phi3VError(
            f"{what} needs {package}, which cannot be imported here.",
            f'Install it: pip install "phi3v-helpers[{extra}]".',
        ) from error
