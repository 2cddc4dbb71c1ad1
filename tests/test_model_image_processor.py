"""The image processor equals the original, bit for bit."""

import hashlib
import json

import numpy as np
import pytest
import torch
from model_goldens import GOLDEN, formula_image
from PIL import Image

from phi3v_helpers.model import Phi3VImageProcessor

GOLDENS = json.loads((GOLDEN / "processor" / "cases.json").read_text())
CASES = {case["id"]: case for case in GOLDENS["cases"]}
GRID = GOLDENS["grid8"]


def pictures_of(case):
    return [formula_image(*image["formula"], mode=image["mode"]) for image in case["images"]]


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize("name", CASES)
def test_goldens(name):
    case, samples = CASES[name], np.load(GOLDEN / "processor" / "samples.npz")
    pictures = pictures_of(case)
    processor = Phi3VImageProcessor(num_crops=case["num_crops"])
    out = processor(pictures, return_tensors="pt")
    assert list(out["pixel_values"].shape) == case["pixel_values_shape"]
    assert out["pixel_values"].dtype == torch.float32
    assert out["image_sizes"].tolist() == case["image_sizes"]
    assert list(out["num_img_tokens"]) == case["num_img_tokens"]
    for index, (picture, golden) in enumerate(zip(pictures, case["per_image"])):
        assert sha256(np.asarray(picture.convert("RGB"))) == golden["input_rgb_sha256"]
        count = 1 + golden["n_local_crops"]
        pixels = out["pixel_values"][index]
        assert sha256(bytes_of(pixels[1:count])) == golden["local_crops_u8_sha256"]
        assert (
            sha256(np.asarray(processor._fit_to_grid(picture.convert("RGB"), case["num_crops"])))
            == (golden["hd_u8_sha256"])
        )
        assert (
            np.abs(
                pixels[:count][:, :, GRID][:, :, :, GRID].numpy() - samples[f"{name}__{index}__samples"]
            ).max()
            == 0
        )
        assert np.abs(pixels[0, :, ::21, ::21].numpy() - samples[f"{name}__{index}__global16"]).max() == 0
        assert (pixels[count:] == 0).all()
        assert processor.num_image_tokens(*picture.size) == golden_tokens(case, index)


def golden_tokens(case, index):
    return case["num_img_tokens"][index]


def bytes_of(pixels):
    mean = np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    return np.round((pixels.numpy() * std + mean) * 255).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_every_mode_is_read_as_its_rgb(mode):
    picture = formula_image(61, 40, 2, mode=mode)
    processor = Phi3VImageProcessor(num_crops=1)
    same = processor(picture)["pixel_values"] == processor(picture.convert("RGB"))["pixel_values"]
    assert same.all()


def test_arrays_and_tensors_are_pictures_too():
    picture = formula_image(61, 40)
    array = np.asarray(picture)
    processor = Phi3VImageProcessor(num_crops=1)
    wanted = processor(picture)["pixel_values"]
    for twin in (array, torch.from_numpy(array.copy()).permute(2, 0, 1), [[picture]], (array,)):
        assert torch.equal(processor(twin)["pixel_values"], wanted)
    assert isinstance(processor(picture, return_tensors="np")["pixel_values"], np.ndarray)


@pytest.mark.parametrize("size", [(10000, 1), (1, 10000)])
def test_too_long_and_thin(size):
    with pytest.raises(ValueError, match="too long and thin"):
        Phi3VImageProcessor()(Image.new("RGB", size))


def test_what_is_no_picture_is_refused():
    for nothing in (None, 3, {"image": 1}, np.zeros((2, 2, 2, 2))):
        with pytest.raises(ValueError, match="Not a picture"):
            Phi3VImageProcessor()(nothing)
    with pytest.raises(ValueError, match="no picture"):
        Phi3VImageProcessor()([])
    with pytest.raises(ValueError, match="empty"):
        Phi3VImageProcessor()(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("num_crops", [0, -1, 1.5, "4", True])
def test_num_crops_must_be_a_number_of_crops(num_crops):
    with pytest.raises(ValueError, match="num_crops"):
        Phi3VImageProcessor(num_crops=num_crops)
    with pytest.raises(ValueError, match="num_crops"):
        Phi3VImageProcessor()(Image.new("RGB", (9, 9)), num_crops=num_crops)


def test_num_crops_given_when_loading_or_calling(tmp_path):
    Phi3VImageProcessor(num_img_tokens=49).save_pretrained(tmp_path)
    processor = Phi3VImageProcessor.from_pretrained(tmp_path, num_crops=4)
    assert (processor.num_crops, processor.num_img_tokens) == (4, 49)
    picture = Image.new("RGB", (640, 480))
    assert processor(picture)["num_img_tokens"] == [5 * 49 + 1 + 3 * 7]
    assert processor(picture, num_crops=1)["pixel_values"].shape[1] == 2


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(1024, 768), (768, 1024), (3000, 2000), (700, 701), (5000, 60)])
def test_several_threads_make_the_same_pixels(threads, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture, processor = Image.fromarray(pixels), Phi3VImageProcessor()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        padded = processor._fit_to_grid(picture, 16)
        torch.set_num_threads(1)
        assert np.array_equal(np.array(padded), np.array(processor._fit_to_grid(picture, 16)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rows", range(1, 9))
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 6, 16])
def test_the_global_view_is_that_of_the_whole_picture(rows, columns):
    """Only pixels that count are normalised and shrunk: the same bits all the same."""
    pixels = np.random.default_rng(rows).integers(0, 256, (336 * rows, 336 * columns, 3), dtype=np.uint8)
    processor = Phi3VImageProcessor()
    whole = torch.empty(3, *pixels.shape[:2])
    processor._normalise(pixels, whole.numpy())
    expected = torch.nn.functional.interpolate(whole[None], size=(336, 336), mode="bicubic")[0]
    assert torch.equal(processor._global_view(pixels, rows, columns), expected)


def test_zeros_that_no_picture_needs_are_left_out():
    pictures = [Image.new("RGB", (2000, 200), "red"), Image.new("RGB", (100, 100), "blue")]
    whole = Phi3VImageProcessor()(pictures)
    short = Phi3VImageProcessor()(pictures, pad_crops=False)
    assert whole["pixel_values"].shape[1] == 17 and short["pixel_values"].shape[1] == 17
    short = Phi3VImageProcessor()(pictures[:1], pad_crops=False)
    assert short["pixel_values"].shape[1] == 11
    assert torch.equal(short["pixel_values"], whole["pixel_values"][:1, :11])
    assert not whole["pixel_values"][0, 11:].any()
