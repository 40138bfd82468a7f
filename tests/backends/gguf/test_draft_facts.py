"""What headers tell of draft models is what the engine says of them once they are loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf", reason="gguf is not installed")
import gguf

from hybridd.backends.gguf import BACKEND
from hybridd.backends.gguf.draft_facts import draft_rows
from hybridd.backends.gguf.estimate import OVERHEAD_BYTES
from hybridd.backends.gguf.inspect import inspect
from hybridd.backends.gguf.types import RECURRENT
from hybridd.core.model import Facts
from hybridd.wire.errors import HybriddError, LoadFailed, Unsupported
from tests.make_gguf import GENERATING, write_tiny
from tests.support_models import DEMO_GGUF

KNOWN = ["tiny-llama", "tiny-qwen2", "tiny-gemma3", "tiny-mamba", "tiny-lfm2"]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Facts]:
    directory = tmp_path_factory.mktemp("tiny")
    return {name: inspect(write_tiny(name, directory)) for name in GENERATING}


def refusal(facts: dict[str, Facts], model: str, draft: str) -> HybriddError | None:
    try:
        BACKEND.drafting.check("demo", facts[model], draft, facts[draft])
    except HybriddError as exc:
        return exc
    return None


@pytest.mark.parametrize("model", KNOWN)
@pytest.mark.parametrize("draft", KNOWN)
def test_the_engine_says_the_same(
    facts: dict[str, Facts], tmp_path: Path, model: str, draft: str
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    from tests.support_gguf import load

    said = refusal(facts, model, draft)
    if said is None:  # of these models the headers show all
        load(tmp_path, model, draft_model=draft).close()
        return
    with pytest.raises(type(said)) as caught:
        load(tmp_path, model, draft_model=draft)
    assert caught.value.to_wire() == said.to_wire()


def with_tokenizer(facts: Facts, **changed: Any) -> Facts:
    card = facts.metadata["card"]
    tokenizer = {**card["tokenizer"], **changed}
    return replace(facts, metadata={**facts.metadata, "card": {**card, "tokenizer": tokenizer}})


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"more": 128}, False),
        ({"more": 129}, True),
        ({"model": "llama"}, True),
        ({"model": "gemma4"}, False),  # llama.cpp's BPE by another name
        ({"model": None, "tokens": None}, False),
        ({"pre": "other"}, False),
    ],
)
def test_vocabularies(facts: dict[str, Facts], changed: dict[str, Any], refused: bool) -> None:
    model = facts["tiny-llama"]
    if more := changed.pop("more", 0):
        changed["tokens"] = model.metadata["card"]["tokenizer"]["tokens"] + more
    both = {"tiny-llama": model, "other": with_tokenizer(model, **changed)}
    for one, other in (("tiny-llama", "other"), ("other", "tiny-llama")):
        found = refusal(both, one, other)
        assert isinstance(found, LoadFailed) is refused
        if found is not None:
            assert found.data["reason"] == "other vocabulary"


def test_recurrent_architectures_are_llama_cpps(facts: dict[str, Facts]) -> None:
    assert set(gguf.MODEL_ARCH_NAMES.values()) >= RECURRENT
    for name, found in facts.items():
        refused = refusal({"llama": facts["tiny-llama"], name: found}, name, name)
        assert isinstance(refused, Unsupported) == (found.architecture in RECURRENT)


def test_what_a_draft_model_adds() -> None:
    facts = inspect(DEMO_GGUF)
    options = {"context_length": 1024, "parallel": 2, "kv_cells": 2048, "kv_cache_type": "q8_0"}
    plain = BACKEND.estimate(facts, options)
    with_draft = BACKEND.estimate(facts, {**options, "draft_model": "x"})
    rows = draft_rows(2) * 2 * 4 * (facts.vocab_size or 0)
    assert with_draft.compute_bytes == plain.compute_bytes + rows
    assert replace(with_draft, compute_bytes=plain.compute_bytes) == plain
    model = replace(facts, files=(Path("another"),))
    added = BACKEND.drafting.estimate(model, facts, {**options, "draft_model": "x"})
    f16 = BACKEND.estimate(facts, {**options, "kv_cache_type": "f16"})
    assert added == replace(f16, overhead_bytes=f16.overhead_bytes - OVERHEAD_BYTES)
    assert added.weights_bytes == facts.weights_bytes
    # It has no more context than it was trained for.
    short = BACKEND.drafting.estimate(model, replace(facts, context_length=256), options)
    assert short.kv_cache_bytes == added.kv_cache_bytes // 4
    # The weights of a model that drafts for itself are there already.
    assert BACKEND.drafting.estimate(facts, facts, options) == replace(added, weights_bytes=0)
