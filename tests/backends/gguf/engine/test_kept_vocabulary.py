"""A vocabulary that a template kept: the model computes and says what it does with its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.weights import kept_vocabulary
from hybridd.backends.gguf.engine.weights.llama import llama
from hybridd.wire.errors import HybriddError, LoadFailed
from tests.make_gguf import GENERATING, write_tiny
from tests.support_gguf import TEXT, greedy, load
from tests.support_models import DEMO_GGUF, Answer, ask, ignore_progress, spec_for, user


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other tests, and left to others."""
    monkeypatch.setattr(kept_vocabulary, "_kept", None)


def uses(engine: GGUFEngine) -> bool:
    """Whether its words are those that were kept."""
    kept, model = kept_vocabulary._kept, engine.model
    assert model is not None
    return kept is not None and model.vocabulary.native == llama.llama_model_get_vocab(kept.native)


def told(engine: GGUFEngine, **request: Any) -> Answer:
    answer = ask(engine, **request)
    assert not answer.error
    return answer


@pytest.mark.parametrize("name", GENERATING)
def test_a_model_says_the_same_with_it(tmp_path: Path, name: str) -> None:
    asked = {"prompt": TEXT, "options": {**greedy(20), "logprobs": 2}}
    own = load(tmp_path, name)
    expected = told(own, **asked)
    own.close()
    kept_vocabulary.keep(str(tmp_path / f"{name}-F32.gguf"))
    for _ in range(2):  # closing one frees nothing that the next one needs
        engine = load(tmp_path, name)
        assert uses(engine)
        answer = told(engine, **asked)
        assert (answer.text, answer.logprobs) == (expected.text, expected.logprobs)
        engine.close()


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("tiny-bert", {"kind": "embed", "input": [TEXT, "x"], "dimensions": None}),
        ("tiny-reranker", {"kind": "rerank", "query": "water", "documents": [TEXT, "x"]}),
    ],
)
def test_an_encoder_too(tmp_path: Path, name: str, request_: dict[str, Any]) -> None:
    path = write_tiny(name, tmp_path)
    results = []
    for keep in (False, True):
        if keep:
            kept_vocabulary.keep(str(path))
        engine = GGUFEngine()
        engine.load(spec_for(path, "gguf", threads=1), ignore_progress)
        assert uses(engine) == keep
        results.append(told(engine, **request_).result)
        engine.close()
    assert results[0] == results[1]


def test_chat_template_end_tokens_and_special_ones(tmp_path: Path) -> None:
    said = []
    for keep in (False, True):
        if keep:
            kept_vocabulary.keep(str(DEMO_GGUF))
        engine = GGUFEngine()
        facts = engine.load(spec_for(DEMO_GGUF, "gguf", context_length=512), ignore_progress)
        chat = told(
            engine,
            kind="chat",
            messages=user("What is hybridd?"),
            options=greedy(0) | {"max_tokens": 60, "ignore_eos": False},
        )
        tokens = told(engine, kind="tokenize", text="a <|im_end|> b", special=True).result
        back = told(engine, kind="detokenize", tokens=tokens["tokens"]).result
        said.append((facts["capabilities"], facts["context_length"], chat.text, tokens, back))
        engine.close()
    assert said[0] == said[1]


def test_nothing_is_kept_beside_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "llama_supports_gpu_offload", lambda: True)
    path = str(write_tiny("tiny-llama", tmp_path))
    with pytest.raises(LoadFailed):
        kept_vocabulary.keep(path)
    assert kept_vocabulary.kept_of(path) is None


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = write_tiny("tiny-llama", tmp_path)
    kept_vocabulary.keep(str(path))
    os.utime(path, ns=(1, 1))
    engine = load(tmp_path, "tiny-llama")
    assert not uses(engine)
    engine.close()


def test_another_model_has_its_own(tmp_path: Path) -> None:
    kept_vocabulary.keep(str(write_tiny("tiny-qwen2", tmp_path)))
    engine = load(tmp_path, "tiny-llama")
    assert not uses(engine)
    engine.close()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 200])
def test_what_cannot_be_read_is_not_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(LoadFailed):
        kept_vocabulary.keep(str(path))
    assert kept_vocabulary.kept_of(str(path)) is None
    with pytest.raises(HybriddError):
        GGUFEngine().load(spec_for(path, "gguf"), ignore_progress)
