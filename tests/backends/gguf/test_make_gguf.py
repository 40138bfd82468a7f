"""The random-weight models of `tests.make_gguf` run in llama.cpp as it is installed."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import support_models  # noqa: F401 - closes what llama_cpp leaves open
from tests.make_gguf import GENERATING, MODELS, write_tiny

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from llama_cpp import llama_cpp as llama  # noqa: TID253

TEXT = "The people could find water, and so could their first 7 words: \u00e9\u4e2d."


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@contextmanager
def opened(path: Path, **params: Any) -> Iterator[tuple[Any, Any]]:
    """A model and a context of it."""
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    assert model, f"{path.name} was not loaded"
    try:
        settings = llama.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 256
        settings.n_threads = settings.n_threads_batch = 1
        for name, value in params.items():
            setattr(settings, name, value)
        context = llama.llama_init_from_model(model, settings)
        assert context, f"there is no context for {path.name}"
        try:
            yield model, context
        finally:
            llama.llama_free(context)
    finally:
        llama.llama_model_free(model)


def tokenized(model: Any, text: str) -> list[int]:
    data = text.encode()
    tokens = (llama.llama_token * 256)()
    vocabulary = llama.llama_model_get_vocab(model)
    count = llama.llama_tokenize(vocabulary, data, len(data), tokens, 256, True, False)
    assert count > 0
    return list(tokens[:count])


def detokenized(model: Any, tokens: list[int]) -> str:
    array = (llama.llama_token * len(tokens))(*tokens)
    buffer = ctypes.create_string_buffer(1024)
    vocabulary = llama.llama_model_get_vocab(model)
    size = llama.llama_detokenize(vocabulary, array, len(tokens), buffer, 1024, True, False)
    return buffer.raw[:size].decode()


def decode(context: Any, tokens: list[int], position: int = 0) -> None:
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for at, token in enumerate(tokens):
        batch.token[at], batch.pos[at] = token, position + at
        batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
        batch.logits[at] = 1
    result = llama.llama_decode(context, batch)
    llama.llama_batch_free(batch)
    assert result == 0


def logits_after(context: Any, model: Any, tokens: list[int], position: int = 0) -> list[float]:
    decode(context, tokens, position)
    count = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    values = llama.llama_get_logits_ith(context, -1)[:count]
    assert all(map(math.isfinite, values))
    assert max(values) - min(values) > 1, "the logits say nothing"
    return list(values)


def best(values: list[float]) -> int:
    return values.index(max(values))


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    first = write_tiny(name, tmp_path / "a").read_bytes()
    assert first == write_tiny(name, tmp_path / "b").read_bytes()
    assert len(first) < 2**21


@pytest.mark.parametrize("name", GENERATING)
def test_text_survives_the_vocabulary(name: str, directory: Path) -> None:
    with opened(write_tiny(name, directory)) as (model, _):
        tokens = tokenized(model, TEXT)
        assert detokenized(model, tokens) == TEXT
        assert len(tokens) < 0.7 * len(TEXT.encode()), "words should be tokens"


@pytest.mark.parametrize("name", GENERATING)
def test_generates_and_remembers(name: str, directory: Path) -> None:
    """What follows depends on the whole prompt, and a token at a time equals all at once."""
    with opened(write_tiny(name, directory)) as (model, context):
        prompt = tokenized(model, TEXT)
        memory = llama.llama_get_memory(context)
        together = logits_after(context, model, prompt)
        made = [best(together)]
        for step in range(30):
            made.append(best(logits_after(context, model, made[-1:], len(prompt) + step)))
        assert len(set(made)) > 3, "greedy output should not only repeat itself"

        llama.llama_memory_clear(memory, True)
        for at, token in enumerate(prompt):
            apart = logits_after(context, model, [token], at)
        assert apart == pytest.approx(together, abs=0.02)  # the KV cache is F16

        llama.llama_memory_clear(memory, True)
        other = [*tokenized(model, "a"), *prompt[2:]]
        assert logits_after(context, model, other) != pytest.approx(together, abs=0.05)


def test_kinds_of_memory(directory: Path) -> None:
    """Each stands for what makes prefix reuse differ."""
    found = {}
    for name in GENERATING:
        with opened(write_tiny(name, directory)) as (model, _):
            recurrent = bool(llama.llama_model_is_recurrent(model))
            hybrid = bool(llama.llama_model_is_hybrid(model))
            window = int(llama.llama_model_n_swa(model))
            found[name] = (recurrent, hybrid, window)
    plain = (False, False, 0)
    assert found == {
        **dict.fromkeys(GENERATING, plain),
        "tiny-gemma3": (False, False, 64),
        "tiny-mamba": (True, False, 0),
        "tiny-jamba": (False, True, 0),
        "tiny-lfm2": (False, True, 0),
    }


def pooled(context: Any, model: Any, text: str, size: int) -> list[float]:
    tokens = tokenized(model, text)
    decode(context, tokens)
    values = list(llama.llama_get_embeddings_seq(context, 0)[:size])
    assert all(map(math.isfinite, values))
    return values


def test_embedder(directory: Path) -> None:
    with opened(write_tiny("tiny-bert", directory), embeddings=True) as (model, context):
        assert llama.llama_pooling_type(context) == llama.LLAMA_POOLING_TYPE_MEAN
        size = llama.llama_model_n_embd(model)
        first = pooled(context, model, "look at the water", size)
        assert pooled(context, model, "look at the water", size) == first
        assert pooled(context, model, "write a number", size) != pytest.approx(first, abs=0.01)


def test_reranker(directory: Path) -> None:
    with opened(write_tiny("tiny-reranker", directory), embeddings=True) as (model, context):
        assert llama.llama_pooling_type(context) == llama.LLAMA_POOLING_TYPE_RANK
        assert llama.llama_model_n_cls_out(model) == 1
        scores = {pooled(context, model, text, 1)[0] for text in ("water", "a number", "oil")}
        assert len(scores) == 3
