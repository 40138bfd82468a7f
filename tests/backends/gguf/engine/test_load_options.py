"""Load options of the GGUF engine: each has its effect, and what is said to be in force is."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.api import LoadedFacts
from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.weights.load_options import CACHE_TYPES, LoadOptions
from hybridd.backends.gguf.engine.weights.model import _params, locked_bytes
from hybridd.wire.errors import HybriddError, InvalidParams, Unsupported
from tests.make_gguf import write_tiny
from tests.support_gguf import WORDS, greedy
from tests.support_models import (
    DEMO_HUGGINGFACE,
    Answer,
    ask,
    ignore_progress,
    make_engine,
    spec_for,
)

PROMPT = " ".join(WORDS * 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny("tiny-llama", tmp_path_factory.mktemp("tiny"))


def loaded(path: Path, **options: Any) -> tuple[GGUFEngine, LoadedFacts]:
    engine = GGUFEngine()
    given = {"context_length": 256, "threads": 1, "parallel": 2, **options}
    return engine, engine.load(spec_for(path, "gguf", **given), ignore_progress)


def answer(path: Path, **options: Any) -> tuple[Answer, LoadedFacts]:
    engine, facts = loaded(path, **options)
    made = ask(engine, prompt=PROMPT, options={**greedy(12), "logprobs": 1})
    engine.close()
    return made, facts


def distance(one: Answer, other: Answer) -> float:
    """How far the first tokens' log probabilities are apart; infinite for other tokens."""
    a, b = one.logprobs[0], other.logprobs[0]
    return abs(a["logprob"] - b["logprob"]) if a["id"] == b["id"] else float("inf")


@pytest.fixture(scope="module")
def usual(path: Path) -> Answer:
    return answer(path)[0]


def test_mlock_that_the_system_refused_is_not_said_to_be_in_force(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        if locked_bytes():
            pytest.skip("something else in this process is locked")
        engine, facts = loaded(path, mlock=True)
        refused = locked_bytes() == 0
        engine.close()
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    if not refused:
        pytest.skip("this process may lock memory whatever its limit says")
    assert facts["load_options"]["mlock"] is False
    (note,) = facts["notes"]
    assert note.startswith("the weights are not locked in memory: this process may lock 0 B")


@pytest.mark.parametrize("mmap", [True, False])
def test_mlock_keeps_the_weights_in_memory(path: Path, usual: Answer, mmap: bool) -> None:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit not in (resource.RLIM_INFINITY, -1) and limit < 2 * path.stat().st_size:
        pytest.skip("this process may not lock as much memory")
    before = locked_bytes()
    engine, facts = loaded(path, mlock=True, mmap=mmap)
    assert locked_bytes() - before >= facts["memory"]["weights_bytes"]
    assert facts["load_options"]["mlock"] is True
    assert ask(engine, prompt=PROMPT, options=greedy(12)).text == usual.text
    engine.close()


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "linear", "factor": 4.0},
        {"type": "yarn", "factor": 4.0, "original_context_length": 64},
        {"freq_base": 500_000.0},
    ],
)
def test_rope_scaling_changes_what_is_computed(
    path: Path, usual: Answer, rope: dict[str, Any]
) -> None:
    made, facts = answer(path, rope_scaling=rope)
    assert facts["load_options"]["rope_scaling"] == rope
    assert distance(made, usual) > 0.01


def test_rope_scaling_by_one_is_none(path: Path, usual: Answer) -> None:
    made, _ = answer(path, rope_scaling={"type": "linear", "factor": 1.0})
    assert distance(made, usual) == 0
    assert "rope_scaling" not in answer(path)[1]["load_options"]


