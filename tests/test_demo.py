"""`make demo`: the three questions. What the tiny model answers to them is checked where it is trained."""

import subprocess
import sys

from random_model import random_folder

import phi3v_helpers as p3v
from phi3v_helpers import cli
from phi3v_helpers.demo import QUESTIONS


def test_the_questions_of_the_seed():
    assert QUESTIONS == (
        (("stock_chart",), "Could you please introduce this stock to me?"),
        (("book_cover",), "Help me get the title and author information of this book?"),
        (("shapes_1", "shapes_2"), "What is difference in this two images?"),
    )


def test_it_prints_question_answer_model_tokens_and_seconds(capsys):
    model = p3v.load(random_folder(), verbose=False)
    answers = p3v.demo(model)
    assert len(answers) == 3
    out = capsys.readouterr().out
    for (names, question), answer in zip(QUESTIONS, answers, strict=True):
        pictures = ", ".join(p3v.samples.path(name).name for name in names)
        assert f"[{pictures}] {question}\n{answer}\n  {answer.summary()}\n" in out


def test_the_tiny_model_answers(capsys):
    answers = p3v.demo("tiny")
    assert [answer.model for answer in answers] == ["tiny phi3v (embedded)"] * 3
    assert all(answer.finished and answer.seconds < 30 for answer in answers)
    assert capsys.readouterr().out.startswith("Phi3Vision: tiny phi3v (embedded)")


def test_the_command():
    command = [sys.executable, "-m", "phi3v_helpers", "demo", "--model", str(random_folder())]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert all(question in process.stdout for _, question in QUESTIONS)


def test_errors_are_told_without_a_traceback(capsys):
    assert cli.main(["demo", "--model", "no-such-model"]) == 1
    assert capsys.readouterr().err.startswith("phi3v: There is no model 'no-such-model'.")
