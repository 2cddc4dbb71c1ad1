"""docs/where_to_run.md says what `p3v.estimate` and the benchmarks say, and `load` chooses as it tells.

python tests/test_where_to_run.py      # puts today's figures into the page
"""

import json
import re

import pytest
import torch
from nbtools import ROOT
from PIL import Image

import phi3v_helpers as p3v
from phi3v_helpers import loading
from phi3v_helpers.devices import Gpu, choose_attention, choose_dtype
from phi3v_helpers.footprint import Footprint
from phi3v_helpers.loading import PUBLISHED, choose_model
from phi3v_helpers.model import Phi3VConfig

PAGE = ROOT / "docs" / "where_to_run.md"
TEXT = PAGE.read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "quantized.json"
PICTURE, QUESTION = Image.new("RGB", (1920, 1080)), "What is shown in this image?"
ASKED = {f"{n} picture{'s' * (n > 1)}, {tiles} tiles": (n, tiles) for n in (1, 4) for tiles in (4, 16)}
BITS = {"bfloat16": None, '`"8bit"`': "8bit", '`"4bit"`': "4bit"}
T4, CUDA = Gpu(0, "Tesla T4", (7, 5), 15e9), torch.device("cuda", 0)


def need(pictures, num_crops, bits=None, model="phi-3-vision"):
    how = {"dtype": "bfloat16", "device": "cpu", "quantize": bits}
    return p3v.estimate(model, [PICTURE] * pictures, QUESTION, num_crops=num_crops, **how)


def estimates():
    lines = [f"| | weights | {' | '.join(ASKED)} |", "|---" * (2 + len(ASKED)) + "|"]
    for name, bits in BITS.items():
        peaks = [f"{need(*asked, bits).peak / 1e9:.1f}" for asked in ASKED.values()]
        lines.append(f"| {name} | {need(1, 4, bits).weights / 1e9:.1f} | {' | '.join(peaks)} |")
    return "\n".join(lines)


def measured():
    found = json.loads(RESULTS.read_text())
    lines = [
        "| weights in | they take | reading a picture of 1024 x 768 | a token | exact answers, tiny model |"
    ]
    lines.append("|---" * 5 + "|")
    for row in found["rows"]:
        lines.append(
            f"| {row['way']} | {row['weights'] / 1e6:.0f} MB | {row['seconds_to_read']:.2f} s | "
            f"{1000 * row['seconds_a_token']:.0f} ms | {row['exact_mean']:.1%} |"
        )
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(
        [*lines, "", f"{found['date']}, {found['processor']}, {found['threads']} threads, {versions}."]
    )


PARTS = {"estimates": estimates, "measured": measured}


def place(name):
    return re.compile(rf"(?<=<!-- {name}: begin -->\n).*?(?=<!-- {name}: end -->)", re.S)


@pytest.mark.parametrize("name", PARTS)
def test_the_tables_are_of_today(name):
    (stored,) = place(name).findall(TEXT)
    assert stored == PARTS[name]() + "\n", "run python tests/test_where_to_run.py"


def test_both_models_need_the_same():
    assert need(1, 16).peak == need(1, 16, model="phi-3.5-vision").peak


@pytest.mark.parametrize("bits", BITS.values())
@pytest.mark.parametrize("asked", ASKED.values())
def test_a_gpu_needs_up_to_a_fifth_less_than_the_page_says(asked, bits):
    told = need(*asked, bits)
    gpu = Footprint(Phi3VConfig(**PUBLISHED), "cuda", 2, quantize=bits)
    grids = [(3, 5) if asked[1] == 16 else (2, 2)] * asked[0]
    assert sum(gpu.image_tokens(*grid) for grid in grids) >= sum(told.image_tokens)
    peak = gpu.weights + told.kv_cache + gpu.work(grids, told.prompt_tokens, told.answer_tokens)
    assert 0.8 * told.peak < peak < told.peak


@pytest.mark.parametrize(
    ("size", "pictures", "num_crops", "bits"),
    [(6, 1, 4, "4bit"), (8, 1, 16, "8bit"), (12, 1, 16, None), (12, 4, 4, None), (15, 1, 16, None)],
)
def test_what_is_advised_leaves_room_for_cuda(size, pictures, num_crops, bits):
    assert need(pictures, num_crops, bits).peak + 1e9 < size * 1e9


def test_what_is_said_not_to_fit_does_not():
    assert need(4, 16).peak + 1e9 > 15e9, "four pictures in 16 tiles on a T4"
    assert need(1, 4).peak + 1e9 > 8e9, "as it is on 8 GB"


def test_what_load_takes_on_a_t4(monkeypatch):
    monkeypatch.setattr(loading, "at_hand", lambda known: True)
    dtype = choose_dtype("auto", CUDA, [T4])
    assert choose_model("auto", [T4])[0] == "phi-3-vision"
    assert (dtype, choose_attention("auto", CUDA, dtype, [T4])) == (torch.float16, "sdpa")
    several = p3v.estimate("phi-3-vision", [PICTURE] * 2, QUESTION, device="cpu")
    one = p3v.estimate("phi-3-vision", PICTURE, QUESTION, device="cpu")
    assert several.image_tokens == [757, 757] and one.image_tokens == [2353]


def test_smaller_weights_are_told_of_and_never_taken_unasked():
    name, why = choose_model("auto", [Gpu(0, "Tesla T4", (7, 5), 8e9)])
    assert name == "tiny" and 'quantize="8bit"' in why


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", TEXT)
    assert len(links) > 2 and all((PAGE.parent / link).exists() for link in links)


if __name__ == "__main__":
    for part, make in PARTS.items():
        TEXT = place(part).sub(make() + "\n", TEXT)
    PAGE.write_text(TEXT, encoding="utf-8")
