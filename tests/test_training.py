"""The code that draws and trains: what it must agree on with the processor, and that it resumes."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from phi3v_helpers import build_prompt
from phi3v_helpers.model import Phi3VForCausalLM, Phi3VProcessor
from training import data, pictures, questions, samples, sight, words
from training.canvas import CHARS, COLOURS, KINDS, NOWHERE, TOKENS, Canvas
from training.schedule import Schedule, load, save
from training.shape import model_config
from training.tokenizer import build
from training.train_tongue import thin

ROOT = Path(__file__).parents[1]
TINY = ROOT / "phi3v_helpers" / "tiny"
KINDS_OF_PICTURE = list(pictures.DRAW)


@pytest.fixture(scope="module")
def tokenizer():
    return build()


@pytest.fixture(scope="module")
def processor():
    return Phi3VProcessor.from_pretrained(TINY)


def draw(kind, seed, **look):
    return pictures.DRAW[kind](random.Random(seed), pictures.Look(**look))


# Pictures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS_OF_PICTURE)
def test_pictures_repeat_with_their_seed(kind):
    one, two, other = draw(kind, 5), draw(kind, 5), draw(kind, 6)
    assert one.facts == two.facts and one.image.tobytes() == two.image.tobytes()
    assert one.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("kind", ["scene", "chart", "book", "page"])
def test_labels_do_not_need_pixels(kind):
    with_pixels, without = draw(kind, 9), draw(kind, 9, render=False)
    assert without.image is None and with_pixels.facts == without.facts
    assert (sight.labels(with_pixels.canvas) == sight.labels(without.canvas)).all()


def test_labels_say_what_is_drawn_where():
    canvas = Canvas(336, 336, (255, 255, 255))
    canvas.text(100, 60, "Q7", "LiberationSans-Bold.ttf", 30, (0, 0, 0), "left")
    canvas.shape("star", "green", 250, 250, 40, (0, 160, 0))
    rows, columns = np.nonzero(canvas.chars)
    assert [CHARS[canvas.chars[r, c] - 1] for r, c in zip(rows, columns)] == ["Q", "7"]
    ink = np.argwhere(np.asarray(canvas.image.convert("L"))[:100] < 128)
    assert (
        abs(ink[:, 0].mean() - (rows[0] + 0.5) * 12) < 12
        and ink[:, 1].min() < columns[0] * 8 + 8 < ink[:, 1].max()
    )
    assert (
        canvas.kinds[20, 20] == KINDS.index("star") + 1
        and canvas.colours[20, 20] == list(COLOURS).index("green") + 1
    )
    assert canvas.kinds[5, 5] == 0


def test_a_chart_has_one_highest_and_one_lowest_year():
    for seed in range(200):
        values = pictures.random_chart(random.Random(seed))["values"]
        assert len(set(values)) == len(values) >= 3


def test_word_lists_are_large_enough_and_clean():
    assert (
        len(set(words.TITLE_WORDS)) >= 300
        and len(set(words.FIRST_NAMES)) >= 80
        and len(set(words.LAST_NAMES)) >= 80
    )
    for group in (words.TITLE_WORDS, words.FIRST_NAMES, words.LAST_NAMES, words.COMPANIES):
        assert len(set(group)) == len(group) and all(word.isalpha() and word.istitle() for word in group)


def test_every_font_has_its_licence():
    folder = ROOT / "training" / "fonts"
    told = (folder / "README.md").read_text(encoding="utf-8")
    fonts = [path.name for path in folder.iterdir() if path.suffix in (".ttf", ".otf")]
    assert len(fonts) >= 10 and all(name in told for name in fonts)


def test_shipped_samples_are_what_the_script_draws(tmp_path):
    samples.draw_all(tmp_path)
    shipped = ROOT / "phi3v_helpers" / "samples"
    assert json.loads((tmp_path / "samples.json").read_text()) == json.loads(
        (shipped / "samples.json").read_text()
    )
    from PIL import Image

    for drawn in tmp_path.glob("*.png"):
        one, two = (
            np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (drawn, shipped / drawn.name)
        )
        assert one.shape == two.shape and abs(one - two).mean() < 1


# What training and processor must agree on ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS_OF_PICTURE)
@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_frame_is_what_the_processor_makes(kind, scale, processor):
    for seed in range(4):
        image = draw(kind, seed, scale=scale).image
        pixel_values = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        ours = sight.normalise(torch.from_numpy(sight.frame(image))[None])[0]
        # One grey level: a tall picture is resized lying down, and Pillow rounds between its two passes.
        torch.testing.assert_close(pixel_values[1], ours, atol=1.02 / 255 / 0.26, rtol=0)
        torch.testing.assert_close(
            pixel_values[0], pixel_values[1]
        )  # with one crop, the global view is the crop


@pytest.mark.parametrize("n_images", [1, 2])
def test_training_ids_are_the_ids_of_the_processor(n_images, tokenizer, processor):
    scene = draw("scene", 1)
    turns = [
        ("What do you see?", 'The title is "ALONE".'),
        ("Who wrote this book?", "The author is Nora Winter."),
    ]
    tags = "".join(f"<|image_{i + 1}|>\n" for i in range(n_images))
    prompt = f"<|user|>\n{tags}{turns[0][0]}<|end|>\n<|assistant|>\n{turns[0][1]}<|end|>\n"
    prompt += f"<|user|>\n{turns[1][0]}<|end|>\n<|assistant|>\n"
    ids, labels, spots = data.Writer(tokenizer).write(turns, [scene] * n_images, 1000)
    assert len(ids) == len(labels) == len(spots)
    expected = processor(prompt, [scene.image] * n_images, return_tensors="pt")["input_ids"][0].tolist()
    answer = tokenizer(turns[1][1] + "<|end|>", add_special_tokens=False)["input_ids"]
    assert ids == expected + answer
    said = [i for i in labels if i != data.IGNORE]
    assert tokenizer.decode(said) == "".join(answer + "<|end|>" for _, answer in turns)


def test_answers_know_where_they_were_read():
    """The spot of every letter is the image token whose cells hold that letter."""
    one, two = draw("book", 4), draw("book", 5)
    answer = questions.tell_both(one, two)
    spots = data.where_read(answer, [one, two])
    assert sum(spot != NOWHERE for spot in spots) > 20
    for char, spot in zip(answer, spots):
        if spot != NOWHERE:
            row, column = divmod(spot % TOKENS**2, TOKENS)
            chars = (one, two)[spot // TOKENS**2].canvas.chars
            h, w = chars.shape[0] // TOKENS, chars.shape[1] // TOKENS
            assert CHARS.index(char) + 1 in chars[h * row : h * row + h, w * column : w * column + w]


def test_answers_know_where_the_shapes_are():
    scene = draw("scene", 1)
    answer = questions.tell(scene)
    spots = data.where_read(answer, [scene])
    for cell, colour, kind in scene.facts["shapes"]:
        words = f"{colour} {kind} {pictures.PLACES[cell]}"
        spot = spots[answer.index(words)]
        row, column = divmod(spot, TOKENS)
        grid = scene.canvas.kinds
        size = grid.shape[0] // TOKENS
        near = grid[size * row : size * (row + 1), size * column : size * (column + 1)]
        assert KINDS.index(kind) + 1 in near, "the middle of the shape"


def test_a_picture_that_comes_with_the_second_question(tokenizer, processor):
    one, two = draw("scene", 1), draw("scene", 2)
    turns = [("One?", "A first answer."), ("And this?", "A second one.")]
    ids, labels, _ = data.Writer(tokenizer).write(turns, [one, two], 1000, late=True)
    prompt = build_prompt("And this?", [1, 1], history=turns[:1])
    # "<|end|>" and what follows it are written by the chat format, not by the model
    expected = processor(prompt, [one.image, two.image], return_tensors="pt")["input_ids"][0].tolist()
    assert ids[: len(expected)] == expected
    assert (
        tokenizer.decode([i for i in labels if i != data.IGNORE])
        == "A first answer.<|end|>A second one.<|end|>"
    )


def test_every_row_holds_all_its_pictures(tokenizer, monkeypatch):
    """Also where there is no room left for the second question and the picture that comes with it."""
    monkeypatch.setattr(data, "LATE", 1.0)
    writer, rng = data.Writer(tokenizer), random.Random(0)
    for room in (2 * data.IMAGE_TOKENS + 20, 2 * data.IMAGE_TOKENS + 60, 1000):
        for _ in range(10):
            ids, _, _, tables, _ = data.example(rng, writer, True, room, False)
            assert ids.count(writer.image) == len(tables) * data.IMAGE_TOKENS


@pytest.mark.parametrize("luck, left", [(0.0, "global"), (0.5, "crop"), (0.99, "both")])
def test_one_view_of_each_picture_is_left_out(luck, left):
    n, crop = data.IMAGE_TOKENS, TOKENS * (TOKENS + 1)
    is_image = torch.zeros(2, 2 * n + 30, dtype=torch.bool)
    is_image[0, 5 : 5 + n] = is_image[0, 10 + n : 10 + 2 * n] = True
    is_image[1, 3 : 3 + n] = is_image[1, 20 + n : 20 + 2 * n] = True
    kept = thin(is_image, luck)
    assert kept[~is_image].all() and kept.sum(1).tolist() == [kept[0].sum().item()] * 2
    first = kept[0, 5 : 5 + n]
    wanted = {"global": (0, 0, crop), "crop": (crop, 0, 0), "both": (crop, 1, crop)}[left]
    assert (first[:crop].sum(), first[crop], first[crop + 1 :].sum()) == wanted


def test_shipped_tokenizer_and_config_are_those_of_the_code(tokenizer, processor):
    assert processor.tokenizer.get_vocab() == tokenizer.get_vocab()
    ours, shipped = model_config(tokenizer).to_dict(), json.loads((TINY / "config.json").read_text())
    for key in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "rope_scaling",
        "image_token_id",
        "eos_token_id",
    ):
        assert ours[key] == shipped[key], key


@pytest.mark.parametrize(
    "text", ["What is 12.5 % of ALONE?", "naïve 你好 😀", "  two  spaces\n\tand a tab ", "Zephyr's"]
)
def test_tokenizer_loses_nothing(text, tokenizer):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text


def test_names_and_numbers_are_spelled(tokenizer):
    ids = tokenizer(' "Golden River" 2024', add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *'Ġ" G o l d e n Ġ R i v e r "'.split(),
        *"Ġ 2 0 2 4".split(),
    ]


# Questions and answers -----------------------------------------------------------------------------------------------


def picture(kind, **facts):
    return pictures.Picture(kind, facts, None)


def test_whole_answers():
    chart = picture("chart", title="Nova sales", years=[2019, 2020, 2021], values=[12, 9, 30])
    assert questions.tell(chart) == (
        'The chart "Nova sales" shows 2019: 12, 2020: 9, 2021: 30. '
        "The highest value is 30 in 2021 and the lowest value is 9 in 2020."
    )
    book = picture("book", title="ALONE", author="Nora Winter")
    assert questions.tell(book) == 'The title of the book is "ALONE" and the author is Nora Winter.'
    scene = picture("scene", shapes=[(0, "red", "circle"), (4, "orange", "star")])
    assert (
        questions.tell(scene)
        == "There are two shapes: a red circle at the top left and an orange star in the centre."
    )


def test_comparisons():
    one = picture("scene", shapes=[(0, "red", "circle")])
    two = picture("scene", shapes=[(0, "blue", "circle")])
    assert (
        questions.tell_both(one, one)
        == "The first image shows a red circle at the top left, while the second image shows a red circle at the "
        "top left. There is no difference."
    )
    three = picture("scene", shapes=[(1, "red", "star"), (3, "pink", "cross")])
    assert questions.tell_both(one, three).endswith("on the left. The difference: the shapes.")
    sales = {"title": "Nova sales", "years": [2019, 2020], "values": [12, 9]}
    chart = picture("chart", **sales)
    changed = picture("chart", **sales | {"values": [12, 8]})
    assert questions.tell_both(chart, changed).endswith(
        "The difference: the value for 2020 is 9 in the first and 8 in the second."
    )
    other = picture("chart", title="Juno users", years=[2001, 2002], values=[5, 6])
    assert questions.tell_both(chart, other).endswith("The difference: the title; the years; the values.")
    assert questions.tell_both(one, two).endswith(
        "The difference: at the top left there is a red circle in the first and a blue circle in the second."
    )
    book = picture("book", title="ALONE", author="Nora Winter")
    assert questions.tell_both(one, book).endswith(
        "The difference: the first shows shapes and the second a book cover."
    )


def test_a_changed_picture_differs_in_one_thing():
    for seed in range(60):
        rng = random.Random(seed)
        for kind in ("scene", "chart", "book"):
            one = pictures.DRAW[kind](rng, pictures.Look(render=False))
            two = pictures.change(rng, one, pictures.Look(render=False))
            found = questions.differences(one, two)
            assert len(found) <= (2 if kind == "scene" else 1), (
                found
            )  # a shape that moves leaves one place for another


def test_the_seeds_own_questions_are_taught():
    assert questions.ASK["chart"][0] == "Could you please introduce this stock to me?"
    assert questions.ASK["book"][0] == "Help me get the title and author information of this book?"
    assert questions.ASK["compare"][0] == "What is difference in this two images?"


def test_details_agree_with_the_picture():
    shapes = [(0, "red", "circle"), (4, "red", "star")]
    said = dict(
        pair
        for seed in range(300)
        for pair in questions.dialogue(random.Random(seed), picture("scene", shapes=shapes), 4, 0)
    )
    assert said["What is in the centre?"] == "A red star is in the centre."
    assert said["What is at the top?"] == "Nothing is at the top."
    assert said["How many red shapes are there?"] == "There are two red shapes."
    assert said["What colour is the star?"] == "The star is red."


# Training ------------------------------------------------------------------------------------------------------------


def test_rate_rises_falls_and_goes_on_after_a_stop():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight], lr=1.0)

    def rate(spent):
        Schedule(optimiser, peak=1.0, minutes=10, spent=spent).step()
        return optimiser.param_groups[0]["lr"]

    assert rate(1) < rate(12) > rate(300) > rate(590) > 0
    assert Schedule(optimiser, 1.0, minutes=10, spent=600).done()


def test_a_checkpoint_holds_all_that_is_needed(tmp_path):
    layer = torch.nn.Linear(3, 3)
    save(tmp_path / "a.pt", layer=layer, step=7)
    twin = torch.nn.Linear(3, 3)
    assert load(tmp_path / "a.pt", layer=twin)["step"] == 7
    assert torch.equal(layer.weight, twin.weight) and not list(tmp_path.glob("*.part"))
    assert load(tmp_path / "missing.pt") == {}


def test_the_three_stages_run_resume_and_export(tmp_path):
    """Seconds of real training: it learns nothing, but every file of it is written, read and continued."""
    command = [sys.executable, "-m", "training", "--runs", tmp_path / "runs", "--folder", tmp_path / "tiny"]
    command += ["--batch", "2", "--n", "1"]
    new = ("--further", "--runs", str(tmp_path / "new"))
    for options in (["0.4"], ["0.45"], ["0.05", *new]):  # begin, go on, go on from the finished folder alone
        line = [*map(str, command), "--minutes", *options]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    scores = json.loads(done.stdout.splitlines()[-1])
    assert {"chart", "book", "scene", "compare"} <= set(scores)
    model = Phi3VForCausalLM.from_pretrained(tmp_path / "tiny")
    assert model.config.vision_config.patch_size == 24
