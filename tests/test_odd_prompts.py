"""Whatever people type: it is answered or refused in words, and it never becomes a control token.

`ODD_PROMPTS=10000 pytest tests/test_odd_prompts.py` tries that many.
"""

import os
from collections import Counter

import numpy as np
import pytest
from helpful import helpful
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from phi3v_helpers.errors import Phi3VError, PromptError

TRIES = int(os.environ.get("ODD_PROMPTS", 300))
RED = Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8))
PIECES = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>", "<|image|>", "<s>", "</s>"]
PIECES += [
    "<unk>",
    "<pad>",
    "<|image_1|>",
    "<|image_2|>",
    "<|image_7|>",
    "<|image_-1|>",
    "<|",
    "|>",
    "<",
    "|",
]
PIECES += ["end", "\n", " ", "\t", "\0", "\r", "▁", "\u200b", "\u202e", "\ufeff", "🙂", "é", "e\u0301", "数"]
PIECES += ["\ud83d", "\udcff", "\U0010ffff", "A", "What?", "<0x0A>", "<｜end｜>", "＜|end|＞", "\x1b[31m"]

texts = st.one_of(
    st.text(st.characters(), max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=8).map("".join),
)
odd = settings(max_examples=TRIES, deadline=10_000, derandomize=True, suppress_health_check=list(HealthCheck))


def control_tokens(model, prompt):
    """How often each special token is in a prompt as the model gets it, pictures aside."""
    tokenizer = model.tokenizer
    special = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids, _ = model.processor.prompt_ids(prompt, [0] * prompt.count("<|image_1|>"))
    return Counter(special[id] for id in ids if id in special)


@odd
@given(
    question=texts,
    system=st.one_of(st.none(), texts),
    turns=st.lists(st.tuples(texts, texts), max_size=2),
    pictures=st.integers(0, 1),
)
@example(question="<|image_1|>" * 3, system=None, turns=[], pictures=1)
@example(question="<<|end|>|end|>", system="<|<|user|>user|>", turns=[("</</s>s>", "<|end|>")], pictures=0)
def test_no_text_becomes_a_control_token(model, question, system, turns, pictures):
    try:
        request = model.request([RED] * pictures, question, system, turns)
    except PromptError as error:
        assert error.what.endswith(".") and error.advice.endswith("."), str(error)
        return
    expected = Counter({"<|user|>": 1 + len(turns), "<|assistant|>": 1 + len(turns)})
    expected["<|end|>"] = 1 + 2 * len(turns) + bool(system)
    expected["<|system|>"] = int(bool(system))
    expected["<s>"] = (
        1 + pictures
    )  # one in front of each piece between the tags, as the published processor has it
    assert +control_tokens(model, request.prompt) == +expected


@settings(odd, max_examples=max(TRIES // 3, 20))
@given(question=texts, raw=st.booleans(), length=st.integers(1, 3), temperature=st.sampled_from([0, 1.5]))
def test_every_text_is_answered_or_refused(model, question, raw, length, temperature):
    try:
        answer = model.ask(RED, question, raw=raw, max_new_tokens=length, temperature=temperature)
    except Phi3VError as error:
        assert error.what.endswith(".") and error.advice.endswith("."), str(error)
        return
    assert answer.model and 1 <= answer.new_tokens <= length


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u2003"])
def test_an_empty_question(model, text):
    with helpful(PromptError, "The question is empty"):
        model.ask(RED, text)


@pytest.mark.parametrize("piece", ["a", " ", "word ", "🙂", "<|end|>", "\n", "数字"])
def test_a_very_long_question_is_refused_at_once(model, piece):
    text = "Why? " + piece * (5_000_000 // len(piece))
    with helpful(PromptError, "characters", f"{model.context:,} tokens"):
        model.ask(RED, text)


def test_a_long_question_that_fits_is_answered(model, monkeypatch):
    monkeypatch.setattr("phi3v_helpers.vision.BLOCK", 500)
    assert model.ask(None, "word " * 600, max_new_tokens=2).prompt_tokens > 600


def test_a_raw_prompt_has_its_control_tokens(model):
    prompt = "<|user|>\nOne?<|end|>\n<|assistant|>\nYes.<|end|>\n<|user|>\n<|image_1|>\nTwo?<|end|>\n<|assistant|>\n"
    request = model.request([RED], prompt, raw=True)
    assert request.prompt == prompt
    assert control_tokens(model, prompt)["<|user|>"] == 2
    assert model.ask(RED, prompt, raw=True, max_new_tokens=3) == model.ask(
        RED, prompt, raw=True, max_new_tokens=3
    )
    history = [("One?", "Yes.")]
    same = model.request([RED], "Two?", history=history, image_counts=[0, 1])
    assert same.prompt == prompt


def test_a_raw_prompt_has_no_system_text_beside_it(model):
    with helpful(PromptError, "raw prompt", "system text"):
        model.ask(RED, "<|user|>\n<|image_1|>", raw=True, system="Be brief.")
    chat = model.chat(RED)
    chat.ask("What?", max_new_tokens=3)
    with helpful(PromptError, "raw prompt", "history"):
        chat.ask("<|user|>\n<|image_1|>", raw=True)
