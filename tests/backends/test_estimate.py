"""The memory formulas, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.backends.api import Facts
from hybridd.backends.arithmetic import AUTO_CONTEXT_LENGTH, context
from hybridd.backends.gguf import BACKEND as GGUF
from hybridd.backends.huggingface import BACKEND as HUGGINGFACE
from hybridd.backends.huggingface.estimate import load_dtype

# Qwen2.5-0.5B: llama.cpp logs 6.00 MiB + 6.00 MiB of KV cache for 1024 cells in f16.
QWEN = Facts(
    format="gguf",
    files=(Path("q.gguf"),),
    parameters=494_032_768,
    weights_bytes=391_000_000,
    context_length=32768,
    layers=24,
    heads=14,
    kv_heads=(2,),
    head_dim_k=64,
    head_dim_v=64,
    vocab_size=151_936,
    embedding_length=896,
    feed_forward_length=4864,
)


@pytest.mark.parametrize(
    ("options", "length", "parallel", "cells"),
    [
        ({}, 8192, 1, 8192),
        ({"context_length": "auto", "parallel": "auto", "kv_cells": "auto"}, 8192, 1, 8192),
        ({"context_length": 4096, "parallel": 4}, 4096, 4, 16384),
        ({"context_length": 4096, "parallel": 4, "kv_cells": 5000}, 4096, 4, 5000),
        ({"context_length": 100_000}, 100_000, 1, 100_000),
    ],
)
def test_context(options: dict[str, Any], length: int, parallel: int, cells: int) -> None:
    assert context(QWEN, options) == (length, parallel, cells)


def test_auto_takes_no_more_than_the_model_has() -> None:
    small = Facts("gguf", (), context_length=2048)
    assert context(small, {}).length == 2048
    assert context(Facts("gguf", ()), {}).length == AUTO_CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context_length": 1024}, 12 * 2**20),
        ({"context_length": 1024, "parallel": 2}, 24 * 2**20),
        ({"context_length": 1024, "parallel": 4, "kv_cells": 2048}, 24 * 2**20),
        # llama.cpp makes cells in blocks of 256: for each stream, or for all that share them.
        ({"context_length": 1000, "parallel": 2}, 24 * 2**20),
        ({"context_length": 1000, "parallel": 2, "kv_cells": 1025}, 15 * 2**20),
        ({"context_length": 1024, "kv_cache_type": "f32"}, 24 * 2**20),
        ({"context_length": 1024, "kv_cache_type": "q8_0"}, 12 * 2**20 * 34 // 64),
        ({"context_length": 1024, "kv_cache_type": "Q4_0"}, 12 * 2**20 * 18 // 64),
    ],
)
def test_gguf_cache(options: dict[str, Any], expected: int) -> None:
    assert GGUF.estimate(QWEN, options).kv_cache_bytes == expected


def test_gguf_weights_and_compute() -> None:
    made = GGUF.estimate(QWEN, {"context_length": 1024})
    assert made.weights_bytes == QWEN.weights_bytes
    # What llama.cpp logs for this model as the engine opens it: logits for one row only.
    assert 39_332_085 <= made.compute_bytes < 60 * 2**20
    half = GGUF.estimate(QWEN, {"context_length": 1024, "ubatch_size": 256})
    logits = 2 * 151_936 * 4
    assert (half.compute_bytes - logits) * 2 == made.compute_bytes - logits
    more = GGUF.estimate(QWEN, {"context_length": 1024, "parallel": 4, "kv_cells": 1024})
    assert more.compute_bytes - made.compute_bytes == 3 * logits
    plain = GGUF.estimate(QWEN, {"context_length": 1024, "flash_attention": False})
    assert plain.compute_bytes - made.compute_bytes == 512 * 1024 * 14 * 4
    parts = made.weights_bytes + made.kv_cache_bytes + made.compute_bytes + made.overhead_bytes
    assert made.reserved_bytes == parts
    assert made.resident_bytes == parts - made.compute_bytes


def _stored(**by_dtype: int) -> Facts:
    return Facts(
        "huggingface",
        (),
        weights_bytes=sum(by_dtype.values()),
        layers=2,
        kv_heads=(4,),
        head_dim_k=8,
        head_dim_v=8,
        metadata={"safetensors": {"bytes_by_dtype": by_dtype, "embedding_bytes": 0}},
    )


@pytest.mark.parametrize(
    ("stored", "options", "dtype", "weights"),
    [
        ({"F16": 1000}, {}, "float32", 2000),
        ({"F16": 1000}, {"device": "cpu"}, "float32", 2000),
        ({"F16": 1000}, {"device": "cuda:0"}, "float16", 1000),
        ({"F16": 1000}, {"dtype": "float16"}, "float16", 1000),
        ({"BF16": 1000}, {}, "bfloat16", 1000),
        ({"BF16": 1000}, {"dtype": "float32"}, "float32", 2000),
        ({"F32": 1000}, {"dtype": "auto"}, "float32", 1000),
        ({"F32": 1000}, {"dtype": "bfloat16"}, "bfloat16", 500),
        ({"U8": 1000, "F16": 100}, {}, "float32", 1200),
        ({}, {}, "bfloat16", 0),
    ],
)
def test_huggingface_dtypes(
    stored: dict[str, int], options: dict[str, Any], dtype: str, weights: int
) -> None:
    facts = _stored(**stored)
    assert load_dtype(facts, options) == dtype
    assert HUGGINGFACE.estimate(facts, options).weights_bytes == weights


def test_huggingface_cache_by_dtype() -> None:
    options = {"context_length": 100, "parallel": 3}
    made = HUGGINGFACE.estimate(_stored(F32=4), options)
    assert made.kv_cache_bytes == 2 * 4 * 16 * 300 * 4
    assert HUGGINGFACE.estimate(_stored(BF16=4), options).kv_cache_bytes * 2 == made.kv_cache_bytes
    shared = HUGGINGFACE.estimate(_stored(F32=4), {**options, "kv_cells": 200})
    assert shared.kv_cache_bytes == 2 * 4 * 16 * 200 * 4


def test_huggingface_quantized_at_load() -> None:
    facts = _stored(BF16=2_000_000)
    eight = HUGGINGFACE.estimate(facts, {"quantization": "int8"}).weights_bytes
    four = HUGGINGFACE.estimate(facts, {"quantization": "int4"}).weights_bytes
    assert (eight, four) == (1_062_500, 562_500)
    assert HUGGINGFACE.estimate(facts, {"quantization": "none"}).weights_bytes == 2_000_000


sizes = some.none() | some.integers(0, 2**20)


@given(
    length=some.sampled_from(["auto", 1, 512, 2**20]) | some.none(),
    parallel=some.sampled_from(["auto", 1, 8]) | some.none(),
    layers=sizes,
    heads=some.none() | some.lists(some.integers(0, 1000), min_size=1, max_size=4),
    width=sizes,
    vocabulary=sizes,
)
def test_any_facts_have_an_estimate(
    length: Any, parallel: Any, layers: Any, heads: Any, width: Any, vocabulary: Any
) -> None:
    facts = Facts(
        "any",
        (),
        weights_bytes=10,
        layers=layers,
        kv_heads=None if heads is None else tuple(heads),
        head_dim_k=width,
        head_dim_v=width,
        vocab_size=vocabulary,
        embedding_length=width,
    )
    options = {"context_length": length, "parallel": parallel}
    for backend in (GGUF, HUGGINGFACE):
        made = backend.estimate(facts, options)
        parts = (made.weights_bytes, made.kv_cache_bytes, made.compute_bytes, made.overhead_bytes)
        assert all(isinstance(part, int) and part >= 0 for part in parts)
        more = backend.estimate(facts, {**options, "context_length": made.context_length + 1})
        assert more.reserved_bytes >= made.reserved_bytes
