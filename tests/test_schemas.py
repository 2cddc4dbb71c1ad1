"""Schemas: each is followed to the letter, or refused in words.

`SCHEMAS=2000 pytest tests/test_schemas.py` tries that many random ones.
"""

import datetime
import decimal
import enum
import json
import os
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

import jsonschema
import pytest
from babble import babble
from helpful import helpful
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

from phi3v_helpers.data.fields import _instance, form_of
from phi3v_helpers.data.grammar import Grammars
from phi3v_helpers.data.tidying import tidied
from phi3v_helpers.data.wording import types
from phi3v_helpers.errors import Phi3VError, PromptError

TRIES = int(os.environ.get("SCHEMAS", 60))
SEEDS = 12


@pytest.fixture(scope="module")
def grammars(model):
    return Grammars(model.engine)


def answers(model, grammars, schema, seeds=SEEDS):
    """What random ids give that keep to the schema: instances of a class, or data that is checked here."""
    form = form_of(schema)
    for seed in range(seeds):
        ids, text = babble(grammars, model.engine.ends, form, seed)
        data = json.loads(text)
        assert text.strip(" ") == model.tokenizer.decode(ids).strip(" ")
        data = tidied(data, form)
        if isinstance(schema, dict):
            jsonschema.validate(data, schema, format_checker=jsonschema.FormatChecker(["date", "uuid"]))
            yield data
        else:
            yield _instance(schema, data)


