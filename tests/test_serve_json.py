"""`phi3v serve`: answers that are JSON, and answers that the client begins."""

import json
import sys

import jsonschema
import openai
import pytest
import requests
from pydantic import BaseModel, Field
from serving import asked, connected, in_thread, picture, said, user, words

import phi3v_helpers as p3v

SHORT = {"type": "string", "maxLength": 8}
SCHEMA = {
    "type": "object",
    "properties": {
        "title": SHORT,
        "year": {"type": "integer", "minimum": 1900, "maximum": 2100},
        "kind": {"enum": ["chart", "cover", None]},
        "day": {"type": "string", "format": "date"},
        "parts": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "boolean"}}}},
    },
    "required": ["title", "year", "kind"],
}
SCHEMA["properties"]["parts"] |= {"minItems": 1, "maxItems": 3}
QUESTION = user(words("ba do ki"))


def of_schema(schema, **more):
    about = {"name": "answer", "schema": schema, **more}
    return {"response_format": {"type": "json_schema", "json_schema": about}}


@pytest.fixture(scope="module")
def client(model):
    """Of a server whose model, with random weights, writes whatever it may."""
    with in_thread(model) as address:
        yield connected(address)


def wild(client, seed=0, **options):
    """What it says when every token is nearly as likely as any other."""
    options = {"model": "random", "temperature": 3, "seed": seed, "max_tokens": 900, **options}
    return said(client, QUESTION, **options)


# --- JSON of a schema ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_answers_fit_the_schema(seed, client):
    jsonschema.validate(json.loads(wild(client, seed, **of_schema(SCHEMA, strict=True))), SCHEMA)


def test_what_is_not_required_is_written_or_left_out_but_never_null(client):
    schema = {"type": "object", "properties": {name: {"type": "boolean"} for name in "abc"}}
    found = [json.loads(wild(client, seed, **of_schema(schema))) for seed in range(8)]
    assert {value for one in found for value in one.values()} <= {True, False}
    assert len({tuple(one) for one in found}) > 1


def test_the_same_in_pieces(client):
    pieces = asked(
        client,
        QUESTION,
        model="random",
        temperature=3,
        seed=5,
        max_tokens=900,
        stream=True,
        **of_schema(SCHEMA),
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in pieces]
    assert len(pieces) > 3 and "".join(pieces) == wild(client, 5, **of_schema(SCHEMA))


def test_any_object(client):
    for seed in range(4):
        answer = wild(client, seed, response_format={"type": "json_object"}, max_tokens=3500, temperature=1)
        assert isinstance(json.loads(answer), dict)


def test_objects_within_objects_within_objects(client):
    from phi3v_helpers.data.grammar import grammars_of
    from phi3v_helpers.serving.formats import form_of

    tiny = p3v.load("tiny", verbose=False)
    form = form_of({"type": "json_object"})
    constraint = grammars_of(tiny.engine).constraint(form)
    written = '{"invoice": {"lines": [{"name": "tea", "price": 1.5}, null], "paid": {"by": {"card": true}}}}'
    ids = tiny.tokenizer(written, add_special_tokens=False).input_ids
    assert constraint._matcher.validate_tokens(ids) == len(ids)


def test_any_text_can_be_asked_for_in_words(client):
    plain = said(client, QUESTION, model="random", max_tokens=9)
    assert said(client, QUESTION, model="random", max_tokens=9, response_format={"type": "text"}) == plain


def test_a_class_of_pydantic_through_the_client(client):
    class Chart(BaseModel):
        """A chart."""

        title: str = Field(max_length=8, description="as printed")
        years: list[int] = Field(max_length=3)
        unit: str | None = Field(default=None, max_length=4)

    reply = client.chat.completions.parse(
        model="random", messages=[QUESTION], response_format=Chart, max_tokens=900
    )
    assert isinstance(reply.choices[0].message.parsed, Chart)


