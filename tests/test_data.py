"""Text, tables, objects and fields out of pictures: whatever a model says, the result has the shape that was asked for.

`DATA_TRIES=1000 pytest tests/test_data.py` tries that many answers.
"""

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import numpy as np
import pandas
import pytest
import torch
from babble import babble, saying
from helpful import helpful
from model_goldens import real_folder
from PIL import Image
from pydantic import BaseModel, Field, field_validator
from random_model import make_folder

import phi3v_helpers as p3v
from phi3v_helpers.data import grammar, tables, tasks
from phi3v_helpers.data.fence import UntilFence
from phi3v_helpers.data.fields import form_of
from phi3v_helpers.data.objects import Found
from phi3v_helpers.errors import ImageError, Phi3VError, PromptError

TRIES = int(os.environ.get("DATA_TRIES", 60))


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def photo(seed):
    y, x = np.mgrid[:70, :90]
    waves = [np.sin(x / (9 + k + seed % 7)) + np.cos(y / (7 + k)) + (x + y) / 160 for k in range(3)]
    return np.clip(np.dstack(waves) * 60 + 90, 0, 255).astype(np.uint8)


EMPTY = np.full((50, 50, 3), 255, np.uint8)
RED = Image.new("RGB", (60, 40), "red")


class Item(BaseModel):
    name: str = Field(max_length=8)
    price: float


class Receipt(BaseModel):
    shop: str = Field(max_length=12)
    kind: str | None = Field(default=None, max_length=5)
    items: list[Item] = Field(max_length=3)
    count: int = 1


class Checked(BaseModel):
    total: int

    @field_validator("total")
    @classmethod
    def is_known(cls, value):
        if value != 7:
            raise ValueError("must be seven")
        return value


@pytest.fixture(scope="module")
def strong(tmp_path_factory):
    """A model whose answers depend on everything that it read."""
    return p3v.load(make_folder(tmp_path_factory.mktemp("strong") / "strong", strength=5), verbose=False)


