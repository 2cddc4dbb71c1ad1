"""Prompts, tags and pictures: equal to the original where it was right, clear errors where it was not."""

import json

import numpy as np
import pytest
import torch
from model_goldens import GOLDEN, formula_image, real_folder
from PIL import Image
from random_model import make_tokenizer
from transformers import AutoProcessor

from phi3v_helpers.model import Phi3VImageProcessor, Phi3VProcessor

PROMPTS = json.loads((GOLDEN / "prompts" / "prompts.json").read_text())
ONE = "<|user|>\n<|image_1|>\nWhat is it?<|end|>\n<|assistant|>\n"
TWO = "<|user|>\n<|image_1|>\n<|image_2|>\nWhat differs?<|end|>\n<|assistant|>\n"
SWAPPED = "<|user|>\n<|image_2|>\n<|image_1|>\nWhat differs?<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def real():
    return AutoProcessor.from_pretrained(real_folder() / "Phi-3-vision-128k-instruct")


@pytest.fixture(scope="module")
def processor():
    return Phi3VProcessor(Phi3VImageProcessor(num_crops=1, num_img_tokens=16), make_tokenizer())


@pytest.fixture(scope="module")
def pictures():
    return [formula_image(300, 200, 1), formula_image(90, 200, 2), formula_image(50, 50, 3)]


@pytest.mark.parametrize("case", PROMPTS["cases"], ids=lambda case: repr(case["text"][:40]))
def test_prompt_goldens(real, case):
    images = [Image.new("RGB", tuple(size)) for size in case["image_sizes_wh"]] or None
    out = real(case["text"], images, num_crops=case["num_crops"], return_tensors="pt")
    assert sorted(out) == case["keys"]
    wanted = [32044 if i < 0 else i for i, count in case["input_ids_rle"] for _ in range(count)]
    assert out["input_ids"].tolist() == [wanted]
    assert len(wanted) == case["num_tokens"]
    assert out["attention_mask"].tolist() == [[1] * len(wanted)]
    assert out["input_ids"].dtype == torch.int64


@pytest.mark.parametrize("case", PROMPTS["errors"], ids=lambda case: case["text"][9:40])
def test_what_the_original_refused_is_refused(processor, case):
    images = [Image.new("RGB", tuple(size)) for size in case["image_sizes_wh"]]
    with pytest.raises(ValueError, match="needs"):
        processor(case["text"], images)


@pytest.mark.parametrize("case", PROMPTS["chat_template"], ids=lambda case: case["text"][-30:])
def test_chat_template_goldens(processor, case):
    text = processor.apply_chat_template(
        case["messages"], add_generation_prompt=case["add_generation_prompt"], tokenize=False
    )
    assert text == case["text"]


def test_chat_template_with_picture_parts(processor, pictures):
    question = {"type": "text", "text": "What differs?"}
    parts = [{"type": "image", "image": pictures[0]}, {"type": "image", "image": pictures[1]}, question]
    chat = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": parts}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "<|system|>\nBe terse.<|end|>\n" + TWO
    plain = processor(text, pictures[:2])
    for conversation, rows in ((chat, 1), ([chat, chat], 2)):
        out = processor.apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        for key in plain:
            assert torch.equal(out[key], torch.cat([plain[key]] * rows)), key


