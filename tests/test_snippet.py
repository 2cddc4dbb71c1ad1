"""What "Copy as code" gives: it is run here, in a namespace of its own, and must give the form's answer."""

import ast
import io
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from random_model import random_folder

import phi3v_helpers as p3v
from phi3v_helpers.vision import Phi3Vision
from phi3v_helpers.widgets import snippet
from phi3v_helpers.widgets.tray import Tray, add_all

ODD = {
    "quotes": 'What does "it\'s" mean? """ \'\'\'',
    "lines": "One\ntwo\r\nthree\ttabbed\n",
    "backslashes": "C:\\new\\table \\ \\n \\u0041 \\",
    "emoji": "What is 😀 doing? ä ß 一",
    "separators": "One\u2028two\u2029three\x85four",
    "invisible": "a\x00b\x1b\x7f\u200b\ufeff\u202ec",
    "braces": "{0} {x!r} %s %(x)s $x",
    "tags": "<|end|> <|user|> </s>",
    "comment": "# no comment; import os",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def picture(colour="red"):
    return Image.new("RGB", (40, 30), colour)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def run(code, **given):
    """Run code as a new cell would; returns its names, and the value of its last line as "value"."""
    code.encode("utf-8")  # a clipboard must be able to hold it
    assert all(len(line) < 200 for line in code.splitlines() if "\\" not in line)
    *body, last = ast.parse(code).body
    names = dict(given)
    exec(compile(ast.Module(body, []), "a cell", "exec"), names)
    assert isinstance(last, ast.Expr)
    names["value"] = eval(compile(ast.Expression(last.value), "a cell", "eval"), names)
    return names


# --- one question ---


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", ["sample", "path", "upload", "given"])
def test_a_question_about_pictures(model, count, kind, capsys):
    sources = ["shapes_1", "shapes_2"]
    if kind == "path":
        sources = []
        for name in ("it's red.png", "blue.png"):
            picture(name[:-4].split()[-1]).save(name)
            sources.append(Path(name))
    if kind in ("upload", "given"):
        sources = [picture("red"), picture("blue")]
    if kind == "upload":
        sources = [encoded(image) for image in sources]
    tray = add_all(Tray(), sources[:count] or None)
    expected = model.ask(tray.images or None, "What is this?", max_new_tokens=6)
    code = snippet.ask_code(model, tray.as_code(), "What is this?", {"max_new_tokens": 6})
    assert run(code)["value"] == expected
    assert "phi3v" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("name", ODD)
def test_odd_questions_and_system_texts(model, name):
    text = ODD[name]
    options = {"system": text, "max_new_tokens": 6}
    code = snippet.ask_code(model, [], text, options)
    answer = run(code)["answer"]
    expected = model.ask(None, text, **options)
    assert answer == expected and answer.prompt_tokens == expected.prompt_tokens
    assert text in [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert all(char.isprintable() or char == "\n" for char in code)


def test_half_an_emoji(model):
    """A lone surrogate cannot be written to a file or sent to a page: it stands in the code as an escape."""
    code = snippet.ask_code(model, [], "half \ud83d", {"max_new_tokens": 2})
    code.encode("utf-8")
    assert "half \ud83d" in [
        node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)
    ]


def test_settings(model):
    options = {"max_new_tokens": 20, "temperature": 0.7, "seed": 42, "num_crops": 1, "system": "Be brief."}
    expected = model.ask(picture(), "What is this?", **options)
    tray = add_all(Tray(), picture())
    code = snippet.ask_code(model, tray.as_code(), "What is this?", options)
    assert run(code)["value"] == expected
    assert expected != model.ask(picture(), "What is this?", **{**options, "temperature": 0.0})
    assert expected != model.ask(picture(), "What is this?", **{**options, "seed": 43})
    assert max(len(line) for line in code.splitlines()) <= 100


def test_what_is_not_chosen_is_not_written(model):
    code = snippet.ask_code(model, [], "What?", {"max_new_tokens": 6, "num_crops": None})
    assert code.splitlines()[-2:] == ['answer = model.ask(None, "What?", max_new_tokens=6)', "answer"]


def test_the_code_reads_well():
    model = p3v.load("tiny", verbose=False)
    code = snippet.ask_code(model, ['p3v.samples["shapes_1"]', "'a.png'"], "What?", {"max_new_tokens": 500})
    assert code == (
        "import phi3v_helpers as p3v\n"
        "\n"
        'model = p3v.load("tiny")\n'
        "pictures = [\n"
        '    p3v.samples["shapes_1"],\n'
        "    'a.png',\n"
        "]\n"
        'answer = model.ask(pictures, "What?", max_new_tokens=500)\n'
        "answer"
    )


# --- a conversation ---


def talk(model, turns, system=None, **options):
    """turns: list of (pictures added before, question). Returns the Chat, its tray and counts as a form has them."""
    tray = Tray()
    chat = model.chat(None, system)
    for added, question in turns:
        add_all(tray, added)
        if added:
            chat.add(added)
        chat.ask(question, **options)
    return chat, tray


@pytest.mark.parametrize(
    "turns",
    [
        [(["shapes_1"], "What is this?")],
        [([], "Who are you?"), ([], "And now?")],
        [(["red"], "What is this?"), ([], "And its colour?"), (["blue", "green"], "Which differs?")],
        [([], "Hello."), (["red"], "What is this?"), ([], ODD["quotes"]), (["red"], ODD["lines"])],
    ],
)
def test_a_chat_with_pictures_added_on_the_way(model, turns):
    turns = [([p3v.samples[n] if n in p3v.samples else picture(n) for n in names], q) for names, q in turns]
    chat, tray = talk(model, turns, "Be brief.", max_new_tokens=6)
    questions = [question for _, question in turns]
    code = snippet.chat_code(
        model, tray.as_code(), chat.image_counts, questions, "Be brief.", {"max_new_tokens": 6}
    )
    names = run(code)
    assert names["chat"].history == chat.history
    assert names["chat"].image_counts == chat.image_counts
    assert names["value"] == chat.history[-1][1]
    assert names["chat"].prompt("And?") == chat.prompt("And?")


def test_a_chat_with_pictures_that_wait_for_the_next_question(model):
    chat, tray = talk(model, [([picture()], "What?")], max_new_tokens=4)
    add_all(tray, [picture("blue")])
    chat.add(picture("blue"))
    code = snippet.chat_code(model, tray.as_code(), [1], ["What?"], None, {"max_new_tokens": 4})
    names = run(code)
    assert names["chat"].ask("Now?", max_new_tokens=4) == chat.ask("Now?", max_new_tokens=4)
    assert names["chat"].image_counts == chat.image_counts == [1, 1]


@pytest.mark.parametrize("pictures", [[], [picture()], [picture(), picture("blue")]])
def test_a_chat_in_which_nothing_was_asked(model, pictures):
    tray = add_all(Tray(), pictures or None)
    names = run(snippet.chat_code(model, tray.as_code(), [], [], None, {}))
    assert names["value"] is names["chat"]
    assert names["chat"].prompt("What?") == model.chat(pictures or None).prompt("What?")


# --- two questions ---


def test_a_comparison(model, capsys):
    add_all(Tray(), picture()).as_code()
    red, blue = "'phi3v-pictures/picture-of-40-x-30.png'", 'p3v.samples["shapes_1"]'
    images = {red: picture(), blue: p3v.samples["shapes_1"]}
    options = {"max_new_tokens": 6}
    for sides in (
        [([red], "What?", options), ([blue], "What?", options)],
        [([red], "What?", options), ([red], ODD["quotes"], options)],
        [([red, blue], "What?", options), ([red, blue], "What?", {"temperature": 1.0, "seed": 1, **options})],
        [([], "What?", options), ([], "Why?", options)],
    ):
        names = run(snippet.compare_code([model], sides))
        for side, (pictures, question, chosen) in zip(("left", "right"), sides):
            assert names[side] == model.ask([images[p] for p in pictures] or None, question, **chosen)
            assert names[side] in capsys.readouterr().out or side == "right"


def test_a_comparison_of_models(model):
    own = Phi3Vision(model.model, model.processor, "own", lock=model.lock)
    sides = [(['p3v.samples["shapes_1"]'], "What?", {"max_new_tokens": 4})] * 2
    code = snippet.compare_code([model, own], sides)
    assert "# other: as you made it yourself" in code
    names = run(code, other=own)
    assert names["left"] == names["right"] and names["right"].model == "own"
    tiny = p3v.load("tiny", verbose=False)
    names = run(snippet.compare_code([model, tiny], sides))
    assert (names["left"].model, names["right"].model) == (model.name, tiny.name)


# --- the model ---


@pytest.mark.parametrize(
    "name, options, code",
    [
        ("tiny", {}, 'p3v.load("tiny")'),
        ("tiny", {"num_crops": 2}, 'p3v.load("tiny", num_crops=2)'),
        ("tiny", {"dtype": "bf16"}, 'p3v.load("tiny", dtype="bf16")'),
        ("tiny", {"dtype": torch.float16}, 'p3v.load("tiny", dtype="float16")'),
        (
            "tiny",
            {"device": torch.device("cpu"), "attention": "eager"},
            'p3v.load("tiny", device="cpu", attention="eager")',
        ),
    ],
)
def test_how_a_model_is_loaded(name, options, code):
    model = p3v.load(name, verbose=False, **options)
    assert snippet.load_code(model) == f"model = {code}"
    again = run(f"import phi3v_helpers as p3v\n{snippet.load_code(model)}\nmodel")["value"]
    assert (again.name, again.device, again.dtype, again.attention) == (
        model.name,
        model.device,
        model.dtype,
        model.attention,
    )


def test_a_folder(tmp_path):
    odd = tmp_path / "my \"models'"
    odd.symlink_to(random_folder())
    for source in (odd, str(odd), os.path.relpath(odd)):
        model = p3v.load(source, verbose=False)
        again = run(f"import phi3v_helpers as p3v\n{snippet.load_code(model)}\nmodel")["value"]
        assert again.name == model.name


def test_what_auto_took_is_named(monkeypatch):
    monkeypatch.setenv("PHI3V_MODEL", "tiny")
    assert snippet.load_code(p3v.load(verbose=False)) == 'model = p3v.load("tiny")'


def test_a_model_of_ones_own(model):
    own = Phi3Vision(model.model, model.processor, "own", lock=model.lock)
    code = snippet.ask_code(own, [], "What?", {"max_new_tokens": 3})
    assert "# model: as you made it yourself" in code
    assert run(code, model=own)["value"] == model.ask(None, "What?", max_new_tokens=3)
