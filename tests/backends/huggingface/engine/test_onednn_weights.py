"""Packed weights give the same logits, and leave nothing mapped but embeddings.

All of it in float32 too, which every processor has; bfloat16, which is what is packed, where the
processor has products of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from safetensors.torch import load_file, save_file

from hybridd.backends.api import LoadCancelled, Report
from hybridd.backends.cpu import usable_cores
from hybridd.backends.huggingface.engine.compat.auto_classes import AutoModelForCausalLM
from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.compat.leaning import Missing
from hybridd.backends.huggingface.engine.compat.onednn import Products
from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
from hybridd.backends.huggingface.engine.weights import onednn_weights, same_rows
from hybridd.backends.huggingface.engine.weights.lazy_weight import StandIn
from hybridd.backends.huggingface.engine.weights.memory import mapped_alone
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, spec_for

# Over the size from which a model is packed.
LARGE = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5, "head_dim": 128}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """What is packed."""
    packed: torch.dtype = getattr(torch, request.param)
    try:
        Products(packed)
    except Missing as exc:
        pytest.skip(str(exc))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn_weights, "DTYPE", packed)
        yield packed


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def path(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype
) -> Path:
    directory = tmp_path_factory.mktemp("packed")
    tied = {"tie_word_embeddings": request.param, "vocab_size": 9000}
    return make("qwen2", directory, **LARGE, **tied, initializer_range=0.05, dtype=said(dtype))


def said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pack(model: Any, report: Report = ignore_progress) -> None:
    onednn_weights.pack(model, Products(onednn_weights.DTYPE), report)


def mapped(path: Path) -> int:
    """Bytes of the model's files that are mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split(maxsplit=1)[0].split("-") for line in lines if str(path) in line]
    return sum(int(end, 16) - int(start, 16) for start, end in spans)


def table_bytes(model: Any) -> int:
    return int(model.get_input_embeddings().weight.nbytes)


def test_packed_layers_compute_the_same(path: Path, dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype).eval()
    ids = torch.arange(100, 109)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids).logits.float()
        assert mapped(path)
        seen: list[tuple[str, int, int]] = []
        pack(model, lambda *report: seen.append(report))
        logits = model(input_ids=ids).logits.float()
    assert seen[-1] == ("packing", 36, 36)
    for layer in model.model.layers:
        assert fused(layer.self_attn) == {"q_proj", "k_proj", "v_proj"}
        assert fused(layer.mlp) == {"gate_proj", "up_proj"}
    assert table_bytes(model) <= mapped(path) <= table_bytes(model) + 2 * 4096
    assert float((logits - expected).norm() / expected.norm()) < 0.02
    assert model.dtype is dtype


