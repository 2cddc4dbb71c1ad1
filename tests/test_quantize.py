"""Weights in 8 and 4 bits: what becomes small, that it answers as before, and what is said where it cannot be."""

import argparse
import builtins

import pytest
import torch
from helpful import helpful
from random_model import make_folder, random_folder
from torch import nn

import phi3v_helpers as p3v
from benchmarks import quantized
from phi3v_helpers import full_memory, loading, quantize
from phi3v_helpers.devices import Gpu
from phi3v_helpers.errors import LoadError, Phi3VError
from phi3v_helpers.footprint import Footprint
from phi3v_helpers.loading import PUBLISHED, choose_model
from phi3v_helpers.model import Phi3VConfig, Phi3VForCausalLM
from phi3v_helpers.quantize import KINDS, LAYERS, Linear4, Linear8, check
from phi3v_helpers.vision import Phi3Vision
from phi3v_helpers.weights import KNOWN, TINY_FOLDER

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SHAPES, SEEN = "shapes_1", "What shapes are in the image?"
CHART, TOLD = "stock_chart", "Could you please introduce this stock to me?"


@pytest.fixture(scope="module", params=KINDS)
def tiny(request):
    return p3v.load("tiny", quantize=request.param, verbose=False)


# --- the layers ---


@pytest.mark.parametrize(("layer", "error"), [(Linear8, 0.02), (Linear4, 0.14)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_gives_nearly_what_it_gave(layer, error, dtype):
    torch.manual_seed(0)
    full = nn.Linear(640, 256, bias=False)
    small, x = layer(full.weight.detach()), torch.randn(2, 50, 640)
    with torch.no_grad():
        expected, many, few = full(x), small(x.to(dtype)), small(x[:, :3].to(dtype))
    assert many.shape == expected.shape and many.dtype == few.dtype == dtype
    assert (many.float() - expected).norm() / expected.norm() < error
    assert (few.float() - many[:, :3].float()).norm() / few.float().norm() < 0.01


@pytest.mark.parametrize("layer", [Linear8, Linear4])
def test_a_layer_of_zeros_stays_zero(layer):
    assert layer(torch.zeros(32, 64))(torch.randn(1, 64)).abs().max() == 0


def test_more_bits_are_more_exact():
    torch.manual_seed(0)
    weight, x = torch.randn(128, 256), torch.randn(4, 256)
    errors = [float((layer(weight)(x) - x @ weight.T).norm()) for layer in (Linear8, Linear4)]
    assert 5 * errors[0] < errors[1]


# --- loading ---


def test_only_the_linear_layers_of_the_decoder_become_small(tiny):
    small = {name for name, child in tiny.model.named_modules() if isinstance(child, (Linear8, Linear4))}
    full = {name for name, child in tiny.model.named_modules() if isinstance(child, nn.Linear)}
    assert {name.rpartition(".")[2] for name in small} == set(LAYERS)
    assert len(small) == 4 * tiny.model.config.num_hidden_layers
    assert all("vision_embed_tokens" in name or name == "lm_head" for name in full)


def test_the_line_the_options_and_the_number_format(tiny):
    kind = tiny.quantize
    assert repr(tiny) == f"Phi3Vision: tiny phi3v (embedded) on cpu, bfloat16, sdpa, {kind}"
    assert tiny.load_options == {"model": "tiny", "quantize": kind}
    assert p3v.load(**tiny.load_options, verbose=False).quantize == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("model", ["tiny", "random"])
def test_the_estimate_is_what_is_measured(kind, dtype, model):
    model = random_folder() if model == "random" else model
    told = p3v.estimate(model, None, "What?", quantize=kind, dtype=dtype, device="cpu")
    loaded = p3v.load(model, quantize=kind, dtype=dtype, verbose=False)
    held = sum(weight.untyped_storage().nbytes() for weight in loaded.model.parameters())
    assert told.weights == pytest.approx(held, rel=0.05) and loaded.memory(0)[0] == held
    after = p3v.estimate(loaded, None, "What?")
    assert (after.weights, after.work) == (told.weights, told.work)


def test_phi_3_vision_becomes_as_small_as_is_said():
    config = Phi3VConfig(**PUBLISHED)
    sizes = {kind: Footprint(config, "cpu", 2, quantize=kind).weights for kind in (None, *KINDS)}
    assert sizes[None] == KNOWN["phi-3-vision"].size
    assert sizes["8bit"] / 1e9 == pytest.approx(4.67, abs=0.05)
    assert sizes["4bit"] / 1e9 == pytest.approx(3.08, abs=0.05)


def test_full_and_small_weights_of_one_model_are_kept_apart(monkeypatch):
    repo = KNOWN["phi-3-vision"].repo
    monkeypatch.setattr(loading, "find_weights", lambda *_: (random_folder(), repo))
    monkeypatch.setattr(loading, "at_hand", lambda known: True)
    full = p3v.load("phi-3-vision", device="cpu", dtype="bfloat16", verbose=False)
    small = p3v.load("phi-3-vision", device="cpu", quantize="8bit", verbose=False)
    assert small.model is not full.model
    assert p3v.load("phi-3-vision", device="cpu", quantize="8bit", verbose=False).model is small.model


# --- answers ---


def test_the_answers_of_the_tiny_model_stay(tiny):
    full = p3v.load("tiny", verbose=False)
    for picture, question in ((SHAPES, SEEN), (CHART, TOLD)):
        assert tiny.ask(p3v.samples[picture], question) == full.ask(p3v.samples[picture], question)


def test_the_same_answers_known_anew_in_a_batch_and_in_pieces(tiny):
    picture = p3v.samples[SHAPES]
    first = tiny.ask(picture, SEEN)
    again = tiny.ask(picture, SEEN)
    assert again == first and again.reused_tokens > 100
    tiny.forget()
    assert tiny.ask(picture, SEEN) == first
    pairs = [(picture, SEEN), (p3v.samples[CHART], TOLD), (picture, SEEN)]
    batch = list(tiny.ask_many(pairs, at_once=3, progress=False))
    assert batch[0] == batch[2] == first and batch[1] == tiny.ask(p3v.samples[CHART], TOLD)
    assert "".join(tiny.stream(picture, SEEN)) == first.text


# --- what cannot be ---


@pytest.mark.parametrize("kind", ["4bits", 4, True, "int8"])
def test_no_such_number_of_bits(kind):
    with helpful(LoadError, repr(kind), '"4bit"'):
        p3v.load("tiny", quantize=kind, verbose=False)


def test_devices_that_cannot():
    with helpful(LoadError, "'mps'", 'device="cpu"'):
        check("4bit", torch.device("mps"), torch.bfloat16)
    with helpful(LoadError, "float32", 'dtype="bfloat16"'):
        check("8bit", CUDA, torch.float32)
    check(None, torch.device("mps"), torch.float32)


def test_the_package_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "bitsandbytes":
            raise ImportError("No module named 'bitsandbytes'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with helpful(LoadError, 'pip install "phi3v-helpers[quantize]"'):
        check("4bit", CUDA, torch.bfloat16)


def test_widths_that_do_not_fit_into_4_bits(tmp_path):
    folder = make_folder(tmp_path / "odd", intermediate_size=40)
    with helpful(LoadError, "40 inputs", "multiples of 32 and 16", 'quantize="8bit"'):
        p3v.load(folder, quantize="4bit", verbose=False)
    assert p3v.load(folder, quantize="8bit", verbose=False).ask(None, "Hello?", max_new_tokens=3).new_tokens


# --- advice ---


def test_weights_beyond_the_memory_are_told_what_would_fit(monkeypatch):
    monkeypatch.setattr(loading.psutil, "swap_memory", lambda: argparse.Namespace(free=0))
    for free, kind in ((5e9, "8bit"), (4e9, "4bit")):
        monkeypatch.setattr(loading, "free_memory", lambda device, free=free: free)
        with helpful(LoadError, f'quantize="{kind}", which fits'):
            loading.check_room(Phi3VConfig(**PUBLISHED), CPU, torch.float32)
        loading.check_room(Phi3VConfig(**PUBLISHED), CPU, torch.bfloat16, quantize=kind)
    monkeypatch.setattr(loading, "free_memory", lambda device: 1e9)
    with helpful(LoadError, "in 4bit", 'p3v.load("tiny")'):
        loading.check_room(Phi3VConfig(**PUBLISHED), CPU, torch.bfloat16, quantize="4bit")


def test_auto_takes_phi_3_vision_where_it_fits_small(monkeypatch):
    monkeypatch.setattr(loading, "at_hand", lambda known: True)
    gpu = [Gpu(0, "NVIDIA RTX", (8, 9), 6e9)]
    name, reason = choose_model("auto", gpu)
    assert name == "tiny" and reason.endswith('Phi-3-vision needs 10.3, or 4.9 with quantize="4bit"')
    assert choose_model("auto", gpu, "4bit")[0] == "phi-3-vision"
    assert choose_model("auto", gpu, "8bit")[0] == "tiny"


def test_a_question_beyond_the_memory_is_told_that_smaller_weights_would_do(monkeypatch):
    model = p3v.load("tiny", verbose=False)
    need = p3v.estimate(model, None, "a" * 500, max_new_tokens=40).needed
    monkeypatch.setattr("phi3v_helpers.estimates.free_memory", lambda device: need - 1)
    monkeypatch.setattr(full_memory, "_with_swap", lambda estimate: estimate.free)
    with helpful(Phi3VError, 'loading with quantize="8bit"'):
        model.ask(None, "a" * 500, max_new_tokens=40)


# --- bitsandbytes, which also runs on a CPU ---


@pytest.mark.parametrize("kind", KINDS)
def test_bitsandbytes_makes_the_same_layers_small(kind):
    pytest.importorskip("bitsandbytes")
    model = Phi3VForCausalLM.from_pretrained(
        TINY_FOLDER,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        quantization_config=quantize.settings_for_cuda(kind, torch.bfloat16),
    )
    small = [
        name
        for name, child in model.named_modules()
        if type(child).__name__.startswith(("Linear4", "Linear8"))
    ]
    assert {name.rpartition(".")[2] for name in small} == set(LAYERS)
    assert len(small) == 4 * model.config.num_hidden_layers
    told = Footprint(model.config, "cuda", 2, quantize=kind).weights
    assert model.get_memory_footprint(return_buffers=False) == pytest.approx(told, rel=0.05)
    vision = Phi3Vision(model, loading.read_processor(TINY_FOLDER), "tiny")
    answer = vision.ask(p3v.samples[SHAPES], "How many shapes are in the image?")
    assert answer == "There are three shapes."


# --- the benchmark ---


def test_the_benchmark_compares_all_ways():
    rows = {row["way"]: row for row in quantized.run("small", n=0, repeats=1)}
    assert list(rows) == ["float32", "bfloat16", "8bit", "4bit"]
    sizes = [row["weights"] for row in rows.values()]
    errors = [row["error"] for row in rows.values()]
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors) and errors[0] == 0
    assert all(row["seconds_a_token"] > 0 for row in rows.values())
    assert quantized.table(list(rows.values())).count("\n") == 5
