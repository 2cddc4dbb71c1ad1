"""An answer of a server, whole or in pieces."""

import queue
import socket
import threading
import time

from ..answers import Answer
from .failures import broken, explained, not_openai

LOOK = 0.1  # seconds between two looks whether the answer is still wanted


def write(vision, sent):
    """The Answer to `sent`, the arguments of a chat completion. Raises Phi3VError."""
    started = time.perf_counter()
    with explained(vision.host, vision.name):
        reply = vision.client.chat.completions.create(**sent)
        choice = _choice(reply, vision.host)
    return _answer(
        vision,
        choice.message.content or "",
        getattr(reply, "usage", None),
        choice.finish_reason,
        seconds=time.perf_counter() - started,
    )


def write_in_pieces(vision, sent, stopped, tell, count):
    """As `write`; tell(piece) is called for each piece. Ends early once `stopped()` is true.

    count(): tokens of the prompt, about, for an answer that ends before the server has told them.
    """
    started, first, pieces, usage, reason = time.perf_counter(), None, [], None, None
    for chunk in _unless_stopped(vision, sent | _STREAMED, stopped):
        usage = getattr(chunk, "usage", None) or usage
        for choice in getattr(chunk, "choices", None) or []:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                first = first or time.perf_counter()
                pieces.append(choice.delta.content)
                tell(pieces[-1])
    if reason is None and not stopped():
        raise broken(vision.host)
    ended = time.perf_counter()
    parts = {"prompt": (first or ended) - started, "answer": ended - (first or ended)}
    answer = _answer(
        vision, "".join(pieces), usage, reason, len(pieces), seconds=ended - started, parts=parts
    )
    if usage is None and pieces:
        answer.prompt_tokens = count()
    return answer


_STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def _unless_stopped(vision, sent, stopped):
    """The chunks of a stream, read in a thread of their own: a server may be silent for minutes."""
    chunks, wanted = queue.Queue(), threading.Event()
    wanted.set()
    opened = []

    def read():
        try:
            with explained(vision.host, vision.name):
                with vision.client.chat.completions.create(**sent) as stream:
                    opened.append(stream)
                    for chunk in stream:
                        if not wanted.is_set():
                            break
                        chunks.put(chunk)
        except BaseException as error:  # noqa: B036 - it is raised again where the chunks are read
            chunks.put(error)
        chunks.put(None)

    threading.Thread(target=read, daemon=True, name="phi3v-remote").start()
    try:
        while not stopped():
            try:
                chunk = chunks.get(timeout=LOOK)
            except queue.Empty:
                continue
            if chunk is None:
                return
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        wanted.clear()
        _hang_up(opened)


def _hang_up(opened):
    """So that the server, and the thread that waits for it, know that nobody listens any more."""
    for stream in opened:
        network = stream.response.extensions.get("network_stream")
        try:
            network.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):  # it is over already
            pass


def _choice(reply, host):
    choices = getattr(reply, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise not_openai(host)
    return choices[0]


def _answer(vision, text, usage, reason, pieces=0, **about):
    """usage: as the server counts; None where it does not, or was not asked to the end."""
    details = getattr(usage, "prompt_tokens_details", None)
    return Answer(
        text,
        model=vision.name,
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        new_tokens=getattr(usage, "completion_tokens", None) or pieces,
        finished=reason == "stop",
        reused_tokens=getattr(details, "cached_tokens", 0) or 0,
        **about,
    )
