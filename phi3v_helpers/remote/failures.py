"""What a server or the way to it can do wrong -> errors for people."""

import importlib
import json
from contextlib import contextmanager

from ..errors import LoadError, Phi3VError, PromptError

_LONG = ("context length", "maximum context", "too long", "max_model_len", "more than the", "exceeds")


@contextmanager
def explained(host, name=None):
    """Turns what the openai client raises into LoadError, PromptError or Phi3VError.

    host: what to call the server. name: the model that was asked, if one was.
    """
    import openai

    http = _http()
    try:
        yield
    except json.JSONDecodeError as error:
        raise not_openai(host) from error
    except openai.APITimeoutError as error:
        raise Phi3VError(
            f"{host} did not answer in time.",
            "Ask again later, or for a shorter answer.",
        ) from error
    except openai.APIConnectionError as error:
        if _broke_off(error):
            raise broken(host) from error
        raise LoadError(
            f"No server answers at {host}.",
            "Check address and port, and whether it is running: phi3v serve, vllm serve.",
        ) from error
    except openai.APIStatusError as error:
        raise _of_status(error, host, name) from error
    except (http.HTTPError, http.StreamError) as error:  # while an answer is read, they come as they are
        raise broken(host) from error
    except openai.APIResponseValidationError as error:
        raise not_openai(host) from error
    except openai.APIError as error:  # told within a stream
        raise Phi3VError(
            f"{host} broke off the answer: {said(error)}.", "Ask again, or look at what the server says."
        ) from error


def broken(host):
    return Phi3VError(f"The connection with {host} broke before the answer was complete.", "Ask again.")


def not_openai(host):
    return LoadError(
        f"What {host} answers is not of OpenAI's API.",
        "Check the address, which mostly ends in /v1, and what is running there.",
    )


def said(error):
    """The server's own words, in one line without a full stop."""
    body = getattr(error, "body", None)
    text = body.get("message") if isinstance(body, dict) else body
    if not isinstance(text, str) or not text.strip():
        text = getattr(error, "message", "") or type(error).__name__
    text = " ".join(text.split())
    return (text if len(text) <= 160 else text[:159] + "…").rstrip(".")


def _broke_off(error):
    http = _http()
    return isinstance(error.__cause__, (http.RemoteProtocolError, http.ReadError, http.WriteError))


def _http():
    """The library below the openai client: httpx, or in newer ones httpx2, which has the same names."""
    import openai

    client = openai.DefaultHttpxClient.__mro__[1]
    return importlib.import_module(client.__module__.partition(".")[0])


def _of_status(error, host, name):
    status, words = error.status_code, said(error)
    if status in (401, 403):
        return LoadError(
            f"{host} refuses the API key, or wants one ({status}).",
            "Set PHI3V_API_KEY, or give api_key to p3v.load.",
        )
    if status == 404 and name is not None:
        return LoadError(
            f"{host} has no model {name[:100]!r} (404: {words}).",
            "Leave out `name` to see those that it has, and check that the address ends in /v1.",
        )
    if status == 404:
        return not_openai(host)
    if status == 413 or (status in (400, 422) and any(mark in words.lower() for mark in _LONG)):
        return PromptError(
            f"The question is too long for {host} ({status}: {words}).",
            "Ask about fewer or smaller pictures, set a smaller max_new_tokens, or begin a new chat.",
        )
    if status in (400, 422):
        return PromptError(f"{host} does not take the question ({status}: {words}).", "Change what it names.")
    if status in (429, 503):
        return Phi3VError(f"{host} has too much to do ({status}: {words}).", "Ask again later.")
    return Phi3VError(
        f"{host} failed ({status}: {words}).", "Ask again, or look at what the server says on its side."
    )