def test_chat_template_counts_pictures_through_the_turns(processor):
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "First?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "<|image_2|>\nAnd this?"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And that?"}]},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert [f"<|image_{n}|>\n" in text for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert text.endswith("<|image_3|>\nAnd that?<|end|>\n<|assistant|>\n")


def test_chat_template_can_continue_an_answer(processor):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The title is"}]
    text = processor.apply_chat_template(chat, continue_final_message=True)
    assert text == "<|user|>\nHi<|end|>\n<|assistant|>\nThe title is"


def test_each_piece_of_a_prompt_has_its_own_beginning(processor, pictures):
    out = processor("<|image_1|>", pictures[0])
    bos, image = processor.tokenizer.bos_token_id, processor.image_token_id
    assert out["input_ids"].tolist() == [[bos] + [image] * (2 * 16 + 1 + 2 * 4) + [bos]]
    assert out["image_sizes"].tolist() == [[336, 336]]


def test_pictures_follow_the_numbers_of_their_tags(processor, pictures):
    out, swapped = processor(TWO, pictures[:2]), processor(SWAPPED, pictures[:2])
    assert torch.equal(swapped["pixel_values"], out["pixel_values"].flip(0))
    assert torch.equal(swapped["pixel_values"], processor(TWO, pictures[1::-1])["pixel_values"])


def test_pictures_of_different_size_keep_their_token_counts(processor):
    wide, tall = formula_image(700, 100), formula_image(100, 700)
    out = processor(SWAPPED, [wide, tall], num_crops=4)
    assert out["image_sizes"].tolist() == [[4 * 336, 336], [336, 4 * 336]]
    runs = [len(run) for run in runs_of(out["input_ids"][0].tolist(), processor.image_token_id)]
    assert runs == [5 * 16 + 1 + 5 * 4, 5 * 16 + 1 + 2 * 4]


def runs_of(ids, token):
    text = "".join("x" if i == token else " " for i in ids)
    return text.split()


def test_a_batch_is_padded_on_the_left(processor, pictures):
    prompts = [ONE, "<|user|>\nHello<|end|>\n<|assistant|>\n", TWO]
    images = [pictures[:1], [], pictures[1:]]
    out = processor(prompts, images, return_tensors="pt")
    assert len(out["pixel_values"]) == 3
    for row, prompt in enumerate(prompts):
        alone = processor(prompt, images[row] or None)["input_ids"][0]
        assert torch.equal(out["input_ids"][row, -len(alone) :], alone)
        assert out["attention_mask"][row].sum() == len(alone)
        assert (out["attention_mask"][row, -len(alone) :] == 1).all()
    flat = processor(prompts, pictures)
    assert all(torch.equal(flat[key], out[key]) for key in out)


def test_padding_can_be_left_to_the_caller(processor, pictures):
    prompts = [ONE, "Hello"]
    lists = processor(prompts, [pictures[:1], None], padding=False, return_tensors=None)
    assert [len(row) for row in lists["input_ids"]] == [len(row) for row in lists["attention_mask"]]
    with pytest.raises(ValueError, match="padding=True"):
        processor(prompts, [pictures[:1], None], padding=False)
    processor.tokenizer.padding_side = "right"
    try:
        assert processor(prompts, [pictures[:1], None])["attention_mask"][1, 0] == 1
    finally:
        processor.tokenizer.padding_side = "left"


@pytest.mark.parametrize(
    ("prompt", "count", "says"),
    [
        ("Hello", 1, r"has 0 image tags \(none\) for 1 picture. It needs <\|image_1\|>"),
        (ONE, 0, "has 1 image tag .* for 0 pictures. Pass images, or take the tags out"),
        (ONE, 2, "has 1 image tag .* for 2 pictures"),
        (ONE.replace("_1", "_2"), 1, r"has the image tags <\|image_2\|> for 1 picture"),
        (ONE.replace("_1", "_0"), 1, r"<\|image_0\|>"),
        (TWO.replace("_2", "_3"), 2, r"<\|image_1\|>, <\|image_3\|> for 2 pictures"),
        (TWO.replace("_2", "_1"), 2, r"<\|image_1\|> appears more than once"),
        (TWO.replace("_2", "_1"), 1, r"<\|image_1\|> appears more than once"),
        ("<|image|>\nWhat?", 1, "is not for prompts"),
    ],
)
def test_tags_that_do_not_fit(processor, pictures, prompt, count, says):
    with pytest.raises(ValueError, match=says):
        processor(prompt, pictures[:count] or None)
    with pytest.raises(ValueError):
        processor([prompt, "Hello"], [pictures[:count], []])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"text": None}, "no prompt"),
        ({"text": []}, "no prompt"),
        ({"text": [ONE, 3]}, "no prompt"),
        ({"text": [ONE, ONE], "images": [["x"]]}, "1 list of pictures"),
        ({"text": [ONE, ONE], "images": [np.zeros((9, 9, 3), np.uint8)]}, "tags for 2 pictures, and 1 came"),
        ({"text": "Hi", "truncation": True}, "truncation"),
        ({"text": "Hi", "videos": [1]}, "videos"),
    ],
)
def test_arguments_that_cannot_be(processor, arguments, says):
    with pytest.raises(ValueError, match=says):
        processor(**arguments)


def test_num_crops_by_every_way(processor, pictures, tmp_path):
    processor.save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).image_processor.num_crops == 1
    loaded = AutoProcessor.from_pretrained(tmp_path, num_crops=3)
    assert loaded(ONE, pictures[0])["pixel_values"].shape[1] == 4
    assert loaded(ONE, pictures[0], num_crops=2)["pixel_values"].shape[1] == 3
    assert loaded(ONE, pictures[0], images_kwargs={"num_crops": 2})["pixel_values"].shape[1] == 3


def test_saved_files_are_the_published_ones(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "Phi3VImageProcessor"
    assert (saved["num_crops"], saved["num_img_tokens"]) == (1, 16)
    assert json.loads((tmp_path / "processor_config.json").read_text()) == {
        "processor_class": "Phi3VProcessor"
    }
    assert "<|image_" in (tmp_path / "chat_template.jinja").read_text()
