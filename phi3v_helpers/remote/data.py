"""Data from a server's answers: what is asked of the server, and whether it did it."""

import json
import re

from ..answers import Answer
from ..data.fence import before_fence
from ..data.kinds import SMALLEST
from ..data.parts import over
from ..errors import Phi3VError
from ..needs import needed

_MARKS = {"optional", "again", "any", "is"}  # of a form, which no server knows
_FENCED = re.compile(r"(?:^|\n)```[^\n]*\n(.*?)(?:\n?```|$)", re.DOTALL)


def schema_of(form):
    """The JSON schema (dict) that a form is."""
    return over(form, _without_marks)


def _without_marks(part):
    # How many decimals a number has at most is our own limit, and more than some servers understand.
    return {
        key: value
        for key, value in part.items()
        if key not in _MARKS and (key, value) != ("multipleOf", SMALLEST)
    }


def json_of(schema):
    """The response_format that asks for JSON of this schema."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def checked(written, schema, host):
    """Raises Phi3VError where what was written (str) is no JSON of this schema. host: of the server."""
    with needed("jsonschema", "Checking the data of a server"):
        import jsonschema
    try:
        data = json.loads(written, parse_constant=_no_constant)
        wrong = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(data))
    except (ValueError, RecursionError) as error:
        raise _ignored(host, f"{_short(str(written))} is no JSON") from error
    except re.error:  # a pattern of the schema that Python cannot read, while the server can
        return
    if wrong is not None:
        raise _ignored(host, f"{_short(json.dumps(wrong.instance))} at {wrong.json_path[:60]} does not fit")


def _no_constant(name):
    raise ValueError(f"{name} is no JSON")


def _ignored(host, reason):
    return Phi3VError(
        f"{host} did not keep its answer to the schema: {reason}.",
        "Take a server that decodes to JSON schemas, such as phi3v serve, vLLM or SGLang, or a model on this machine.",
    )


def _short(text):
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:79] + "…"


def until_fence(stream):
    """The Answer of a Stream, which is stopped where a fence ends it."""
    text = ""
    for piece in stream:
        text += piece
        if before_fence(text) is not None and not text.rstrip().endswith("```"):
            break  # the model goes on with something else
    stream.close()
    answer = stream.answer
    if before_fence(answer) is not None:
        answer.finished = True
    return answer


def unwrapped(answer):
    """An Answer without the fences, and the words around them, that a model may put around a text."""
    found = _FENCED.search(answer)
    return Answer(found[1] if found else answer.text, **vars(answer))
