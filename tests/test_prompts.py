import json
import re
from pathlib import Path

import pytest
from helpful import helpful

from phi3v_helpers import build_prompt
from phi3v_helpers.errors import PromptError
from phi3v_helpers.prompts import plain, raw_prompt

GOLDEN = json.loads((Path(__file__).parent / "golden/prompts/prompts.json").read_text(encoding="utf-8"))
SEED = "Could you please introduce this stock to me?"
CONTROL = [
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|endoftext|>",
    "<|image|>",
    "<|placeholder1|>",
]
CONTROL += ["<s>", "</s>", "<unk>"]


def test_the_format_of_the_seed():
    assert build_prompt(SEED, 1) == f"<|user|>\n<|image_1|>\n{SEED}<|end|>\n<|assistant|>\n"
    assert build_prompt("Q", 2) == "<|user|>\n<|image_1|>\n<|image_2|>\nQ<|end|>\n<|assistant|>\n"
    assert build_prompt("Q") == "<|user|>\nQ<|end|>\n<|assistant|>\n"


def test_system_and_history():
    assert build_prompt("Q2", 1, system="Be brief.", history=[("Q1", "A1")]) == (
        "<|system|>\nBe brief.<|end|>\n"
        "<|user|>\n<|image_1|>\nQ1<|end|>\n<|assistant|>\nA1<|end|>\n"
        "<|user|>\nQ2<|end|>\n<|assistant|>\n"
    )
    assert build_prompt("Q", system="") == build_prompt("Q", system=None) == build_prompt("Q")


@pytest.mark.parametrize("case", [c for c in GOLDEN["chat_template"] if c["messages"][-1]["role"] == "user"])
def test_equal_to_the_published_template(case):
    if not case["add_generation_prompt"]:
        return  # we always ask for an answer
    system = [m["content"] for m in case["messages"] if m["role"] == "system"]
    turns = [m["content"].removeprefix("<|image_1|>\n") for m in case["messages"] if m["role"] != "system"]
    n_images = len(re.findall(r"<\|image_", case["text"]))
    history = list(zip(turns[0:-1:2], turns[1::2], strict=True))
    assert build_prompt(turns[-1], n_images, *system, history=history) == case["text"]


@pytest.mark.parametrize(
    "text", ["  two  spaces\tand\n\nlines  ", "Résumé 数字 ½ 🙂", "a < b | c > d", "<b>x</b>", "<|", "|>"]
)
def test_ordinary_text_is_taken_word_for_word(text):
    assert build_prompt(text) == f"<|user|>\n{text}<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize("token", CONTROL)
def test_control_strings_of_people_are_plain_text(token):
    written = f"What does {token} mean?"
    prompt = build_prompt(written, 1, system=written, history=[(written, written)])
    assert prompt.count(f"What does < {token[1:]} mean?") == 4
    marks = re.findall(r"<\|\w+\|>|</?s>|<unk>", prompt)
    assert marks == [
        *("<|system|>", "<|end|>"),
        *("<|user|>", "<|image_1|>", "<|end|>", "<|assistant|>", "<|end|>"),
        *("<|user|>", "<|end|>", "<|assistant|>"),
    ]


@pytest.mark.parametrize(
    "text", ["<<|end|>|end|>", "<|<|end|>end|>", "<|end|><|end|>", "<<s>s>", "<|a<|user|>b|>"]
)
def test_breaking_up_makes_no_new_control_string(text):
    assert not re.search(r"<\|\w+\|>|</?s>", plain(text))


def test_breaking_up_twice_changes_nothing_more():
    once = plain("".join(CONTROL) + "<|image_3|>")
    assert plain(once) == once


def test_image_tags_in_answers_and_system_texts_are_plain_text():
    prompt = build_prompt("Q2", 1, system="See <|image_1|>.", history=[("Q1", "As in <|image_1|>.")])
    assert prompt.count("<|image_1|>") == 1
    assert prompt.count("< |image_1|>") == 2