def test_whatever_is_babbled_fits(model, strong):
    for seed in range(TRIES):
        picture = [noise(seed), photo(seed), EMPTY][seed % 3]
        vision = (model, strong)[seed // 3 % 2]
        receipt = vision.extract(picture, Receipt, temperature=1.5, seed=seed)
        assert isinstance(receipt, Receipt) and Receipt.model_validate(receipt.model_dump()) == receipt


def test_the_shipped_model_keeps_to_a_schema(tiny):
    for picture in (p3v.samples["shapes_1"], EMPTY):
        assert isinstance(tiny.extract(picture, Receipt), Receipt)
        assert isinstance(tiny.extract(picture, Receipt, temperature=1.5, seed=1), Receipt)


def test_the_same_answer_whatever_was_read_before(strong):
    def all_of_it():
        return strong.extract(photo(1), Receipt, temperature=0.5, seed=3)

    strong.forget()
    first = all_of_it()
    assert all_of_it() == first
    strong.ask(photo(1), "Else?", max_new_tokens=5)
    assert all_of_it() == first
    strong.forget()
    assert all_of_it() == first
    assert strong.ask(photo(1), "Still there?", max_new_tokens=9) == strong.ask(
        photo(1), "Still there?", max_new_tokens=9
    )


def test_seeds_make_answers_differ(strong):
    assert len({str(strong.extract(EMPTY, Receipt, temperature=1.5, seed=seed)) for seed in range(4)}) == 4


def test_threads(strong):
    dicts = [{"type": "array", "items": {"enum": [n, "a"]}, "maxItems": 9} for n in range(4)]

    def work(n):
        return strong.extract(noise(n), dicts[n % 4], temperature=1.5, seed=n)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [work(n) for n in range(8)]
    assert threading.active_count() < 20 and not strong.lock.locked()


def test_a_table_of_the_tokenizer_is_made_once(strong, monkeypatch):
    strong.extract(EMPTY, {"const": 1})
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    assert strong.extract(EMPTY, {"const": 1}) == 1
    assert strong.extract(EMPTY, {"const": 2}) == 2


def test_few_grammars_are_kept(model):
    grammars = grammar.grammars_of(model.engine)
    for number in range(3 * grammar.KEPT):
        grammars.constraint({"enum": [number]})
    assert len(grammars._kept) == grammar.KEPT


def test_several_pictures_and_a_dict(model):
    with saying(model, '{"shop": "A é漢🙂", "total": null}'):
        data = model.extract([RED, noise(1)], {"properties": {"shop": {}, "total": {"type": "number"}}})
    assert data == {"shop": "A é漢🙂"}


def test_fields_are_filled_in(model):
    said = '{"shop": "Green Store", "kind": null, "items": [{"name": "Tea", "price": 2.5}], "count": null}'
    with saying(model, said):
        receipt = model.extract(RED, Receipt)
    assert receipt == Receipt(shop="Green Store", items=[Item(name="Tea", price=2.5)])


def test_chatter_is_not_to_be_had(model):
    with saying(model, 'Sure, here it is: {"total": 7}'):
        assert isinstance(model.extract(RED, {"type": "integer", "maximum": 99}), int)


def test_an_answer_that_is_cut(model):
    for ask in (
        lambda: model.extract(RED, Receipt, max_new_tokens=4),
        lambda: model.read_table(RED, max_new_tokens=4),
        lambda: model.find_objects(RED, max_new_tokens=4),
    ):
        with helpful(Phi3VError, "cut at 4 tokens", "larger max_new_tokens"):
            ask()


def test_a_validator_that_refuses(model):
    with saying(model, '{"total": 8}'), helpful(Phi3VError, "no Checked", "total is 8", "seven") as caught:
        model.extract(RED, Checked)
    assert caught.value.value == {"total": 8}
    with saying(model, '{"total": 7}'):
        assert model.extract(RED, Checked).total == 7


def test_options(model):
    for option in ("raw", "look_up"):
        for ask in (
            model.read_text,
            model.read_table,
            model.find_objects,
            lambda *a, **o: model.extract(RED, Item, **o),
        ):
            with helpful(PromptError, option):
                ask(RED, **{option: True})
    with helpful(PromptError, "temperature"):
        model.extract(RED, Item, temperature=-1)
    with pytest.raises(TypeError):
        model.extract(RED, Item, max_tokens=5)
    with helpful(ImageError, "no picture"):
        model.extract(None, Item)
    with helpful(ImageError):
        model.read_table("nowhere.png")


@pytest.mark.parametrize("package", ["llguidance", "pandas", "pydantic"])
def test_a_package_that_is_absent(model, monkeypatch, package):
    monkeypatch.setattr(grammar, "_grammars", WeakKeyDictionary())
    for name in (package, f"{package}.hf"):
        monkeypatch.setitem(sys.modules, name, None)  # an import fails then
    ask = (lambda: model.read_table(RED)) if package != "pydantic" else (lambda: model.extract(RED, Item))
    with helpful(Phi3VError, package, 'pip install "phi3v-helpers[data]"'):
        ask()


# --- Text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said, text",
    [
        ("One\n  two é🙂\n```\nI hope that this helps!", "One\n  two é🙂"),
        ("One\n```", "One"),
        ("One", "One"),
        ("```", ""),
        ("\n```", ""),
        ("", ""),
        (" \n", ""),
        ("a ``` b\n``\nc\n\n```python", "a ``` b\n``\nc"),
        ("long " * 30 + "\n```\nand on", ("long " * 30).rstrip()),
    ],
)
@pytest.mark.parametrize("which", ["model", "tiny"])
def test_text_ends_at_the_fence(request, which, said, text):
    vision = request.getfixturevalue(which)
    with saying(vision, said):
        answer = vision.read_text(RED)
    assert answer == text and answer.finished and answer.model == vision.name


def test_the_prompt_for_text_begins_the_answer(model, monkeypatch):
    asked = []
    read = model.engine.read
    monkeypatch.setattr(
        model.engine, "read", lambda prompt, *rest: asked.append(prompt) or read(prompt, *rest)
    )
    model.read_text(RED, max_new_tokens=1)
    assert asked == [f"<|user|>\n<|image_1|>\n{tasks.TEXT}<|end|>\n<|assistant|>\n```\n"]


def test_text_that_is_cut(model):
    with saying(model, "One two"):
        answer = model.read_text(RED, max_new_tokens=3)
    assert "One two".startswith(answer) and not answer.finished


def test_only_the_end_follows_a_fence(model):
    until, ends = UntilFence(model.tokenizer, model.engine.ends), set(model.engine.ends)
    ids, scores = [7, 7], torch.zeros(1, len(model.tokenizer))
    allowed = []
    for id in [None, *model.tokenizer("x\n```\n", add_special_tokens=False).input_ids]:
        ids += [] if id is None else [id]
        allowed.append(set((until(torch.tensor([ids]), scores)[0] == 0).nonzero().flatten().tolist()))
    assert allowed[-1] == allowed[-2] == ends and all(len(some) == scores.shape[1] for some in allowed[:-2])


# --- Tables ----------------------------------------------------------------------------------------


def table(model, columns, rows, **options):
    with saying(model, json.dumps({"columns": columns, "rows": rows}, ensure_ascii=False)):
        return model.read_table(RED, **options)


