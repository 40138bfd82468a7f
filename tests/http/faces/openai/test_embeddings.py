"""Vectors, as numbers or packed."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from hybridd.http.faces.api import Ask
from hybridd.wire.errors import InvalidParams
from tests.http.faces.openai.support import asked, models, replied
from tests.http.faces.support import Models

PATH = "/embeddings"


def embedder() -> Models:
    """A model that reads tokens as letters; a text's vector begins with its length."""

    def answer(ask: Ask) -> Mapping[str, Any]:
        if ask.kind == "detokenize":
            return {"text": "".join(map(chr, ask.request["tokens"]))}
        vectors = [f"[{len(text)},-0.5,1e-05]" for text in ask.request["input"]]
        return {
            "model": "lab/m",
            "embeddings": vectors,
            "dimensions": 3,
            "usage": {"prompt_tokens": 6, "total_tokens": 6},
        }

    daemon = models({})
    daemon.answer = answer
    return daemon


async def test_numbers() -> None:
    value = await replied(PATH, embedder(), {"model": "m", "input": ["a", "bcd"]})
    assert value == {
        "object": "list",
        "model": "lab/m",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1, -0.5, 1e-05]},
            {"object": "embedding", "index": 1, "embedding": [3, -0.5, 1e-05]},
        ],
    }


async def test_packed_in_base64_as_clients_unpack_it() -> None:
    body = {"model": "m", "input": "abc", "encoding_format": "base64"}
    value = await replied(PATH, embedder(), body)
    packed = base64.b64decode(value["data"][0]["embedding"], validate=True)
    assert struct.unpack("<3f", packed) == pytest.approx((3, -0.5, 1e-05))


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([97, 98], ["ab"]),
        ([[97], [98, 99]], ["a", "bc"]),
    ],
)
async def test_inputs_are_texts_or_tokens(given: Any, texts: list[str]) -> None:
    daemon = embedder()
    value = await replied(PATH, daemon, {"model": "m", "input": given, "dimensions": 3})
    assert daemon.asked[-1].request == {"input": texts, "dimensions": 3}
    assert [entry["index"] for entry in value["data"]] == list(range(len(texts)))


async def test_other_fields() -> None:
    body = {"input": "a", "user": "u", "dimensions": None, "encoding_format": None, "keepalive": 5}
    ask = await asked(PATH, body)
    assert (ask.kind, ask.request, ask.options, ask.keepalive) == (
        "embed",
        {"input": ["a"], "dimensions": None},
        {},
        5,
    )


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [None]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
async def test_a_bad_field_is_named(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await replied(PATH, embedder(), {"model": "m", **sent})
    assert caught.value.data["field"] == field
