"""What is wrong with a schema, in words."""

import json

from ..errors import PromptError
from ..prompts import plain


class NoGrammar(PromptError):
    """A schema that is sound, but that no grammar can be made of."""


def wrong(what, advice):
    """The error for a schema that `what`."""
    return PromptError(f"The schema {what}.", advice)


def short(value):
    """A value as JSON, for an error."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:59] + "…"


def whole(schema, keyword, default):
    """The whole number of a keyword, or the default."""
    value = schema.get(keyword, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise wrong(f"has the {keyword} {short(value)}", "Give a whole number, 0 or more.")
    return value


def no_control(value):
    """A name or a choice, if it can be written: a grammar would have its control strings written as control tokens."""
    text = json.dumps(value, ensure_ascii=False)
    if plain(text) != text:
        raise wrong(f"has a control string in {short(value)}", "Leave it out.")
    return value


def no_look_around(pattern):
    """A pattern, if a grammar can have it."""
    if not isinstance(pattern, str):
        raise wrong(f"has the pattern {short(pattern)}", "Give a regular expression as a string.")
    if any(mark in pattern for mark in ("(?=", "(?!", "(?<=", "(?<!")):
        raise NoGrammar(
            f"The schema has the pattern {short(pattern)}, which looks around.", "Leave (?=…) and (?!…) out."
        )
    return pattern
