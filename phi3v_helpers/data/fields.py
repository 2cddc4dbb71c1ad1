"""The fields of a schema, filled in from pictures."""

import json

from ..errors import ImageError, Phi3VError, PromptError
from ..images import load_images
from ..needs import needed
from ..prompts import plain
from . import tasks
from .schemas import bounded
from .tidying import tidied
from .wording import types
from .writing import in_form


def extract(vision, images, schema, options):
    """An instance of the class, or plain data, see `Phi3Vision.extract`."""
    form = form_of(schema)
    images = load_images(images)
    if not images:
        raise ImageError("There is no picture to fill in the schema from.", "Give one, or a list of them.")
    question = tasks.FIELDS.format(types=plain(types(form)))
    data = tidied(in_form(vision, images, question, form, options), form)
    return data if isinstance(schema, dict) else _instance(schema, data)


def form_of(schema):
    """The form (see `schemas`) of a pydantic class or a dict. Raises PromptError, and Phi3VError without pydantic."""
    if isinstance(schema, dict):
        return bounded(schema)
    with needed("pydantic", "A schema that is a class"):
        import pydantic
    if not (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
        kind = schema.__name__ if isinstance(schema, type) else type(schema).__name__
        raise PromptError(
            f"The schema is {'the class' if isinstance(schema, type) else 'a'} {kind}, which is no schema.",
            "Give a class that is a pydantic.BaseModel, not an instance, or a JSON schema as a dict.",
        )
    try:
        return bounded(schema.model_json_schema(schema_generator=_numbers_for_decimals()), lenient=True)
    except pydantic.errors.PydanticUserError as error:
        reason = " ".join(str(error.message).split()).rstrip(".")
        raise PromptError(
            f"The schema of {schema.__name__} is not to be had: {reason[:200]}.",
            "Give its fields types that JSON has.",
        ) from error


def _numbers_for_decimals():
    """A maker of schemas in which a Decimal is a number, and not also any string."""
    from pydantic.json_schema import GenerateJsonSchema

    class Numbers(GenerateJsonSchema):
        def decimal_schema(self, schema):
            places = schema.get("decimal_places")
            step = {} if places is None else {"multiple_of": 10.0**-places}
            limits = {key: float(schema[key]) for key in _LIMITS if schema.get(key) is not None}
            return self.float_schema(step | limits)

    return Numbers


_LIMITS = ("ge", "gt", "le", "lt")


def _instance(schema, data):
    from pydantic import ValidationError

    try:
        return schema.model_validate_json(json.dumps(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        refusal = Phi3VError(
            f"The answer is no {schema.__name__}: {place} is {_short(first['input'])}: {first['msg'][:100]}.",
            "Ask again with a temperature, or correct its data, the `value` of this error, by hand.",
        )
        refusal.value = data
        raise refusal from error


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