def test_a_table(model):
    frame = table(model, ["Year", "Change", "Sales"], [["2021", "12 %", "1,234.5"], ["2022", "-3 %", "−7"]])
    expected = pandas.DataFrame({"Year": [2021, 2022], "Change": ["12 %", "-3 %"], "Sales": [1234.5, -7.0]})
    pandas.testing.assert_frame_equal(frame, expected)
    assert frame.attrs == {"model": model.name}
    as_printed = table(model, ["Year"], [["2021"]], numbers=False)
    assert as_printed["Year"].tolist() == ["2021"]


def test_an_empty_table(model):
    frame = table(model, [], [])
    assert isinstance(frame, pandas.DataFrame) and frame.empty and list(frame) == []
    frame = table(model, ["a", "b"], [])
    assert frame.shape == (0, 2) and list(frame) == ["a", "b"]


@pytest.mark.parametrize(
    "cells, numbers",
    [
        (["1", "-2", "+3", "1,000,000"], [1, -2, 3, 1_000_000]),
        (["1.5", "2"], [1.5, 2.0]),
        ([" 0 ", "0.5"], [0.0, 0.5]),
        (["007", "8"], None),
        (["1.234,5"], None),
        (["1,23"], None),
        (["12 %"], None),
        (["$5"], None),
        (["1e5"], None),
        (["", ""], None),
        (["1", "-"], None),
        (["٣"], None),
        (["1234567890123456"], None),
    ],
)
def test_numbers_in_a_column(cells, numbers):
    assert tables.as_numbers(cells) == (cells if numbers is None else numbers)


def test_an_empty_cell_among_numbers():
    assert np.array_equal(tables.as_numbers(["1", "", "3"]), [1, np.nan, 3], equal_nan=True)


def test_names_of_columns_are_usable(model):
    assert tables.usable_names(["a", "", "a", " ", "a 2", "a", "column 2"]) == [
        "a",
        "column 2 2",
        "a 3",
        "column 4",
        "a 2",
        "a 4",
        "column 2",
    ]
    frame = table(model, ["a", "a"], [["1", "x"]])
    assert list(frame) == ["a", "a 2"] and frame["a 2"].tolist() == ["x"]


def test_rows_have_as_many_cells_as_there_are_columns(model, tiny):
    for vision in (model, tiny):
        grammars = grammar.grammars_of(vision.engine)
        for seed in range(3):
            _, text = babble(grammars, vision.engine.ends, tables.FORM, seed, most=200_000)
            data = json.loads(text)
            assert {len(row) for row in data["rows"]} <= {len(data["columns"])}


def test_a_row_that_is_too_short_cannot_be_said(model):
    grammars = grammar.grammars_of(model.engine)
    for row, is_let_through in (('["1"]', False), ('["1", "2"]', True), ('["1", "2", "3"]', False)):
        ids = grammars.table.tokenize_str(f'{{"columns": ["a", "b"], "rows": [{row}')
        matcher = grammars.constraint(tables.FORM)._matcher
        assert (matcher.try_consume_tokens(ids) == len(ids)) == is_let_through


# --- Objects ---------------------------------------------------------------------------------------


def test_objects(model):
    said = [
        {"what": "circle", "colour": "red", "where": "top left"},
        {"what": "circle", "colour": "red", "where": None},
        {"what": "dog", "colour": None, "where": "below"},
    ]
    with saying(model, json.dumps({"objects": said})):
        found = model.find_objects(RED)
    assert found == [Found("circle", "red", "top left"), Found("circle", "red"), Found("dog", None, "below")]
    assert found.counts() == {("red", "circle"): 2, (None, "dog"): 1}
    with saying(model, '{"objects": []}'):
        assert model.find_objects(RED) == [] and model.find_objects.__doc__


# --- Tokenizers ------------------------------------------------------------------------------------


def keeps_letters(tokenizer, engine, tries):
    """Whatever is said is JSON, and the tokenizer decodes it to that; letters of several bytes come in pieces."""
    grammars, strange = grammar.Grammars(engine), 0
    form = form_of(
        {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3}
    )
    for seed in range(tries):
        ids, text = babble(grammars, engine.ends, form, seed)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).removeprefix(
            " "
        ) == text.removeprefix(" ")
        strange += not "".join(json.loads(text)).isascii()
    assert strange > tries / 10


@pytest.mark.parametrize("which", ["model", "tiny"])
def test_letters_of_several_bytes(request, which):
    vision = request.getfixturevalue(which)
    keeps_letters(vision.tokenizer, vision.engine, 40)
    with saying(vision, '"é漢🙂"'):
        assert vision.extract(RED, {"type": "string"}) == "é漢🙂"


def test_the_published_tokenizer(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_folder() / "Phi-3-vision-128k-instruct")
    ends = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])

    class Published:
        class processor:  # noqa: N801
            pass

        class model:  # noqa: N801
            class config:  # noqa: N801
                vocab_size = 32064

    Published.processor.tokenizer, Published.ends = tokenizer, ends
    keeps_letters(tokenizer, Published, 10)
