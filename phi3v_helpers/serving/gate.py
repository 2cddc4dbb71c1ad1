"""What stands in front of the server: who may come in, what may be asked for, how much at once.

It also notices clients that hang up, which transformers' server does only while it streams, and ends their work.
"""

import asyncio
import hmac
import ipaddress
import threading
from contextvars import ContextVar
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

OPEN = {("GET", "/health"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions")}
MAX_BODY = 128 * 1024**2  # bytes
BODY_SECONDS = 120
AT_ONCE = 64  # requests that are held in memory; others wait where they come from

# Of the present request: a threading.Event that is set when nobody waits for its answer any more.
gone = ContextVar("gone")


def refusal(status, message, kind="invalid_request_error", code=None):
    """An error as OpenAI's clients expect it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": error}, status)


class Gate:
    """An ASGI application around another one. key: str that every request must bring; None where all may come."""

    def __init__(self, app, key=None):
        self._app, self._key = app, key
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refused = self._refused(scope)
        if refused is not None:
            return await refused(scope, receive, send)
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        async with self._room:
            try:
                body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
            except ValueError:
                refused = refusal(413, f"The request is larger than {MAX_BODY // 1024**2} MiB.")
                return await refused(scope, receive, send)
            except asyncio.TimeoutError:
                refused = refusal(408, f"The request did not arrive within {BODY_SECONDS} seconds.")
                return await refused(scope, receive, send)
            if body is not None:
                await self._while_connected(scope, body, receive, send)

    def _refused(self, scope):
        """The response to who may not come in, or None."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._key is not None:
            sent = headers.get("authorization", "")
            if not hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode()):
                return refusal(401, "The API key is missing or wrong.", code="invalid_api_key")
        elif not _from_here(headers):
            return refusal(403, "Without a key only programs and pages of this machine may ask.")
        if (scope["method"], scope["path"]) not in OPEN:
            known = ", ".join(" ".join(one) for one in sorted(OPEN))
            return refusal(404, f"{scope['method']} {scope['path'][:60]} is not here. There are {known}.")
        if int(headers.get("content-length", "0")) > MAX_BODY:
            return refusal(413, f"The request is larger than {MAX_BODY // 1024**2} MiB.")

    async def _while_connected(self, scope, body, receive, send):
        over = threading.Event()
        gone.set(over)  # for the tasks that begin now
        answering = asyncio.create_task(self._app(scope, _again(body), send))
        watching = asyncio.create_task(_hang_up(receive))
        try:
            await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.set()
            for task in (answering, watching):
                task.cancel()
            await asyncio.gather(answering, watching, return_exceptions=True)
        if not answering.cancelled() and answering.exception():
            raise answering.exception()


def _from_here(headers):
    """Whether neither the host that was called nor the page that calls is of elsewhere.

    A page of the web that somebody looks at here can send requests to this machine, even under a name of its own.
    """
    origin = headers.get("origin")
    called = [f"//{headers.get('host', '')}", *([origin] if origin is not None else [])]
    return all(is_loopback(_host(address)) for address in called)


def _host(address):
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _body(receive):
    """All bytes of a request; None where the client hung up. Raises ValueError where they are too many."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise ValueError
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body):
    """A `receive` that gives the body, and then nothing more."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if not messages:
            await asyncio.Event().wait()  # for ever: who hangs up is noticed by `_hang_up`
        return messages.pop()

    return receive


async def _hang_up(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
