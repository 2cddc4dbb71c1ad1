"""A schema -> the plain, bounded form of it that a grammar is made of.

In that form there are no references; every property is required and written in its order, and one that the schema does
not require may be null; strings, arrays and numbers have limits, see `kinds`. Its marks: "optional" is such a property,
"again" what is within itself, "any" what may be anything, "is" a format. Whatever fits the form fits the schema, once
its optional nulls are left out, see `tidying`.
"""

import json
from urllib.parse import unquote

from ..errors import PromptError
from . import kinds
from .refusals import NoGrammar, no_control, short, wrong

DEPTH = 4  # how often something may be within itself
MAX_PARTS = 5_000

_NOTES = {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"}
_NOTES |= {"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "discriminator"}
_SUPPORTED = set().union(
    *kinds.KEYWORDS.values(), ["$ref", "enum", "const", "anyOf", "oneOf", "allOf", "type"]
)
_LIKE_THIS = 'Give a pydantic class, or a JSON schema like {"type": "object", "properties": {"total": …}}.'


def bounded(schema, lenient=False):
    """The plain form (dict) of a JSON schema (dict).

    lenient: keywords that are not known are left out, for schemas of classes, which check the answer themselves.
    Raises PromptError: it is none, asks for what is not supported, or for what cannot be.
    """
    try:
        schema = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError("The schema is not JSON: it has values that JSON has not.", _LIKE_THIS) from error
    if not schema:
        raise PromptError("The schema is empty.", _LIKE_THIS)
    try:
        form = _Bounding(schema, lenient).form(schema)
    except RecursionError as error:
        raise PromptError("The schema is nested too deeply.", "Give a flatter one.") from error
    if form is None:
        raise PromptError(
            "The schema allows no answer at all: it rules everything out, or needs itself without an end.",
            "Make a part of it optional, or allow null.",
        )
    return form


class _Bounding:
    """The methods give the form of a part (dict), or None where nothing can fit it."""

    def __init__(self, root, lenient):
        self.root, self.lenient, self.parts = root, lenient, 0

    def form(self, schema, within=()):
        """within: the references that led here."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise PromptError(
                f"The schema has more than {MAX_PARTS:,} parts, with what is within itself.",
                "Ask for a part of it at a time.",
            )
        if schema is False:
            return None
        if schema is not True and not isinstance(schema, dict):
            raise wrong(f"has {short(schema)} where a schema must be", _LIKE_THIS)
        kept = {} if schema is True else self._keywords(schema)
        if not kept:
            return kinds.anything()
        for keyword, method in _FORMS.items():
            if keyword in kept:
                others = set(kept) - {keyword, *_BESIDE.get(keyword, ())}
                if others and not self.lenient:
                    raise wrong(f"has {keyword} and {min(others)} side by side", "Write them as one.")
                return method(self, kept, within)
        return self._of_type(kept, within)

    def _keywords(self, schema):
        unknown = sorted(set(schema) - _SUPPORTED - _NOTES)
        if unknown and not self.lenient:
            advice = "Leave it out." if set(schema) & _SUPPORTED else _LIKE_THIS
            raise wrong(f"has the keyword {short(unknown[0])}, which is not supported", advice)
        return {key: value for key, value in schema.items() if key in _SUPPORTED}

    def _reference(self, schema, within):
        name = schema["$ref"]
        within = (*within, name)
        if len(within) - len(set(within)) > DEPTH:
            return None
        form = self.form(self._target(name), within)
        return form and form | ({"again": True} if name in within[:-1] else {})

    def _target(self, name):
        if not isinstance(name, str) or name != "#" and not name.startswith("#/"):
            raise wrong(f"refers to {short(name)}", 'Give all of it in one dict: "$ref": "#/$defs/…".')
        target = self.root
        for part in name[1:].split("/")[1:]:
            part = unquote(part).replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or part not in target:
                raise wrong(f"refers to {short(name)}, which is not in it", "Put it among its $defs.")
            target = target[part]
        return target

    def _choice(self, schema, within):
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if not isinstance(values, list):
            raise wrong("has an enum that is no list", "Give a list of values.")
        if "type" in schema:
            allowed = _listed(schema["type"])
            values = [value for value in values if any(kinds.of_type(value, kind) for kind in allowed)]
        return {"enum": no_control(values)} if values else None

    def _any_of(self, schema, within):
        branches = schema.get("anyOf", schema.get("oneOf"))
        if not isinstance(branches, list):
            raise wrong("has an anyOf that is no list", "Give a list of schemas.")
        forms, refused = [], None
        for branch in branches:
            try:
                forms.append(self.form(branch, within))
            except NoGrammar as error:  # fewer choices are still right
                refused = error
        forms = [form for form in forms if form is not None]
        if refused and not forms:
            raise refused
        keyword = "oneOf" if "oneOf" in schema and not self.lenient else "anyOf"
        return {keyword: forms} if forms else None

    def _all_of(self, schema, within):
        parts = schema["allOf"]
        if not isinstance(parts, list) or len(parts) != 1:
            raise wrong("has allOf, which is not supported", "Write its parts as one.")
        return self.form(parts[0], within)

    def _of_type(self, schema, within):
        wanted = _listed(schema["type"] if "type" in schema else kinds.guessed(schema))
        forms = []
        for kind in wanted:
            if not isinstance(kind, str) or kind not in kinds.KEYWORDS:
                raise wrong(f"has the type {short(kind)}", f"Types are {', '.join(sorted(kinds.KEYWORDS))}.")
            mine = {key: value for key, value in schema.items() if key in kinds.KEYWORDS[kind]}
            forms.append(kinds.form_of(kind, mine, lambda part: self.form(part, within), self.lenient))
        forms = [form for form in forms if form is not None]
        return {"anyOf": forms} if len(forms) > 1 else forms[0] if forms else None


_FORMS = {
    "$ref": _Bounding._reference,
    "enum": _Bounding._choice,
    "const": _Bounding._choice,
    "anyOf": _Bounding._any_of,
    "oneOf": _Bounding._any_of,
    "allOf": _Bounding._all_of,
}
_BESIDE = {"enum": ["type"], "const": ["type"]}


def _listed(value):
    return value if isinstance(value, list) else [value]