def fields(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


TEXT, WHOLE, NULL = {"type": "string", "maxLength": 8}, {"type": "integer"}, {"type": "null"}
TREE = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": fields(name=TEXT, parts={"type": "array", "items": {"$ref": "#/$defs/Tree"}, "maxItems": 2})
    },
}
DICTS = {
    "strings, numbers, flags": fields(a=TEXT, b={"type": "number"}, c=WHOLE, d={"type": "boolean"}, e=NULL),
    "limits": fields(
        a={"type": "integer", "minimum": 3, "maximum": 70}, b={"type": "string", "minLength": 2}
    ),
    "open limits": fields(a={"type": "number", "exclusiveMinimum": 0, "maximum": 5.5}),
    "beyond the usual limits": fields(
        a={"type": "integer", "minimum": 10**16}, b={"type": "number", "maximum": -1e16}
    ),
    "multiples": fields(a={"type": "integer", "multipleOf": 7}),
    "not required": {"type": "object", "properties": {"a": TEXT, "b": {"type": ["integer", "null"]}}},
    "several types": fields(a={"type": ["string", "integer", "null"], "maxLength": 4}),
    "no type named": {"properties": {"a": {"maxLength": 3}, "b": {"items": {"minimum": 1}, "maxItems": 2}}},
    "choices": fields(a={"enum": ["é\n", 1, None, True, {"b": [1]}]}, b={"const": "漢🙂"}),
    "choices of a type": fields(a={"type": "string", "enum": ["a", 1, None]}),
    "lists": fields(a={"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 3}),
    "lists of lists": {
        "type": "array",
        "maxItems": 2,
        "items": {"type": "array", "maxItems": 2, "items": WHOLE},
    },
    "pairs": {"type": "array", "prefixItems": [TEXT, WHOLE], "minItems": 2, "items": False},
    "empty list": {"type": "array", "items": False},
    "a dict": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 3},
    "a dict with names of a kind": {
        "type": "object",
        "patternProperties": {"^[a-c]{1,3}$": WHOLE},
        "maxProperties": 3,
    },
    "an empty dict": {"type": "object", "additionalProperties": False},
    "unions": {
        "anyOf": [fields(a=WHOLE), fields(a=TEXT, b=TEXT), {"type": "array", "items": WHOLE, "maxItems": 2}]
    },
    "one of": {"oneOf": [fields(kind={"const": "x"}, a=WHOLE), fields(kind={"const": "y"}, a=TEXT)]},
    "a union of optionals": {
        "anyOf": [
            {"type": "object", "properties": {"a": WHOLE}, "additionalProperties": False},
            {"type": "object", "properties": {"b": TEXT}, "additionalProperties": False},
        ]
    },
    "patterns": fields(
        a={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}, b={"type": "string", "pattern": "ab"}
    ),
    "dates": fields(a={"type": "string", "format": "date"}, b={"type": "string", "format": "uuid"}),
    "unknown format": fields(a={"type": "string", "format": "colour", "maxLength": 5}),
    "anything": fields(a={}, b=True),
    "within itself": TREE,
    "closed": fields(a=WHOLE) | {"additionalProperties": False},
    "names to escape": fields(**{'a"b\n\\': WHOLE, "é": WHOLE, "": WHOLE, "< |end|>": WHOLE}),
    "no object": {"type": "integer", "minimum": 1},
    "a reference to a property": fields(a=TEXT, b={"$ref": "#/properties/a"}),
    "all of one": fields(a={"allOf": [TEXT]}),
}


@pytest.mark.parametrize("name", DICTS)
def test_a_dict_is_followed(model, grammars, name):
    assert len(list(answers(model, grammars, DICTS[name]))) == SEEDS


class Colour(enum.Enum):
    RED, BLUE = "red", "blue"


class Part(BaseModel):
    name: str = Field(max_length=6)
    price: decimal.Decimal | None
    count: Annotated[int, Field(ge=1, le=99)] = 1


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(max_length=5)


class Node(BaseModel):
    value: int
    next: Optional["Node"] = None
    beside: list["Node"] = Field(default=[], max_length=2)


class Everything(BaseModel):
    """All kinds of fields."""

    shop: str = Field(description="as printed", max_length=9)
    on: datetime.date
    at: datetime.time | None = None
    both: datetime.datetime
    lasts: datetime.timedelta
    id: uuid.UUID
    four: uuid.UUID | None
    colour: Colour
    either: Literal["a", 1, None]
    parts: list[Part] = Field(max_length=3)
    names: set[Annotated[str, Field(max_length=3)]] = Field(max_length=3)
    counts: dict[Annotated[str, Field(max_length=4)], int] = Field(max_length=2)
    by: dict[Colour, float] = Field(default={})
    pair: tuple[int, bool]
    some: tuple[int, ...] = Field(max_length=3)
    mixed: Union[int, bool, None, Annotated[str, Field(max_length=3)]]  # noqa: UP007
    any: Any = Field(default=None)
    code: str = Field(pattern="^[A-Z]{3}$")
    alias: int = Field(alias="the alias")
    raw: bytes
    money: decimal.Decimal = Field(ge=0, decimal_places=2)
    on_days: dict[datetime.date, bool] = Field(max_length=2)


class Pets(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(max_length=3)
    first: Cat | Dog


@pytest.mark.parametrize(
    "kind",
    [
        Everything,
        Pets,
        Node,
        RootModel[list[int]],
        RootModel[dict[str, int]],
        type("Empty", (BaseModel,), {}),
    ],
)
def test_a_class_is_followed(model, grammars, kind):
    for one in answers(model, grammars, kind):
        assert isinstance(one, kind)
        assert kind.model_validate_json(one.model_dump_json(by_alias=True)) is not None


def test_days_that_exist_and_no_others(grammars):
    form, encode = form_of({"type": "string", "format": "date"}), grammars.table.tokenize_str

    def is_let_through(day):
        matcher = grammars.constraint(form)._matcher
        ids = encode(f'"{day}"')
        return matcher.try_consume_tokens(ids) == len(ids)

    for year in (1, 4, 99, 100, 400, 1900, 1996, 2000, 2023, 2024, 9999):
        for month in range(14):
            for day in (0, 1, 28, 29, 30, 31, 32):
                try:
                    exists = bool(datetime.date(year, month, day))
                except ValueError:
                    exists = False
                assert is_let_through(f"{year:04}-{month:02}-{day:02}") == exists, (year, month, day)
    assert not is_let_through("0000-01-01")


def test_what_is_not_shown_is_null_or_left_out():
    form = form_of({"type": "object", "properties": {"a": TEXT, "b": {"type": ["integer", "null"]}, "c": {}}})
    assert form["required"] == ["a", "b", "c"]  # so that the model says null
    assert tidied({"a": None, "b": None, "c": None}, form) == {"b": None, "c": None}
    nested = form_of(fields(x={"type": "array", "items": {"type": "object", "properties": {"a": TEXT}}}))
    assert tidied({"x": [{"a": None}, {"a": "b"}]}, nested) == {"x": [{}, {"a": "b"}]}


def test_the_words_of_a_schema():
    item = fields(name={"type": "string"}, price={"type": "number"})
    receipt = fields(
        shop={"type": "string"},
        date={"type": "string"},
        items={"type": "array", "items": item},
        total={"type": "number"},
    )
    assert types(form_of(receipt)) == (
        '{"shop": string, "date": string, "items": [{"name": string, "price": number}], "total": number}'
    )
    words = types(form_of(Everything))
    assert words.startswith(
        '{"shop": string /* as printed */, "on": string /* YYYY-MM-DD */, "at": string /*'
    )
    assert '"colour": "red" | "blue"' in words and '"either": "a" | 1 | null' in words
    assert '"parts": [{"name": string, "price": number, "count": integer}]' in words
    assert '"counts": {string: integer}' in words and '"pair": [integer, boolean]' in words
    assert '"any": any' in words
    assert types(form_of(TREE)) == '{"name": string, "parts": [...]}'
    assert types(form_of(Node)) == '{"value": integer, "next": ..., "beside": [...]}'


def test_descriptions_stay_comments():
    words = types(form_of(fields(a={"type": "string", "description": "one\n  two */ three"})))
    assert words == '{"a": string /* one two * / three */}'


ITSELF = {"$ref": "#/$defs/A", "$defs": {"A": fields(a={"$ref": "#/$defs/A"})}}
LOOP = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
DEEP = {"type": "integer"}
for _ in range(2000):
    DEEP = {"type": "array", "items": DEEP}
WIDE = {"$ref": "#/$defs/A", "$defs": {"A": fields(**{f"a{n}": {"type": ["null"]} for n in range(10)})}}
WIDE["$defs"]["A"]["properties"] |= {
    f"b{n}": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]} for n in range(20)
}


