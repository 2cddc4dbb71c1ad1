"""Data in pictures by way of a server: the same as on this machine, and checked where it arrives."""

import datetime
import decimal
import json
import sys
import threading

import pytest
from helpful import helpful
from pydantic import BaseModel, Field
from serving import command, completion, fake, in_thread, send_error, send_json, soon

import phi3v_helpers as p3v
from phi3v_helpers.errors import ImageError, Phi3VError, PromptError

PICTURES = ["stock_chart", "book_cover", "shapes_1"]


class Line(BaseModel):
    name: str = Field(max_length=20)
    price: float
    many: int | None = None


class Invoice(BaseModel):
    shop: str = Field(description="as printed", max_length=20)
    day: datetime.date | None = None
    lines: list[Line] = Field(default=[], max_length=3)
    total: decimal.Decimal | None = None
    notes: dict[str, int] | None = Field(default=None, max_length=2)


TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"of": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}}
    },
    "$ref": "#/$defs/node",
}
DICT = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 20},
        "day": {"type": "string", "format": "date"},
        "when": {"type": "array", "items": {"type": "string", "format": "time"}, "maxItems": 2},
        "kind": {"enum": ["chart", "cover"]},
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "pair": {"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}], "items": False},
    },
    "required": ["title", "kind"],
}
SMALL = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


@pytest.fixture(scope="module")
def remote():
    with command("tiny") as process:
        yield p3v.load(process.address, verbose=False)


@pytest.fixture(scope="module")
def babbler(model):
    """The model with random weights on a server."""
    with in_thread(model) as address:
        yield p3v.load(address, verbose=False)


def outcome(work, *arguments, **options):
    """What comes of it: the result, or the error's kind and words."""
    try:
        return work(*arguments, **options)
    except Phi3VError as error:
        return type(error), str(error)


# --- The same as on this machine -------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_text(name, remote, tiny):
    there, here = [model.read_text(p3v.samples[name], max_new_tokens=200) for model in (remote, tiny)]
    assert (there, there.finished, there.model) == (here, here.finished, "tiny")
    assert there.prompt_tokens == here.prompt_tokens


@pytest.mark.parametrize("name", PICTURES[1:])
def test_the_same_table(name, remote, tiny):
    there, here = [
        outcome(model.read_table, p3v.samples[name], max_new_tokens=400) for model in (remote, tiny)
    ]
    if isinstance(here, tuple):
        assert there == here
    else:
        assert there.equals(here) and list(there) == list(here) and there.attrs["model"] == "tiny"


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_objects(name, remote, tiny):
    there, here = [outcome(model.find_objects, p3v.samples[name]) for model in (remote, tiny)]
    assert there == here


@pytest.mark.parametrize("schema", [Invoice, DICT, TREE, SMALL], ids=["class", "dict", "tree", "small"])
@pytest.mark.parametrize("name", PICTURES)
def test_the_same_fields(name, schema, remote, tiny):
    there, here = [outcome(model.extract, p3v.samples[name], schema) for model in (remote, tiny)]
    assert there == here


@pytest.mark.parametrize("schema", [Invoice, DICT, TREE], ids=["class", "dict", "tree"])
def test_the_same_fields_whatever_the_model_writes(schema, babbler, model):
    for seed in range(4):
        options = {"temperature": 3, "seed": seed, "max_new_tokens": 1500}
        there, here = [
            outcome(one.extract, p3v.samples["clouds"], schema, **options) for one in (babbler, model)
        ]
        assert there == here


def test_the_same_text_whatever_the_model_writes(babbler, model):
    for seed in range(3):
        options = {"temperature": 2, "seed": seed, "max_new_tokens": 300}
        there, here = [one.read_text(p3v.samples["clouds"], **options) for one in (babbler, model)]
        assert (there, there.finished) == (here, here.finished)


def test_the_same_pages(remote, tiny):
    pictures = [p3v.samples["shapes_1"], "no-such-file.png"]
    there, here = [
        dict(model.each_page(pictures, "extract", SMALL, progress=False)) for model in (remote, tiny)
    ]
    assert there[1] == here[1] and isinstance(there[2], ImageError) and str(there[2]) == str(here[2])


def test_json_that_is_cut_is_the_same_error(remote, tiny):
    for model in (remote, tiny):
        with helpful(Phi3VError, "was cut at 4 tokens", "larger max_new_tokens"):
            model.extract(p3v.samples["shapes_1"], DICT, max_new_tokens=4)


def test_mistakes_are_found_before_anything_is_sent():
    with fake(None) as server:
        model = p3v.load(server.address, verbose=False)
        with helpful(PromptError, "has the type"):
            model.extract(p3v.samples["clouds"], {"type": "thing"})
        with helpful(PromptError, "There is no method"):
            model.each_page("x.pdf", "paint")
        with helpful(PromptError, "looks around"):
            model.extract(p3v.samples["clouds"], {"type": "string", "pattern": "(?=a)"})
        assert server.bodies == []


