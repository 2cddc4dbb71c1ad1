"""A form (see `schemas`) as the prompt words it: {"shop": string, "items": [{"price": number}]}."""

import json

from .formats import HINTS

# A format, or what a field is for, is a comment: {"date": string /* YYYY-MM-DD */}.
_COMMENT = " /* {} */"


def types(form):
    """The text, a str. Null is not in it: the sentence around it is about null."""
    if form.get("again"):
        return "..."
    if form.get("any"):
        return "any"
    if "enum" in form:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in form["enum"])
    branches = form.get("anyOf", form.get("oneOf"))
    if branches:
        words = dict.fromkeys(types(branch) for branch in branches if branch.get("type") != "null")
        return " | ".join(words) or "null"
    return _OF.get(form["type"], lambda form: form["type"])(form)


def _object(form):
    if "properties" in form:
        pairs = form["properties"].items()
        return (
            "{"
            + ", ".join(f"{json.dumps(n, ensure_ascii=False)}: {_described(part)}" for n, part in pairs)
            + "}"
        )
    (part,) = form["patternProperties"].values()
    return f"{{string: {types(part)}}}"


def _described(form):
    text = " ".join(form.get("description", "").split()).replace("*/", "* /")
    return types(form) + (_COMMENT.format(text) if text else "")


def _array(form):
    parts = [*form.get("prefixItems", ()), *filter(None, [form["items"]])]
    return f"[{', '.join(map(types, parts))}]"


def _string(form):
    hint = HINTS.get(form.get("is"), form.get("is"))
    return "string" + (_COMMENT.format(hint) if hint else "")


_OF = {"object": _object, "array": _array, "string": _string}
