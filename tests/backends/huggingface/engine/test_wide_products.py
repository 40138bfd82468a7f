"""Weights of bfloat16 give the same where the processor has no products of it, in less time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat.auto_classes import AutoModelForCausalLM
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
from hybridd.backends.huggingface.engine.weights import wide_products
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, spec_for


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that has none, whatever this one is."""
    monkeypatch.setattr(wide_products, "has_bfloat16", lambda: False)
    monkeypatch.setattr(wide_products, "_SLOW", True)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def replaced(model: Any) -> list[Any]:
    return [module for module in model.modules() if "forward" in vars(module)]


@pytest.mark.usefixtures("without_bfloat16")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("numbers", [1, 96, 1000, 10**6], ids=lambda n: f"blocks of {n}")
def test_rows_give_what_float32_gives(
    bias: bool, numbers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide_products, "_NUMBERS", numbers)
    layer = torch.nn.Linear(96, 160, bias=bias, dtype=torch.bfloat16)
    drawn = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 40, 96, generator=drawn).bfloat16()
    with torch.inference_mode():
        exact = torch.nn.functional.linear(
            rows.float(), layer.weight.float(), layer.bias.float() if bias else None
        )
        wide_products.widen(layer, "cpu")
        assert replaced(layer) == [layer]
        for count in (0, 1, 7, 8, 15, 16, 33, 40):
            for some in (rows[:, :count], rows[0, :count], rows[:, :count].transpose(0, 1)):
                outputs = layer(some)
                assert outputs.dtype is torch.bfloat16
                assert outputs.shape == (*some.shape[:-1], 160)
                flat = outputs.reshape(-1, 160).float()
                torch.testing.assert_close(flat, exact[0, :count], rtol=0.01, atol=0.01)
        assert layer(rows[0, 0]).shape == (160,)


@pytest.mark.usefixtures("without_bfloat16")
def test_many_rows_are_rounded_once(threads: int) -> None:
    """As float32 has it and then rounded: nothing is lost on the way."""
    layer = torch.nn.Linear(64, 48, dtype=torch.bfloat16)
    rows = torch.randn(64, 64).bfloat16()
    with torch.inference_mode():
        wide = torch.nn.functional.linear(rows.float(), layer.weight.float(), layer.bias.float())
        wide_products.widen(layer, "cpu")
        apart = (layer(rows).float() - wide.bfloat16().float()).abs()
    # Sums in another order may fall on the other side of a step of bfloat16, now and then.
    assert float((apart > 0).float().mean()) < 0.01


def test_other_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8).bfloat16())
    half = torch.nn.Sequential(torch.nn.Linear(8, 8, dtype=torch.bfloat16))
    monkeypatch.setattr(wide_products, "_SLOW", True)
    for has, device, one in ((True, "cpu", half), (False, "cuda:0", half), (False, "cpu", model)):
        monkeypatch.setattr(wide_products, "has_bfloat16", lambda has=has: has)
        wide_products.widen(one, device)
        assert replaced(one) == []
    monkeypatch.setattr(wide_products, "has_bfloat16", lambda: False)
    monkeypatch.setattr(wide_products, "_SLOW", False)
    wide_products.widen(half, "cpu")
    assert replaced(half) == []


@pytest.mark.usefixtures("without_bfloat16")
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mamba", "rwkv"])
def test_a_models_logits_are_no_further_from_float32(tmp_path: Path, family: str) -> None:
    path = make(family, tmp_path, dtype="bfloat16")
    ids = torch.arange(100, 140)[None]

    def logits(dtype: torch.dtype, wide: bool) -> torch.Tensor:
        # Each afresh: RWKV changes its weights in the first pass.
        model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype).eval()
        if wide:
            wide_products.widen(model, "cpu")
        assert bool(replaced(model)) is wide
        with torch.inference_mode():
            said: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return said.float()

    exact = logits(torch.float32, False)
    apart = [float((logits(torch.bfloat16, wide) - exact).norm()) for wide in (True, False)]
    assert apart[0] < 1.3 * apart[1] + 0.01 * float(exact.norm())


@pytest.mark.usefixtures("without_bfloat16")
def test_the_engine_computes_so(tmp_path: Path) -> None:
    path = make("llama", tmp_path, dtype="bfloat16")
    for dtype in ("bfloat16", "float32"):
        engine = HuggingFaceEngine()
        engine.load(spec_for(path, "huggingface", dtype=dtype), ignore_progress)
        assert engine._loaded is not None
        assert bool(replaced(engine._loaded.model)) is (dtype == "bfloat16")
        assert ask(engine, prompt="what is the time " * 20, options={"max_tokens": 3}).tokens
        engine.close()
