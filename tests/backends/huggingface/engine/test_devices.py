"""A plan over several devices in transformers' words; no GPU is needed to check the arithmetic."""

from __future__ import annotations

import importlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridd.core.devices import CPU
from hybridd.core.model import Estimate, Spread
from hybridd.core.spread import shares
from hybridd.wire.errors import LoadFailed, Unsupported
from tests.support_models import ignore_progress, make_engine, spec_for

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("accelerate", reason="accelerate is not installed")

from hybridd.backends.huggingface import BACKEND
from hybridd.backends.huggingface.engine.compat.auto_classes import AutoConfig, AutoModelForCausalLM
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.weights import devices
from tests.make_transformers import make

MODEL = Estimate(400, 400, 7, 5, 0, 1, spread=Spread(10, 1.0))


def test_devices_are_numbered_as_the_driver_does() -> None:
    placement = {"cuda:1": 312, "cuda:3": 207}
    assert devices.is_spread(placement)
    assert devices.max_memory(placement, MODEL) == {1: 150, 3: 100, CPU: 0}
    offloaded = devices.max_memory({"cuda:0": 550, CPU: 300}, MODEL)
    assert offloaded[0] == 550 - 7 - 5 - 400 - 20
    assert offloaded[CPU] > 400
    assert not devices.is_spread({"cuda:0": 550})
    assert not devices.is_spread({})


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_accelerate_makes_of_a_plan_stays_in_it(
    tmp_path: Path, family: str, tied: bool
) -> None:
    path = make(
        family, tmp_path / "m", num_hidden_layers=16, tie_word_embeddings=tied, vocab_size=256,
        hidden_size=96, intermediate_size=192, num_attention_heads=8, num_key_value_heads=8,
    )  # fmt: skip
    facts = BACKEND.inspect(path)
    full = BACKEND.estimate(facts, {"context_length": 256, "parallel": 1, "dtype": "float32"})
    estimate = replace(full, overhead_bytes=1000, compute_bytes=3000)
    assert estimate.spread is not None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    model.tie_weights()
    infer = importlib.import_module("transformers.integrations.accelerate").infer_auto_device_map
    whole = estimate.reserved_bytes
    plans: set[tuple[str, ...]] = set()
    for rooms in (
        (0.7, 0.7), (0.9, 0.6), (0.6, 0.9), (0.5, 0.5, 0.5), (0.9,), (0.8,), (0.7, 0.3),
        (0.65, 0.2, 0.2),
    ):  # fmt: skip
        available = {f"cuda:{i}": int(whole * share) for i, share in enumerate(rooms)}
        placement = shares(estimate, available, whole)
        if placement is None:
            continue
        plans.add(tuple(placement))
        limits: dict[Any, int] = devices.max_memory(placement, estimate)
        placed = infer(
            model, max_memory=dict(limits), no_split_module_classes=model._no_split_modules
        )
        assert "disk" not in placed.values()
        used = _used(model, placed, estimate, family)
        for device, size in used.items():
            assert device in placement, f"{device} was not planned for: {placed}"
            assert size <= placement[device], (rooms, device)
    assert ("cuda:0", "cuda:1") in plans
    assert ("cuda:0", CPU) in plans


def _used(model: Any, placed: dict[str, Any], estimate: Estimate, family: str) -> dict[str, float]:
    """Bytes by device: weights, and the cache, which is where a layer is computed."""
    used: defaultdict[str, float] = defaultdict(float)
    seen = set()
    main = next(f"cuda:{where}" for where in placed.values() if where != CPU)
    used[main] += estimate.overhead_bytes

    def device_of(name: str) -> str:
        where = next(placed[key] for key in sorted(placed, key=len, reverse=True)
                     if name == key or name.startswith(f"{key}.") or not key)  # fmt: skip
        return CPU if where == CPU else f"cuda:{where}"

    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            used[device_of(name)] += parameter.numel() * parameter.element_size()
    layers = "gpt_neox.layers" if family == "gpt_neox" else "model.layers"
    count = model.config.num_hidden_layers
    for i in range(count):
        where = device_of(f"{layers}.{i}.anything")
        used[main if where == CPU else where] += estimate.kv_cache_bytes / count
    for device in used:
        used[device] += 0 if device == CPU else estimate.compute_bytes
    return used


def test_what_cannot_be_followed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    placement = {"cuda:0": 312, "cuda:1": 207}
    devices.check(placement, MODEL, "m", 2)
    with pytest.raises(LoadFailed, match="torch sees no device cuda:1"):
        devices.check(placement, MODEL, "m", 1)
    with pytest.raises(LoadFailed, match="cannot be told apart"):
        devices.check(placement, replace(MODEL, spread=None), "m", 2)
    monkeypatch.setattr(devices, "find_spec", lambda _name: None)
    with pytest.raises(Unsupported, match="accelerate; install it with"):
        devices.check(placement, MODEL, "m", 2)


def test_what_is_kept_together(tmp_path: Path) -> None:
    facts = BACKEND.inspect(make("llama", tmp_path / "m"))
    assert BACKEND.estimate(facts, {}).spread is not None
    assert BACKEND.estimate(facts, {"quantization": "int8"}).spread is None
    assert BACKEND.estimate(replace(facts, capabilities=("embedding",)), {}).spread is None
    assert BACKEND.estimate(replace(facts, layers=None), {}).spread is None


def test_the_engine_is_handed_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to transformers, which is told where the weights go; here there is no such device."""
    loading = importlib.import_module("hybridd.backends.huggingface.engine.weights.loading")
    path = make("llama", tmp_path / "m", num_hidden_layers=12)
    asked: list[dict[str, Any]] = []

    def from_pretrained(_auto: Any, _path: Any, arguments: Any) -> Any:
        asked.append(arguments)
        raise LoadFailed("enough", reason="enough")

    monkeypatch.setattr(loading, "_from_pretrained", from_pretrained)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    spec = spec_for(path, "huggingface", device="cuda:0", context_length=64)
    spec["placement"] = {"cuda:0": 2**30, "cuda:1": 2**29}
    with pytest.raises(LoadFailed, match="enough"):
        make_engine("huggingface").load(spec, ignore_progress)
    assert asked[0]["device_map"] == "sequential"
    assert set(asked[0]["max_memory"]) == {0, 1, CPU}
    assert asked[0]["max_memory"][CPU] == 0
    spec["placement"] = {"cuda:0": 2**30}
    with pytest.raises(LoadFailed, match="enough"):
        make_engine("huggingface").load(spec, ignore_progress)
    assert asked[1]["device_map"] == {"": "cuda:0"}
