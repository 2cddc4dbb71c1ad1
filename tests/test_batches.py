"""Many questions at once: the answers of one by one, in order, as soon as they are there."""

import random

import pytest
import torch
from helpful import helpful
from random_model import CONTEXT, make_folder
from test_reuse import ONE, PICTURES, THREE, TWO, Work

import phi3v_helpers as p3v
from phi3v_helpers import batches
from phi3v_helpers.errors import ImageError, PromptError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return p3v.load(make_folder(tmp_path_factory.mktemp("strong") / "strong", strength=6), verbose=False)


def random_pairs(n):
    generator = random.Random(2)
    questions = ("What?", "Who is it?", "How many of them are there, and where do they stand?")
    return [
        (generator.sample(PICTURES, generator.randint(0, 3)) or None, generator.choice(questions))
        for _ in range(n)
    ]


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_equal_to_one_by_one(model, at_once):
    pairs = random_pairs(21)
    expected = [model.ask(*pair, max_new_tokens=9) for pair in pairs]
    answers = list(model.ask_many(pairs, at_once=at_once, progress=False, max_new_tokens=9))
    assert answers == expected
    for answer, alone in zip(answers, expected):
        assert (answer.prompt_tokens, answer.new_tokens) == (alone.prompt_tokens, alone.new_tokens)
        assert answer.finished == alone.finished and answer.model == model.name and answer.seconds > 0


def test_answers_that_end_early_are_cut_there(model, monkeypatch):
    pairs = random_pairs(12)
    written = []
    for images, question in pairs:
        request = model.request(images or [], question)
        written.append(model.engine.write(model.engine.read(request.prompt, request.images, None), 30).ids)
    # The token that comes at the most different places is now an end.
    places = {t: {ids.index(t) for ids in written if t in ids} for ids in written for t in ids}
    end = max(places, key=lambda token: len(places[token]))
    monkeypatch.setattr(model.engine, "ends", [end, *model.engine.ends])
    expected = [model.ask(*pair, max_new_tokens=30) for pair in pairs]
    answers = list(model.ask_many(pairs, progress=False, max_new_tokens=30))
    assert len({answer.new_tokens for answer in expected}) > 2
    assert answers == expected
    assert [answer.new_tokens for answer in answers] == [answer.new_tokens for answer in expected]
    assert [answer.finished for answer in answers] == [answer.finished for answer in expected]


def test_they_are_computed_together(model):
    model.forget()
    with Work(model) as work:
        answers = list(
            model.ask_many([(ONE, "What?"), (TWO, "Who?"), (ONE, "Why?")], progress=False, max_new_tokens=8)
        )
    assert work.calls == 3 + 8  # three to read, eight to write in rows of three
    assert work.cut == 2  # each picture once
    assert work.logits == 3 * 8
    read = sum(answer.prompt_tokens - 1 for answer in answers) - model.image_tokens([ONE])[0]
    assert read - 10 < work.tokens - 3 * 8 < read + 1  # the picture of two questions once


def test_sizes_follow_the_memory(model, monkeypatch):
    pairs = [(THREE, "What?")] * 6
    _, one = model.memory(model.count_tokens(THREE, "What?") + 5)
    monkeypatch.setattr(batches, "usual_budget", lambda device: 2.5 * one)
    with Work(model) as work:
        answers = list(model.ask_many(pairs, progress=False, max_new_tokens=5))
    assert work.calls == 6 + 3 * 5 and len(set(answers)) == 1
    monkeypatch.setattr(batches, "usual_budget", lambda device: 0)  # one at a time, then
    assert list(model.ask_many(pairs, progress=False, max_new_tokens=5)) == answers


def test_answers_come_while_the_others_are_computed(model):
    looked_at = []

    def pairs():
        for number in range(3 * batches.AHEAD):
            looked_at.append(number)
            yield None, f"{number}?"

    answers = model.ask_many(pairs(), progress=False, max_new_tokens=1)
    next(answers)
    assert len(looked_at) <= batches.AHEAD
    assert len(list(answers)) == 3 * batches.AHEAD - 1


def test_nothing_to_ask(model):
    assert list(model.ask_many([], progress=False)) == []


def test_the_progress_bar(model, capfd):
    list(model.ask_many([(None, "What?")] * 3, max_new_tokens=1))
    assert "3/3" in capfd.readouterr().err
    list(model.ask_many([(None, "What?")] * 3, max_new_tokens=1, progress=False))
    assert capfd.readouterr().err == ""


def test_errors_name_the_pair(model, tmp_path):
    def ask(pairs, **options):
        return list(model.ask_many(pairs, progress=False, **options))

    with helpful(ImageError, "Pair 2: ", "nowhere.png"):
        ask([(ONE, "What?"), (tmp_path / "nowhere.png", "What?")])
    with helpful(PromptError, "Pair 1: ", "empty"):
        ask([(ONE, " ")])
    with helpful(PromptError, "Pair 1 is 'What?'"):
        ask(["What?"])
    with helpful(PromptError, "Pair 3: ", f"{CONTEXT:,}"):
        ask([(None, "a"), (None, "b"), (None, "word " * 3000)])
    with helpful(PromptError, "at_once"):
        ask([(ONE, "What?")], at_once=0)
    with helpful(PromptError, "look_up"):
        ask([(ONE, "What?")], look_up=True)


def test_a_seed_makes_it_repeatable(model):
    options = {"progress": False, "temperature": 1.0, "seed": 4, "max_new_tokens": 6}
    pairs = random_pairs(5)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert list(model.ask_many(pairs, **options)) == list(model.ask_many(pairs, **options))
    assert torch.equal(before, torch.get_rng_state())
