"""The messages of a chat, as OpenAI's API has them -> system text, history, question and pictures."""

import re
from dataclasses import dataclass

from ..errors import ImageError, PromptError
from ..images import load_image
from ..prompts import IMAGE_TAG

_SENT = re.compile(r"\s*(data:|https?://)", re.IGNORECASE)
_LIKE_THIS = 'Send {"role": "user", "content": "…"}, or a list of text and image_url parts as the content.'
MOST_PICTURES = 64


@dataclass(frozen=True)
class Conversation:
    """system: str or None. history: (question, answer) pairs. images: RGB PIL images of all turns, in order.
    image_counts: how many of them each turn brings, the last one included. begun: str, what the answer begins with."""

    question: str
    system: str | None
    history: list
    images: list
    image_counts: list
    begun: str = ""


def read_messages(messages, is_begun=False):
    """A Conversation. Fetches pictures, so it may take long. is_begun: the last message is the answer's beginning.

    Raises PromptError, ImageError.
    """
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise PromptError("There are no messages.", _LIKE_THIS)
    begun = ""
    if is_begun:
        messages, begun = messages[:-1], _beginning(messages[-1])
    system, turns = _in_turns(messages)
    asked = [_asked(parts) for parts in turns[::2]]
    sources = [source for _, mine in asked for source in mine]
    if len(sources) > MOST_PICTURES:
        raise PromptError(f"There are {len(sources)} pictures.", f"Send {MOST_PICTURES} at most.")
    questions = _tagged(asked)
    return Conversation(
        question=questions[-1],
        system=system,
        history=list(zip(questions, map(_only_text, turns[1::2]))),
        images=[_open(*numbered, len(sources)) for numbered in enumerate(sources, start=1)],
        image_counts=[len(mine) for _, mine in asked],
        begun=begun,
    )


def _beginning(message):
    if message.get("role") != "assistant":
        raise PromptError(
            "The last message, which is to be continued, is not of the assistant.",
            "Send the beginning of the answer last.",
        )
    return _only_text(_parts(message))


def _in_turns(messages):
    """The system text, and lists of parts: of the user, of the assistant, of the user, and so on."""
    system = None
    if messages and messages[0].get("role") in ("system", "developer"):
        system, messages = _only_text(_parts(messages[0])), messages[1:]
    for number, message in enumerate(messages):
        if message.get("role") != ("user", "assistant")[number % 2]:
            raise PromptError(
                f"Message {number + 1} is of the role {str(message.get('role'))[:30]!r}.",
                "Send a system message or none, then user and assistant in turn.",
            )
    if len(messages) % 2 == 0:
        raise PromptError("The last message is not of the user.", "Send the question last.")
    return system, [_parts(message) for message in messages]


def _parts(message):
    """The content as a list of ("text", str) and ("image", source)."""
    content = message.get("content")
    if content is None:  # of an assistant that said nothing
        return []
    if isinstance(content, str):
        return [("text", content)]
    if not isinstance(content, list):
        raise PromptError("The content of a message is neither a string nor a list.", _LIKE_THIS)
    return [_part(part) for part in content]


def _part(part):
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return "text", part["text"]
    if kind == "image_url":
        source = part.get("image_url")
        source = source.get("url") if isinstance(source, dict) else source
        # Whoever may ask may not read this machine's files.
        if not isinstance(source, str) or not _SENT.match(source):
            raise ImageError(
                "A picture is neither an http(s) address nor a data address.",
                'Send {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}.',
            )
        return "image", source
    raise PromptError(f"A part of a message is of the type {str(kind)[:30]!r}.", _LIKE_THIS)


def _only_text(parts):
    if any(kind == "image" for kind, _ in parts):
        raise PromptError("A message that is not of the user has a picture.", "Put it into the user's.")
    return "".join(text for _, text in parts)


def _asked(parts):
    """Parts of a user's message -> (parts, sources of its pictures)."""
    return parts, [value for kind, value in parts if kind == "image"]


def _tagged(asked):
    """The questions, str, with tags where pictures stand among the text.

    A text that has tags of its own keeps them, and places its pictures by them (see `build_prompt`).
    """
    questions, number = [], 0
    for parts, sources in asked:
        text = "".join(value for kind, value in parts if kind == "text")
        in_front = all(kind == "image" for kind, _ in parts[: len(sources)])
        if not (in_front or IMAGE_TAG.search(text)):
            numbers = iter(range(number + 1, number + len(sources) + 1))
            text = "".join(
                f"<|image_{next(numbers)}|>\n" if kind == "image" else value for kind, value in parts
            )
        number += len(sources)
        questions.append(text)
    return questions


def _open(number, source, total):
    try:
        return load_image(source)
    except ImageError as error:
        which = f"Picture {number} of {total}: " if total > 1 else ""
        raise ImageError(f"{which}{error.what}", error.advice) from error