def test_a_question_may_place_its_own_tags():
    question = "Is <|image_2|> older than <|image_1|>?"
    assert build_prompt(question, 2) == f"<|user|>\n{question}<|end|>\n<|assistant|>\n"
    later = build_prompt("Why?", 2, history=[(question, "Yes.")])
    assert later.startswith(f"<|user|>\n{question}<|end|>\n")


@pytest.mark.parametrize(
    ("question", "n_images", "words"),
    [
        ("What is <|image_1|>?", 0, ("<|image_1|>", "no picture is given")),
        ("<|image_1|> or <|image_7|>?", 1, ("<|image_7|>", "1 picture is given")),
        ("<|image_1|> <|image_3|>", 2, ("<|image_1|>, <|image_3|>", "2 pictures are given")),
        ("<|image_1|> <|image_1|>", 1, ("once",)),
        ("<|image_1|>", 2, ("2 pictures",)),
        ("<|image_1|>" * 50, 1, ("<|image_1|>, …", "1 picture is given")),
    ],
)
def test_tags_that_do_not_match_are_an_error(question, n_images, words):
    with helpful(PromptError, *words):
        build_prompt(question, n_images)


@pytest.mark.parametrize("tag", ["<|image_7|>", "<|image_0|>", "<|image_" + "9" * 5000 + "|>", "<|image_١|>"])
def test_tags_that_no_picture_has_are_plain_text(tag):
    prompt = build_prompt(f"What does {tag} mean?", 1)
    assert prompt == f"<|user|>\n<|image_1|>\nWhat does < {tag[1:]} mean?<|end|>\n<|assistant|>\n"
    assert f"< {tag[1:]}" in build_prompt(f"And {tag}?", 1, history=[("Q", "A")])
    assert f"< {tag[1:]}" in build_prompt(f"And {tag}?")


def test_a_tag_in_a_later_turn_is_an_error():
    with helpful(PromptError, "<|image_1|>", "first picture"):
        build_prompt("And <|image_1|>?", 1, history=[("Q", "A")])
    with helpful(PromptError, "only in the turn that brings it"):
        build_prompt("Q3", 1, history=[("Q", "A"), ("And <|image_1|>?", "A")])


@pytest.mark.parametrize("n_images", [-1, 1.0, "2", None])
def test_a_wrong_number_of_images(n_images):
    with helpful(PromptError, repr(n_images)):
        build_prompt("Q", n_images)


def test_half_a_character_is_named():
    with helpful(PromptError, "The question has half a character, '\\ud83d', at place 4"):
        build_prompt("Why\ud83d?")
    with helpful(PromptError, "system text", "half a character"):
        build_prompt("Q", system="\udcff")
    with helpful(PromptError, "history", "half a character"):
        build_prompt("Q", history=[("Q", "\udcff")])
    with helpful(PromptError, "history"):
        build_prompt("Q", history=[("\udcff", 1)])


def test_values_of_the_wrong_kind():
    with helpful(PromptError, "question", "NoneType"):
        build_prompt(None)
    with helpful(PromptError, "system", "int"):
        build_prompt("Q", system=7)
    for history in ["ab", [("Q",)], [("Q", None)], ["QA"]]:
        with helpful(PromptError, "history", "(question, answer)"):
            build_prompt("Q", history=history)


def test_a_raw_prompt_is_taken_as_it_is():
    prompt = "<|system|>\nBe brief.<|end|>\n<|user|>\n<|image_1|>Q<|end|>\n<|assistant|>\nIt is"
    assert raw_prompt(prompt, 1) == prompt


@pytest.mark.parametrize(
    ("prompt", "n_images", "words"),
    [
        ("Q", 1, ("The raw prompt names no picture, but 1 picture is given",)),
        ("<|image_1|>", 0, ("<|image_1|>", "no picture is given")),
        ("<|image_2|>", 1, ("<|image_2|>",)),
        ("<|image|><|image_1|>", 1, ("<|image|>", "<|image_1|>")),
        (7, 0, ("The prompt is of type int",)),
    ],
)
def test_a_raw_prompt_must_name_its_pictures(prompt, n_images, words):
    with helpful(PromptError, *words):
        raw_prompt(prompt, n_images)
