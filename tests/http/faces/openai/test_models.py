"""The catalog as OpenAI lists models."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.openai import models
from hybridd.wire.errors import ModelNotFound
from tests.http.faces.openai.support import replied, route
from tests.http.faces.support import Models, record

SMALL = record("lab/s", context_length=4096, quantization="Q4_0", size_bytes=10)
BROKEN = record("lab/x", status="invalid", reason="cut")
OTHER = record("o", publisher=None, capabilities=("embedding",))
LOADED: dict[str, Any] = {"id": "lab/s", "status": "loaded"}
SHOWN = {
    "id": "lab/s",
    "object": "model",
    "created": 1796125731,
    "owned_by": "lab",
    "status": "loaded",
    "format": "gguf",
    "capabilities": ["completion", "chat"],
    "size_bytes": 10,
    "context_length": 4096,
    "quantization": "Q4_0",
}


async def test_the_list() -> None:
    daemon = Models(SMALL, BROKEN, OTHER, loaded=(LOADED,))
    value = await replied("/models", daemon, None)
    other = {
        "id": "o",
        "object": "model",
        "created": 1796125731,
        "owned_by": "local",
        "status": "available",
        "format": "gguf",
        "capabilities": ["embedding"],
        "size_bytes": 10,
    }
    assert value == {"object": "list", "data": [SHOWN, other]}


async def test_a_list_of_thousands() -> None:
    daemon = Models(*(record(f"lab/{number:04}") for number in range(2000)))
    value = await replied("/models", daemon, None)
    assert [each["id"] for each in value["data"]] == sorted(daemon.records)


async def test_an_empty_list() -> None:
    assert await replied("/models", Models(), None) == {"object": "list", "data": []}


async def test_one() -> None:
    answer: Any = await models.show(Models(SMALL, loaded=(LOADED,)).call(id="lab/s"))
    assert answer.value == SHOWN


async def test_none() -> None:
    with pytest.raises(ModelNotFound):
        await route("/models/{id}").handler(Models().call(id="lab/s"))
