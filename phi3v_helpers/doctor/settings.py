"""The doctor on settings from outside: environment variables, and the folder of fetched pictures."""

import importlib.util
import os
from urllib.parse import urlsplit

from ..memory_use import size
from .report import note, ok

# Shown with their values, which are no secrets.
PLAIN = (
    "PHI3V_MODEL",
    "PHI3V_OFFLINE",
    "PHI3V_CACHE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
SECRET = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
ADDRESSES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
FALSE = ("", "0", "false", "no", "off")


def settings():
    """One line with those that are set."""
    shown = [f"{name}={os.environ[name][:80]!r}" for name in PLAIN if name in os.environ]
    shown += [f"{name} is set" for name in SECRET if os.environ.get(name)]
    for name in ADDRESSES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value:
            shown.append(f"{name} is {_host(value)}")
    yield ok("settings", f"Settings: {', '.join(shown) or 'none'}")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").lower() not in FALSE:
            yield note(name, f"{name} is set, so no model is downloaded", "unset it if one should be")


def _host(address):
    """Host and port of an address: what is before and behind may hold passwords and keys."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        return f"{parts.hostname or '?'}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "no address"


def picture_cache():
    if importlib.util.find_spec("phi3v_helpers.images.web_cache") is None:
        return
    from ..images import web_cache

    folder, files, nbytes = web_cache.info()
    yield ok("picture_cache", f"Picture cache: {folder}, {files:,} pictures, {size(nbytes)}")
