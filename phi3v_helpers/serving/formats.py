"""`response_format` of a request -> the form (see `data.schemas`) that the answer is kept to."""

from ..data.parts import over
from ..data.schemas import bounded
from ..errors import PromptError

_LIKE_THIS = (
    'Send {"type": "json_schema", "json_schema": {"name": "answer", "schema": {…}}}, or "json_object".'
)
_VALUE = {"$ref": "#/$defs/value"}
_OBJECT = {"type": "object", "additionalProperties": _VALUE}
_SINGLE = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
ANY_OBJECT = _OBJECT | {
    "$defs": {"value": {"anyOf": [*_SINGLE, {"type": "array", "items": _VALUE}, _OBJECT]}}
}


def form_of(sent):
    """The form, or None where the answer may be any text. Raises PromptError."""
    kind = sent.get("type") if isinstance(sent, dict) else None
    if sent is None or kind == "text":
        return None
    if kind == "json_object":
        return bounded(ANY_OBJECT)
    about = sent.get("json_schema") if kind == "json_schema" else None
    schema = about.get("schema") if isinstance(about, dict) else None
    if not isinstance(schema, dict):
        raise PromptError("response_format names no schema.", _LIKE_THIS)
    return over(bounded(schema), _left_out)


def _left_out(part):
    """What a schema does not require is left out of an answer: that null stands for it, no client knows."""
    optional = {name for name, one in part.get("properties", {}).items() if one.get("optional")}
    if not optional:
        return part
    properties = {
        name: one["anyOf"][0] if name in optional else one for name, one in part["properties"].items()
    }
    return part | {
        "properties": properties,
        "required": [name for name in part["required"] if name not in optional],
    }