# --- Other servers ---------------------------------------------------------------------------------


def asked(text, schema=SMALL, finish_reason="stop"):
    """What comes of asking a server that answers so for data; what it was sent."""
    with fake(lambda handler, _: send_json(handler, completion(text, finish_reason))) as server:
        data = p3v.load(server.address, verbose=False).extract(p3v.samples["clouds"], schema)
    return data, server.bodies[0]


def test_what_a_server_is_sent():
    data, body = asked('{"year": 2021}')
    assert data == {"year": 2021}
    schema = body["response_format"]["json_schema"].pop("schema")
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True},
    }
    assert schema["required"] == ["year"] and schema["properties"]["year"]["type"] == "integer"
    assert not {"optional", "again", "any", "is", "multipleOf"} & set(json.dumps(schema).split('"'))


def test_nulls_of_what_is_not_required_are_left_out_and_the_order_is_no_matter():
    written = '{"kind": "chart", "title": "a", "day": null, "pair": null, "share": 0.5, "when": null}'
    assert asked(written, DICT)[0] == {"kind": "chart", "title": "a", "share": 0.5}


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("The year is 2021.", "The year is 2021. is no JSON"),
        ("", "is no JSON"),
        ('```json\n{"year": 2021}\n```', "is no JSON"),
        ('{"year": NaN}', "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"year": "2021"}', '"2021" at $.year does not fit'),
        ('{"year": 2021, "month": 3}', "at $ does not fit"),
        ("{}", "{} at $ does not fit"),
        ('{"year": 1e300}', "does not fit"),
    ],
)
def test_a_server_that_ignores_the_schema(text, complaint):
    with helpful(
        Phi3VError, "did not keep its answer to the schema", complaint, "phi3v serve, vLLM or SGLang"
    ):
        asked(text)


def test_tables_and_objects_of_a_server_that_ignores_the_schema():
    with fake(lambda handler, _: send_json(handler, completion('{"rows": []}'))) as server:
        model = p3v.load(server.address, verbose=False)
        for work in (model.read_table, model.find_objects):
            with helpful(Phi3VError, "did not keep its answer to the schema"):
                work(p3v.samples["clouds"])


def test_a_pattern_that_python_cannot_read():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "^\\p{L}+$"}},
        "required": ["a"],
    }
    assert asked('{"a": "b"}', schema)[0] == {"a": "b"}


def test_a_server_that_refuses_schemas():
    with fake(lambda handler, _: send_error(handler, 400, "response_format is unknown.")) as server:
        with helpful(PromptError, "does not take the question (400: response_format is unknown)"):
            p3v.load(server.address, verbose=False).extract(p3v.samples["clouds"], SMALL)


@pytest.mark.parametrize(
    "answer, text",
    [
        ("ALONE\nNora", "ALONE\nNora"),
        ("```\nALONE\nNora\n```", "ALONE\nNora"),
        ("Here is the text:\n\n```plaintext\nALONE\n\nNora\n```\nAnything else?", "ALONE\n\nNora"),
        ("```text\nALONE", "ALONE"),
        ("```\n```", ""),
        ("", ""),
    ],
)
def test_text_of_other_servers_comes_out_alone(answer, text):
    with fake(lambda handler, _: send_json(handler, completion(answer))) as server:
        read = p3v.load(server.address, verbose=False).read_text(p3v.samples["clouds"])
    assert (read, read.finished) == (text, True)
    assert (
        server.bodies[0]["messages"][-1]["role"] == "user"
        and "continue_final_message" not in server.bodies[0]
    )


def test_a_text_ends_at_its_fence_though_the_model_goes_on():
    left = threading.Event()

    def reply(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for piece in ["AL", "ONE\\n", "``", "`\\n", "And", *["so on"] * 1000]:
            choice = f'{{"index": 0, "delta": {{"content": "{piece}"}}, "finish_reason": null}}'
            try:
                handler.wfile.write(f'data: {{"id": "1", "choices": [{choice}]}}\n\n'.encode())
            except OSError:
                return left.set()
            left.wait(0.01)

    with fake(reply, owner="phi3v-helpers") as server:
        read = p3v.load(server.address, verbose=False).read_text(p3v.samples["clouds"])
        assert (read, read.finished) == ("ALONE", True) and soon(left.is_set, 15)
    assert server.bodies[0]["messages"][-1] == {"role": "assistant", "content": "```\n"}


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with helpful(Phi3VError, "needs jsonschema", 'pip install "phi3v-helpers[data]"'):
        asked('{"year": 2021}')