@pytest.mark.parametrize("kind", CACHE_TYPES)
def test_every_cache_type_takes_its_bytes_and_answers(path: Path, usual: Answer, kind: str) -> None:
    made, facts = answer(path, kv_cache_type=kind)
    assert facts["load_options"]["kv_cache_type"] == kind
    assert made.tokens == 12
    bits = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5,
            "q4_0": 4.5, "iq4_nl": 4.5}[kind]  # fmt: skip
    cells, width, layers = 2 * 256, 2 * 32, 2
    # The log gives hundredths of a MiB.
    expected = cells * width * layers * bits / 8
    assert facts["memory"]["kv_cache_bytes"] == pytest.approx(expected, abs=0.011 * 2**20)
    if kind in ("f32", "f16", "bf16", "q8_0"):
        assert distance(made, usual) < 0.2


@pytest.mark.parametrize("flash", [True, False, "auto"])
def test_flash_attention_on_and_off(path: Path, usual: Answer, flash: Any) -> None:
    made, facts = answer(path, flash_attention=flash)
    assert facts["load_options"]["flash_attention"] == flash
    assert distance(made, usual) < 0.01


def test_a_quantized_cache_needs_flash_attention(path: Path) -> None:
    with pytest.raises(InvalidParams, match="needs flash attention"):
        loaded(path, flash_attention=False, kv_cache_type="q8_0")


@pytest.mark.parametrize(
    ("options", "in_force"),
    [
        ({"ubatch_size": 16}, 16),
        ({"batch_size": 16, "ubatch_size": 64}, 16),
        ({"ubatch_size": 1}, 2),  # a row for each sequence at least
        ({"ubatch_size": 4096, "batch_size": 4096}, 256),  # no more than the context
    ],
)
def test_batches_are_as_large_as_was_asked(
    path: Path, usual: Answer, options: dict[str, int], in_force: int
) -> None:
    engine, facts = loaded(path, **options)
    assert facts["load_options"]["ubatch_size"] == in_force
    tokens = len(ask(engine, "tokenize", text=PROMPT).result["tokens"])
    engine.submit({"id": 1, "kind": "generate", "prompt": PROMPT, "options": greedy(1)})
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
    assert steps == -(-tokens // in_force)
    assert ask(engine, prompt=PROMPT, options=greedy(12)).text == usual.text
    engine.close()


# ---------------------------------------------------------------- where there is no GPU


@pytest.fixture
def no_gpu() -> None:
    from hybridd.backends.gguf.engine.weights.llama import llama

    if llama.llama_supports_gpu_offload():
        pytest.skip("this build of llama.cpp has a GPU backend")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", [10, 1, 1.0, 0.5, 0, "auto"])
def test_layers_on_a_gpu_that_is_not_there_are_none(path: Path, asked: Any) -> None:
    engine, facts = loaded(path, gpu_layers=asked, tensor_split=[1, 3])
    engine.close()
    assert facts["load_options"]["gpu_layers"] == 0
    assert "tensor_split" not in facts["load_options"]


@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_by_name_is_refused(path: Path) -> None:
    with pytest.raises(Unsupported):
        loaded(path, device="cuda:0")


def test_llama_cpp_gets_the_shares_of_the_gpus(path: Path) -> None:
    options = LoadOptions.from_wire({"tensor_split": [1, 3]})
    params, kept = _params(options, path)
    assert kept is not None
    assert list(params.tensor_split[:3]) == [1, 3, 0]


@pytest.mark.parametrize(("share", "layers"), [(0.0, 0), (0.4, 1), (0.7, 2), (1.0, 3)])
def test_llama_cpp_gets_a_share_of_the_layers(path: Path, share: float, layers: int) -> None:
    """Of two layers and the output layer."""
    options = replace(LoadOptions.from_wire({}), gpu_layers=share)
    assert _params(options, path)[0].n_gpu_layers == layers


@pytest.mark.parametrize(
    "option", [{"mlock": True}, {"tensor_split": [1]}, {"rope_scaling": {"factor": 2}}]
)
def test_the_huggingface_engine_refuses_what_it_does_not_have(
    option: dict[str, Any],
) -> None:
    engine = make_engine("huggingface")
    with pytest.raises(HybriddError) as caught:
        engine.load(spec_for(DEMO_HUGGINGFACE, "huggingface", **option), ignore_progress)
    assert caught.value.data["capability"] in option
