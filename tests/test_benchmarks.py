"""The benchmarks run, compare like with like, and keep what they measured. How fast anything is, is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import baseline, cpu, gpu, models
from phi3v_helpers.prompts import build_prompt
from phi3v_helpers.vision import Phi3Vision

ROOT = Path(__file__).parents[1]
RATIOS = {
    "preprocess_1024x768",
    "preprocess_3000x2000",
    "image_prefill",
    "vision_two_wide",
    "second_question",
    "batch_8",
    "decode_256",
    "decode_256_float32",
    "peak_memory",
    "start",
}


@pytest.fixture(scope="module")
def model():
    return models.build("small")


def test_the_cpu_suite(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--size", "small", "--repeats", "1", "--threads", "1"]
    files = ["--json", tmp_path / "cpu.json", "--plot", tmp_path / "cpu.png"]
    done = subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert set(found["ratios"]) == RATIOS and all(ratio > 0 for ratio in found["ratios"].values())
    assert found["threads"] == 1 and found["date"] and found["versions"]["torch"] == torch.__version__
    assert all(row["ratio"] == pytest.approx(row["baseline"] / row["ours"]) for row in found["rows"])
    assert "| what | published way | ours |" in done.stdout
    with Image.open(tmp_path / "cpu.png") as picture:
        assert picture.width > 500 and len(picture.convert("RGB").getcolors(100_000)) > 10


def test_the_gpu_suite_runs_anywhere(tmp_path):
    rows = gpu.run("small", "cpu", repeats=1, new_tokens=4, say=lambda line: None)
    assert [row["way"] for row in rows] == ["eager", "sdpa", "sdpa, compiled"]
    for row in rows:
        assert row["first_token"] > 0 and row["bandwidth"] > 0 and row["share"] > 0
        assert set(row["tokens_per_second"]) == {1, 8}


def test_the_sizes_are_those_that_they_are_said_to_be():
    with torch.device("meta"):
        full = models.Phi3VForCausalLM(models.Phi3VConfig(**models.COMMON, **models.SIZES["full"]))
        mid = models.Phi3VForCausalLM(models.Phi3VConfig(**models.COMMON, **models.SIZES["mid"]))
    assert full.num_parameters() == 4_146_621_440  # as published
    vision, config = mid.config.vision_config, mid.config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.patch_size) == (256, 6, 14)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (512, 8, 8)
    assert (config.intermediate_size, config.vocab_size) == (1536, 32064)


@pytest.mark.parametrize("size", [(1024, 768), (300, 1000), (50, 50)])
def test_the_published_way_makes_the_same_pixels(size):
    image = models.picture(*size)
    pixel_values, image_sizes = baseline.preprocess(image)
    ours = models.processor().image_processor(image)
    assert torch.equal(pixel_values, ours["pixel_values"]) and torch.equal(image_sizes, ours["image_sizes"])


def test_the_published_way_gives_the_same_answers(model):
    processor, image = models.processor(), models.picture(800, 300)
    vision = Phi3Vision(model, processor, "random", 16)
    published = baseline.Published(model)
    prompt = build_prompt("What is shown in this image?", 1)
    inputs = processor(prompt, image, return_tensors="pt")
    with torch.inference_mode():
        ours = model(**inputs).logits
        features = published.encode(inputs["pixel_values"], inputs["image_sizes"])
        theirs, _ = published.prefill(inputs["input_ids"], features)
    assert (theirs - ours).abs().max() < 1e-5
    written = published.ask(processor, image, prompt, 12)
    known = vision.engine.read(prompt, [image], 16)
    assert vision.engine.write(known, 12, min_new_tokens=12).ids == written


def test_the_published_way_shares_the_weights_and_nothing_else(model):
    published = baseline.Published(model)
    assert published.model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == model.model.config._attn_implementation == "sdpa"
    pairs = zip(published.model.parameters(), model.parameters())
    assert all(one.data_ptr() == other.data_ptr() for one, other in pairs)


def test_the_rows_compare_what_they_say(model):
    rows = {row.name: row for row in cpu.vision_two_wide(model, "small", 1)}
    assert "34 crops against 22" in rows["vision_two_wide"].note
    row = cpu.Row("name", "title", baseline=3.0, ours=1.5)
    assert row.ratio == 2 and row.as_dict()["ratio"] == 2