def test_an_answer_about_a_picture(tiny_client):
    schema = {"type": "object", "properties": {"many": {"type": "integer"}}, "required": ["many"]}
    reply = asked(tiny_client, user(picture("shapes_1"), words("How many shapes?")), **of_schema(schema))
    assert isinstance(json.loads(reply.choices[0].message.content)["many"], int)
    assert reply.choices[0].finish_reason == "stop"


@pytest.fixture(scope="module")
def tiny_client():
    with in_thread(p3v.load("tiny", verbose=False), "tiny") as address:
        yield connected(address)


def test_json_that_is_cut_says_so(client):
    reply = asked(client, QUESTION, model="random", max_tokens=5, **of_schema(SCHEMA))
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 5)


# --- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema, complaint",
    [
        ({}, "The schema is empty."),
        ({"type": "thing"}, 'The schema has the type "thing".'),
        ({"type": "object", "properties": 3}, "properties that are no dict"),
        ({"type": "string", "minLength": 9, "maxLength": 2}, "The schema"),
        ({"$ref": "#/$defs/none"}, "which is not in it"),
        ({"$ref": "http://127.0.0.1/x.json"}, "The schema refers to"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "allows no answer at all"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "(?=a)b"}, "looks around"),
        ({"type": "string", "pattern": "("}, "The schema cannot be followed"),
        ({"enum": ["<|end|>"]}, "a control string"),
        ({"anyOf": [{"type": "string"}] * 6000}, "more than 5,000 parts"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_schemas_that_are_refused(schema, complaint, stream, client):
    with pytest.raises(openai.BadRequestError) as caught:
        asked(client, QUESTION, model="random", stream=stream, **of_schema(schema))
    error = caught.value.body
    assert complaint in error["message"] and error["message"].endswith(".")
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "sent",
    [
        "json_object",
        {"type": "grammar"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": []},
        {"type": "json_schema", "json_schema": {"name": "answer"}},
        {"type": "json_schema", "json_schema": {"name": "answer", "schema": "{}"}},
    ],
)
def test_formats_that_are_refused(sent, client):
    with pytest.raises(openai.BadRequestError, match="response_format names no schema"):
        asked(client, QUESTION, model="random", extra_body={"response_format": sent})


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    with in_thread(p3v.load("tiny", verbose=False), "tiny") as address:
        with pytest.raises(openai.BadRequestError) as caught:
            asked(connected(address), QUESTION, **of_schema(SCHEMA))
        assert 'pip install "phi3v-helpers[data]"' in caught.value.body["message"]
        assert said(connected(address), QUESTION, max_tokens=2)


# --- Answers that are begun ------------------------------------------------------------------------


def test_an_answer_goes_on_where_the_client_began_it(client, model):
    begun = {"role": "assistant", "content": "ba do <|end|>"}
    reply = asked(
        client,
        QUESTION,
        begun,
        model="random",
        max_tokens=8,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    prompt = p3v.build_prompt("ba do ki") + "ba do < |end|>"
    here = model.ask(None, prompt, raw=True, max_new_tokens=8)
    assert reply.choices[0].message.content == here
    assert reply.usage.prompt_tokens == here.prompt_tokens


@pytest.mark.parametrize(
    "messages, options",
    [
        ([QUESTION], {"continue_final_message": True}),
        ([{"role": "assistant", "content": "ba"}], {"continue_final_message": True}),
        ([QUESTION, {"role": "assistant", "content": "\ud800"}], {"continue_final_message": True}),
        ([QUESTION, {"role": "assistant", "content": "ba"}], {"continue_final_message": 1}),
        ([QUESTION], {"add_generation_prompt": False}),
        (
            [QUESTION, {"role": "assistant", "content": "ba"}],
            {"continue_final_message": True, "add_generation_prompt": True},
        ),
    ],
)
def test_beginnings_that_are_refused(messages, options, client):
    reply = requests.post(
        f"{client.base_url}chat/completions", json={"messages": messages} | options, timeout=60
    )
    assert reply.status_code == 400 and reply.json()["error"]["message"].endswith(".")
