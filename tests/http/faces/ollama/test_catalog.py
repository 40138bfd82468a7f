"""Ollama's lists of models, with a manager that is a fake."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from hybridd.http.faces.api import Answer, Reply
from hybridd.http.faces.ollama import catalog
from hybridd.http.problems import Problem
from hybridd.wire.errors import InvalidParams, ModelNotFound, Unsupported
from tests.http.faces.support import Models, record

M = record(
    "lab/m:Q4_0",
    parameters=7_240_000_000,
    quantization="Q4_0",
    capabilities=("completion", "chat", "reasoning", "infill"),
    context_length=4096,
    layers=32,
    defaults={"temperature": 0.7, "stop": ["</s>"]},
    chat_template="{{ messages }}",
    metadata={"general.license": "mit", "llama.rope.freq_base": 1e4, "card": {"kind": "model"}},
    digest="sha256:abc",
)


def value(answer: Answer) -> Any:
    assert isinstance(answer, Reply)
    return answer.value


async def test_tags_are_the_models_that_can_be_loaded() -> None:
    daemon = Models(M, record("plain"), record("broken", status="invalid"))
    first, second = value(await catalog.tags(daemon.call()))["models"]
    assert first == {
        "name": "lab/m:Q4_0",
        "model": "lab/m:Q4_0",
        "modified_at": "2026-12-01T11:48:51.250000Z",
        "size": 10,
        "digest": "abc",
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "7.2B",
            "quantization_level": "Q4_0",
        },
    }
    assert second["name"] == "plain"
    assert len(second["digest"]) == 64


async def test_show_tells_what_the_files_say() -> None:
    shown = value(await catalog.show(Models(M).call({"model": M.id, "verbose": True})))
    assert shown["template"] == "{{ messages }}"
    assert shown["capabilities"] == ["completion", "thinking", "insert"]
    assert shown["license"] == "mit"
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "general.license": "mit",
        "general.parameter_count": 7_240_000_000,
        "llama.block_count": 32,
        "llama.context_length": 4096,
        "llama.rope.freq_base": 1e4,
    }
    assert shown["parameters"].splitlines()[0].split() == ["temperature", "0.7"]
    assert shown["modelfile"].splitlines()[0] == "FROM lab/m:Q4_0"
    assert value(await catalog.show(Models(M).call({"name": M.id}))) == shown


async def test_show_wants_a_name_that_is_there() -> None:
    with pytest.raises(InvalidParams):
        await catalog.show(Models(M).call({}))
    with pytest.raises(ModelNotFound):
        await catalog.show(Models(M).call({"model": "none"}))


async def test_ps_tells_where_a_model_lies_and_how_long_it_stays() -> None:
    loaded = [
        {
            "id": M.id,
            "status": "loaded",
            "devices": [{"device": "cpu", "bytes": 3}, {"device": "cuda:0", "bytes": 4}],
            "context_length": 2048,
            "expires_in_s": 60,
        },
        {"id": "gone", "status": "loaded", "expires_in_s": None},
    ]
    first, second = value(await catalog.ps(Models(M, loaded=loaded).call()))["models"]
    assert (first["name"], first["size"], first["size_vram"]) == (M.id, 7, 4)
    assert first["context_length"] == 2048
    assert first["details"]["family"] == "llama"
    first_leaves, second_leaves = (
        datetime.fromisoformat(each["expires_at"]) for each in (first, second)
    )
    assert (second_leaves - first_leaves).days > 100 * 365  # for ever, as clients read it


async def test_codex_is_told_of_a_release_that_it_takes() -> None:
    told = value(await catalog.version(Models().call()))["version"]
    assert tuple(map(int, told.split("."))) >= (0, 13, 4)


async def test_pulling_a_model_that_is_here_is_done_at_once() -> None:
    lines = value(await catalog.pull(Models(M).call({"model": M.id})))
    assert lines == b'{"status":"success"}\n'
    whole = await catalog.pull(Models(M).call({"name": M.id, "stream": False}))
    assert value(whole) == {"status": "success"}


async def test_pulling_another_says_that_nothing_is_downloaded() -> None:
    lines = value(await catalog.pull(Models(M).call({"model": "llama3"})))
    assert "does not download" in json.loads(lines)["error"]
    with pytest.raises(Unsupported) as refused:
        await catalog.pull(Models(M).call({"model": "llama3", "stream": False}))
    assert Problem.of(refused.value).status == 400


async def test_files_are_left_to_their_owner() -> None:
    with pytest.raises(Unsupported):
        await catalog.refused(Models().call({}))
