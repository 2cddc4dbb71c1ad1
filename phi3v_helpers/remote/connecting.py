"""An address -> a RemoteVision: is there a server, may we come in, which model has it?"""

import os
from urllib.parse import urlsplit

from ..errors import LoadError
from .failures import explained, not_openai
from .vision import RemoteVision

TIMEOUT = 600  # seconds without anything from the server, which may have others before us


def connect(address, name=None, api_key=None, num_crops=None, timeout=TIMEOUT, verbose=True):
    """A RemoteVision for the model of an OpenAI-compatible server.

    address: str, such as "http://127.0.0.1:8000/v1". name: of the model; None where the server has only one.
    api_key: None takes PHI3V_API_KEY; what is set for other servers, as OPENAI_API_KEY, is sent to none.
    Raises LoadError.
    """
    address, host = _checked(address)
    client = _client(address, host, api_key, timeout)
    with explained(host):
        models = _models(client, host)
    entry = _chosen(models, name, host)
    vision = RemoteVision(client, address, host, entry, num_crops)
    if verbose:
        print(repr(vision))
    return vision


def _checked(address):
    """(the address without a slash at its end, "host:port" for people)."""
    address = address.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        host, login = parts.netloc, parts.username is not None or parts.password is not None
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good, login = False, False
    if login:
        raise LoadError("The address has a login in it.", "Take it out, and give api_key instead.")
    if not good:
        raise LoadError(
            "The model's address names no host and port.", 'Give one like "http://127.0.0.1:8000/v1".'
        )
    return address, host[:100]


def _client(address, host, api_key, timeout):
    try:
        import openai
    except ImportError as error:
        raise LoadError(
            "A model on a server needs the package openai, which is not here.",
            'Install it: pip install "phi3v-helpers[remote]".',
        ) from error
    key = api_key or os.environ.get("PHI3V_API_KEY") or "none"  # the client insists on one
    if not (isinstance(key, str) and key.isascii() and key.isprintable()):
        raise LoadError("The API key has characters that a header cannot carry.", "Copy it again.")
    here = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    return openai.OpenAI(
        base_url=address,
        api_key=key,
        timeout=openai.Timeout(timeout, connect=10),
        # No proxy can reach this machine's own servers.
        http_client=openai.DefaultHttpxClient(trust_env=not here),
    )


def _models(client, host):
    try:
        listed = client.models.list().data
    except AttributeError as error:  # the client, of what is no JSON
        raise not_openai(host) from error
    if not isinstance(listed, list) or not all(isinstance(getattr(one, "id", None), str) for one in listed):
        raise not_openai(host)
    return {one.id: one for one in listed}


def _chosen(models, name, host):
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name in models:
        return models[name]
    shown = ", ".join(list(models)[:8]) + (
        f" and {len(models) - 8} more" if models.keys() - list(models)[:8] else ""
    )
    if not models:
        raise LoadError(f"{host} lists no model.", "Start it with one.")
    missing = f"has no model {name[:60]!r}" if name is not None else f"has {len(models)} models"
    raise LoadError(f"{host} {missing}.", f"Give one of these as `name`: {shown}.")