@pytest.mark.parametrize(
    "schema, words",
    [
        ({}, ["empty"]),
        ({"shop": "string", "total": "number"}, ["shop", "not supported", "pydantic"]),
        ({"type": "strin"}, ["type", "strin"]),
        ({"type": 5}, ["type 5"]),
        ({"type": "object", "propertis": {}}, ["propertis"]),
        ({"type": "object", "properties": ["a"]}, ["properties that are no dict"]),
        ({"type": "object", "properties": {"a": "string"}}, ['"string" where a schema must be']),
        ({"type": "object", "properties": {}, "required": ["a"]}, ["requires"]),
        ({"type": "object", "properties": {}, "required": 5}, ["requires"]),
        ({"type": "array", "uniqueItems": True}, ["uniqueItems"]),
        ({"not": {"type": "string"}}, ["not"]),
        ({"if": {}, "then": {}}, ["if"]),
        ({"allOf": [{"type": "string"}, {"maxLength": 5}]}, ["allOf"]),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, ["anyOf and type"]),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ["oneOf"]),
        ({"enum": "ab"}, ["enum"]),
        ({"enum": []}, ["no answer"]),
        ({"type": "string", "enum": [1]}, ["no answer"]),
        ({"anyOf": []}, ["no answer"]),
        ({"anyOf": 5}, ["anyOf"]),
        ({"type": "string", "pattern": "^(?=a).*$"}, ["looks around"]),
        ({"type": "string", "pattern": "("}, ["cannot be followed"]),
        ({"type": "string", "pattern": r"^(a)\1$"}, ["cannot be followed"]),
        ({"type": "string", "pattern": 5}, ["pattern"]),
        ({"type": "string", "minLength": 5, "maxLength": 3}, ["cannot be followed", "minLength"]),
        ({"type": "string", "maxLength": -1}, ["maxLength"]),
        ({"type": "string", "maxLength": "long"}, ["maxLength"]),
        ({"type": "integer", "minimum": 5, "maximum": 3}, ["cannot be followed", "minimum"]),
        ({"type": "integer", "minimum": "5"}, ["minimum"]),
        ({"type": "integer", "minimum": True}, ["minimum"]),
        ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, ["cannot be followed"]),
        ({"type": "array", "minItems": 3, "maxItems": 2}, ["no answer"]),
        ({"type": "array", "items": [{"type": "string"}]}, ["where a schema must be"]),
        ({"$ref": "#/$defs/A"}, ["refers", "not in it"]),
        ({"$ref": "https://example.org/a.json"}, ["refers"]),
        ({"$ref": 5}, ["refers"]),
        (fields(**{"<|end|>": WHOLE}), ["control string"]),
        ({"enum": ["a", {"b": "<s>"}]}, ["control string"]),
        (ITSELF, ["no answer"]),
        (LOOP, ["no answer"]),
        (DEEP, []),
        (WIDE, ["parts"]),
        (fields(a=False), ["no answer"]),
        ({"type": "number", "minimum": float("nan")}, ["not JSON"]),
        ({"type": "string", "default": object()}, ["not JSON"]),
        ({"title": "x", "maxLength": 3, "minimum": 3}, ["without a type"]),
        (Part(name="a", price=None), ["not an instance"]),
        (int, ["the class int"]),
        ("a string", ["a str"]),
        (None, ["a NoneType"]),
        ([Part], ["a list"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_schema_that_is_refused(grammars, schema, words):
    with helpful(PromptError, "schema", *words):
        grammars.constraint(form_of(schema))


def test_a_pattern_that_is_a_control_token_is_refused_while_it_is_written(model, grammars):
    for token in ("end", "endoftext"):
        form = form_of({"type": "string", "pattern": rf"^<\|{token}\|>$"})
        with helpful(Phi3VError, "cannot be followed token by token"):
            babble(grammars, model.engine.ends, form, 0)


def test_a_class_that_has_no_schema():
    class Odd(BaseModel, arbitrary_types_allowed=True):
        thing: object
        call: Callable

    with helpful(PromptError, "The schema of Odd"):
        form_of(Odd)


def leaves():
    small = st.integers(-50, 50)
    return st.one_of(
        st.builds(
            lambda a, b: {"type": "string", "minLength": min(a, b), "maxLength": max(a, b)},
            *[st.integers(0, 6)] * 2,
        ),
        st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, small, small),
        st.sampled_from(
            [{"type": "number"}, {"type": "boolean"}, NULL, {"type": "string", "format": "date"}]
        ),
        st.lists(
            st.one_of(st.text(max_size=4), st.integers(), st.booleans(), st.none()), min_size=1, max_size=4
        ).map(lambda values: {"enum": values}),
        st.sampled_from(["^[a-z]{1,4}$", "[0-9]{2}", "^(?:é|漢+)x?$"]).map(
            lambda pattern: {"type": "string", "pattern": pattern, "maxLength": 6}
        ),
    )


def nests(inner):
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    properties = st.dictionaries(names, inner, max_size=4)
    return st.one_of(
        properties.flatmap(
            lambda parts: st.lists(st.sampled_from(sorted(parts) or [""]), unique=True).map(
                lambda needed: {
                    "type": "object",
                    "properties": parts,
                    "required": [name for name in needed if name in parts],
                }
            )
        ),
        st.builds(
            lambda one, most: {"type": "array", "items": one, "maxItems": most}, inner, st.integers(0, 3)
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
        inner.map(lambda one: {"type": "object", "additionalProperties": one, "maxProperties": 2}),
    )


@settings(max_examples=TRIES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(schema=st.recursive(leaves(), nests, max_leaves=8), seed=st.integers(0, 10**6))
def test_random_schemas_are_followed(model, grammars, schema, seed):
    form = form_of(schema)
    _, text = babble(grammars, model.engine.ends, form, seed)
    jsonschema.validate(tidied(json.loads(text), form), schema)
