"""Faster on a CPU, with the same results."""

import threading

import pytest
import torch

from phi3v_helpers.model import cpu


def setting():
    return torch.backends.mkldnn.matmul.fp32_precision


needs_choice = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="this PyTorch has no such setting"
)


@needs_choice
def test_it_is_as_exact_where_it_is_used(monkeypatch):
    """Where oneDNN would round to bfloat16, as it does on some processors, it is not used."""
    one, other = torch.randn(300, 700), torch.randn(500, 700)
    exact = (one.double() @ other.double().T).float()
    with cpu.at_best(torch.device("cpu"), torch.float32, rows=300):
        product = torch.nn.functional.linear(one, other)
    assert float((product - exact).norm() / exact.norm()) < cpu.AS_EXACT
    cpu.onednn_is_better.cache_clear()
    monkeypatch.setattr(
        cpu, "_fastest_of_five", lambda one, other: (1.0, (one.bfloat16() @ other.bfloat16().T).float())
    )
    assert not cpu.onednn_is_better()
    cpu.onednn_is_better.cache_clear()


@needs_choice
def test_it_is_not_used_where_it_is_slower(monkeypatch):
    times = iter([1.0, 0.9])
    monkeypatch.setattr(cpu, "_fastest_of_five", lambda one, other: (next(times), one @ other.T))
    cpu.onednn_is_better.cache_clear()
    assert not cpu.onednn_is_better()
    cpu.onednn_is_better.cache_clear()


@needs_choice
def test_the_setting_goes_back():
    before = setting()
    with cpu._by_onednn:
        assert setting() == "bf16"
        with cpu._by_onednn:
            pass
        assert setting() == "bf16"
    assert setting() == before
    with pytest.raises(KeyError), cpu._by_onednn:
        raise KeyError
    assert setting() == before


@needs_choice
def test_the_setting_goes_back_after_the_last_thread():
    before, inside, leave = setting(), threading.Event(), threading.Event()

    def work():
        with cpu._by_onednn:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with cpu._by_onednn:
        thread.start()
        assert inside.wait(10)
    assert setting() == "bf16"  # the other thread is still at work
    leave.set()
    thread.join(10)
    assert setting() == before


def test_nothing_is_done_elsewhere(monkeypatch):
    monkeypatch.setattr(cpu, "onednn_is_better", lambda: True)
    before = setting() if hasattr(torch.backends.mkldnn, "matmul") else None
    for device, dtype in (("cuda", torch.float32), ("mps", torch.float16), ("cpu", torch.float16)):
        with cpu.at_best(torch.device(device), dtype, rows=100, keys=lambda: 100):
            assert before is None or setting() == before


def test_one_token_attends_alike_in_bfloat16():
    query, keys, values = (torch.randn(1, 8, n, 64).bfloat16() for n in (1, 300, 300))
    usual = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    with cpu.at_best(torch.device("cpu"), torch.bfloat16, rows=1, keys=keys.numel):
        plain = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    assert torch.allclose(usual.float(), plain.float(), atol=0.02)


@needs_choice
@pytest.mark.parametrize("chosen", ["high", "medium", "highest"])
def test_what_the_user_chose_goes_back(chosen):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(chosen)
        with cpu._by_onednn:
            torch.nn.functional.linear(torch.randn(8, 8), torch.randn(8, 8))
        assert torch.get_float32_matmul_precision() == chosen
    finally:
        torch.set_float32_matmul_precision(before)