@pytest.mark.parametrize("family", ["mamba", "rwkv"])
def test_models_that_take_weights_themselves_compute_the_same(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    made = make(family, tmp_path, dtype=said(dtype))
    ids = torch.arange(100, 109)[None]
    logits = []
    with torch.inference_mode():
        for packed in (False, True):
            # Each afresh: RWKV changes its weights in the first pass.
            model = AutoModelForCausalLM.from_pretrained(str(made), dtype=dtype).eval()
            if packed:
                pack(model)
            logits.append(model(input_ids=ids, use_cache=False).logits.float())
    expected, got = logits
    assert float((got - expected).norm() / expected.norm()) < 0.02


def test_a_weight_that_is_asked_for_is_what_it_was(dtype: torch.dtype) -> None:
    model = Parts()
    layers = dict(model.named_children())
    rows = torch.randn(1, 3, 64, dtype=dtype)
    with torch.inference_mode():
        weights = {name: layer.weight.clone() for name, layer in layers.items()}
        expected = {name: layer(rows) for name, layer in layers.items()}
        pack(model)
        for layer in layers.values():
            assert (layer.weight.dtype, layer.weight.device.type) == (dtype, "cpu")
            assert isinstance(layer.weight, StandIn)
        for name in ("k_proj", "o_proj"):
            taken = layers[name].weight
            assert torch.equal(taken @ rows[0, 0], weights[name] @ rows[0, 0])
            taken.mul_(2)
            layers[name].bias.mul_(2)
            expected[name] = 2 * expected[name]
            assert not isinstance(layers[name].weight, StandIn)
        for name, layer in layers.items():
            torch.testing.assert_close(layer(rows), expected[name], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("pads", [False, True])
def test_few_rows_are_computed_as_several(
    monkeypatch: pytest.MonkeyPatch, bias: bool, pads: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(onednn_weights, "_PADS", pads)
    layer = torch.nn.Linear(96, 160, bias=bias, dtype=dtype)
    rows = torch.randn(1, 6, 96, dtype=dtype)
    with torch.inference_mode():
        expected = layer(rows)
        pack(Stack(layer))
        for count in range(7):
            for some in (rows[:, :count], rows[0, :count], rows[:, :count].transpose(0, 1)):
                made = layer(some)
                assert made.shape == (*some.shape[:-1], 160)
                flat = made.reshape(-1, 160)
                torch.testing.assert_close(flat, expected[0, :count], rtol=0.02, atol=0.02)
        assert layer(rows[0, 0]).shape == (160,)


def test_packing_is_up_to_the_mmap_option(path: Path) -> None:
    whole = (path / "model.safetensors").stat().st_size
    for mmap, stays in ((None, False), (False, False), (True, True)):
        engine = HuggingFaceEngine()
        facts = engine.load(spec_for(path, "huggingface", mmap=mmap), ignore_progress)
        assert facts["load_options"]["mmap"] is stays
        assert (mapped(path) > whole / 2) is stays
        assert (
            ask(engine, prompt="hello", options={"max_tokens": 3, "ignore_eos": True}).tokens == 3
        )
        engine.close()
        del engine


@pytest.mark.parametrize("harm", ["none", "written", "short", "replaced", "gone", "no"])
def test_a_tensor_gets_a_mapping_of_its_own(tmp_path: Path, harm: str) -> None:
    numbers = torch.arange(6000, dtype=torch.float32).bfloat16().view(60, 100)
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(77, dtype=torch.bfloat16), "b": numbers}, file)
    tensor = numbers if harm == "no" else load_file(file)["b"]
    match harm:
        case "written":
            tensor[0] = 7
        case "short":
            os.truncate(file, 4096)
        case "replaced":
            other = tmp_path / "other"
            other.write_bytes(bytes(file.stat().st_size))
            other.rename(file)
        case "gone":
            file.unlink()
    alone = mapped_alone(tensor)
    if harm != "none":
        assert alone is None
        return
    assert torch.equal(alone, numbers)
    del tensor
    assert mapped(file) <= numbers.nbytes + 2 * 4096
    alone += 1  # nobody does that; the file would not hear of it
    assert torch.equal(load_file(file)["b"], numbers)


def test_packing_can_be_cancelled(path: Path) -> None:
    def report(stage: str, done: int, _total: int) -> None:
        if stage == "packing" and done > 3:
            raise LoadCancelled

    before = threading.active_count()
    with pytest.raises(LoadCancelled):
        HuggingFaceEngine().load(spec_for(path, "huggingface", threads=1), report)
    assert threading.active_count() == before
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_all_cores_pack_and_the_model_keeps_its_threads(path: Path, threads: int) -> None:
    packers = set()

    def report(stage: str, _done: int, _total: int) -> None:
        if stage == "packing":
            packers.update(t.name for t in threading.enumerate() if "packing" in t.name)

    engine = HuggingFaceEngine()
    facts = engine.load(spec_for(path, "huggingface", threads=threads), report)
    assert len(packers) == min(usable_cores(), onednn_weights._MOST_THREADS)
    assert facts["load_options"]["threads"] == torch.get_num_threads() == threads
    engine.close()


class Parts(torch.nn.Module):  # type: ignore[misc] # torch is untyped here
    """Four layers, of which some are called as transformers' attention calls its own."""

    def __init__(self, *, bias: bool = True, width: int = 64, queries: int = 64) -> None:
        super().__init__()
        dtype = onednn_weights.DTYPE
        self.q_proj = torch.nn.Linear(64, queries, bias=bias, dtype=dtype)
        self.k_proj = torch.nn.Linear(width, 32, bias=bias, dtype=dtype)
        self.v_proj = torch.nn.Linear(64, 16, bias=bias, dtype=dtype)
        self.o_proj = torch.nn.Linear(64, 64, dtype=dtype)

    def forward(self, rows: Any) -> Any:
        return self.q_proj(rows), self.k_proj(rows), self.v_proj(rows)

    def get_input_embeddings(self) -> None:
        return None


# The name says whose the class is.
Parts.__module__ = "transformers.models.parts"


class Crossing(Parts):
    def forward(self, rows: Any, key_value_states: Any = None) -> Any:
        other = rows if key_value_states is None else key_value_states
        return self.q_proj(rows), self.k_proj(other), self.v_proj(other)


Crossing.__module__ = Parts.__module__


class Foreign(Parts):
    pass


class Stack(torch.nn.Sequential):  # type: ignore[misc] # torch is untyped here
    def get_input_embeddings(self) -> None:
        return None


def test_threads_that_pack_compute_alone(dtype: torch.dtype) -> None:
    """Else each has as many threads of OpenMP as there are cores, thousands on a large machine."""
    model = Stack(*(torch.nn.Linear(1024, 1024, dtype=dtype) for _ in range(40)))
    seen: list[int] = []
    before = len(os.listdir("/proc/self/task"))
    pack(model, lambda *_: seen.append(len(os.listdir("/proc/self/task"))))
    assert before < max(seen) <= before + usable_cores()


MEMORY = """
import torch
from pathlib import Path
from hybridd.backends.huggingface.engine.compat.onednn import Products
from hybridd.backends.huggingface.engine.weights import onednn_weights
from hybridd.backends.huggingface.engine.weights.memory import fresh
from tests.backends.huggingface.engine.test_onednn_weights import Parts, Stack

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024

onednn_weights.DTYPE = torch.{dtype}
onednn_weights.usable_cores = lambda: 8
with torch.device("meta"):
    model = Stack(*(Parts(queries=65536) for _ in range(24)))
state = model.state_dict()
mapped = {{name: fresh(one.numel(), one.dtype).view(one.shape) for name, one in state.items()}}
model.load_state_dict(mapped, assign=True)
del mapped
weights = sum(parameter.nbytes for parameter in model.parameters())
before = private()
onednn_weights.pack(model, Products(onednn_weights.DTYPE), lambda *_: None)
print((private() - before) / weights)
"""


def test_what_layers_were_put_together_in_is_given_back(dtype: torch.dtype) -> None:
    """In a process of its own: what an allocator keeps is the history's."""
    command = [sys.executable, "-W", "ignore", "-c", MEMORY.format(dtype=said(dtype))]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert float(ran.stdout) < 1.15


def fused(model: Any) -> set[str]:
    """The layers of `model` that are computed together with others."""
    kinds = {name: getattr(child.forward, "func", None) for name, child in model.named_children()}
    return {name for name, kind in kinds.items() if hasattr(kind, "__self__")}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_layers_of_the_same_rows_are_one(bias: bool, count: int, dtype: torch.dtype) -> None:
    model = Parts(bias=bias)
    rows = [torch.randn(1, count, 64, dtype=dtype) for _ in range(2)]
    with torch.inference_mode():
        expected = [model(one) for one in rows]
        pack(model)
        assert fused(model) == {"q_proj", "k_proj", "v_proj"}
        for one, wanted in zip(rows, expected, strict=True):
            for got, part in zip(model(one), wanted, strict=True):
                torch.testing.assert_close(got, part, rtol=0.02, atol=0.02)
        # In another order, one of them twice, and of other rows in between.
        calls = [(2, 0), (0, 0), (0, 0), (1, 1), (1, 0), (2, 1), (0, 1), (2, 1)]
        for place, which in calls:
            layer = (model.q_proj, model.k_proj, model.v_proj)[place]
            wanted = expected[which][place]
            torch.testing.assert_close(layer(rows[which]), wanted, rtol=0.02, atol=0.02)


def test_rows_are_let_go_of(dtype: torch.dtype) -> None:
    model = Parts()
    pack(model)
    rows = torch.randn(1, 3, 64, dtype=dtype)
    kept = weakref.ref(rows)
    with torch.inference_mode():
        model(rows)
    del rows
    assert kept() is None


@pytest.mark.parametrize("kind", ["cross", "foreign", "widths", "biases", "large", "shared"])
def test_other_layers_stay_apart(
    kind: str, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    model: Any = Parts()
    match kind:
        case "cross":
            model = Crossing()
        case "foreign":
            model = Foreign()
        case "widths":
            model = Parts(width=32)
        case "biases":
            model.k_proj.bias = None
        case "large":
            monkeypatch.setattr(same_rows, "_MOST_BYTES", 1000)
        case "shared":
            # Who comes second has its layers by themselves, or as the first has them.
            model.inner = Parts()
            model.inner.k_proj = model.k_proj
    rows = torch.randn(1, 2, 64, dtype=dtype)
    layers = [m for m in model.modules() if type(m) is torch.nn.Linear and m.in_features == 64]
    with torch.inference_mode():
        expected = [layer(rows) for layer in layers]
        pack(model)
        for layer, wanted in zip(layers, expected, strict=True):
            torch.testing.assert_close(layer(rows), wanted, rtol=0.02, atol=0.02)
    if kind == "shared":
        assert fused(model) == {"q_proj", "k_proj", "v_proj"}
        assert fused(model.inner) == {"k_proj"}
    else:
        assert fused(model) == set()
