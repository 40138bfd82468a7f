"""Results that are bytes already, alone and in batches, and models encoded once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hybridd.core.model import Facts, FileIdentity, Location, ModelRecord
from hybridd.rpc.encoded import (
    EncodedList,
    EncodedModels,
    Pieces,
    encode_response,
    response_line,
)


def record(id: str = "a:Q4_K_M", path: str = "/m/a.gguf") -> ModelRecord:
    return ModelRecord(
        id=id,
        facts=Facts("gguf", (Path(path),)),
        publisher=None,
        name="a",
        store="local",
        path=Path(path),
        locations=(Location("local", Path(path)),),
        status="available",
        reason=None,
        modified_at=1.5,
        files=(Path(path),),
        identity=(FileIdentity(1, 2, 3, 4),),
    )


@pytest.mark.parametrize(
    "items", [[], [b'{"id":"a"}'], [b'{"id":"a"}', b'{"id":"\xc3\xa9[]}"}'] * 100]
)
@pytest.mark.parametrize("fields", [{}, {"revision": 7, "next_cursor": '"]}'}])
def test_an_encoded_list_is_the_json_of_its_parts(
    items: list[bytes], fields: dict[str, object]
) -> None:
    result = EncodedList(fields, "models", items)
    response = {"jsonrpc": "2.0", "result": result, "id": 'x"[]}'}
    line = encode_response(response)
    pieces = response_line(response)
    assert isinstance(pieces, Pieces)
    assert pieces.size == len(line)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "id": 'x"[]}',
        "result": {**fields, "models": [json.loads(item) for item in items]},
    }


def test_other_results_are_as_they_were() -> None:
    response = {"jsonrpc": "2.0", "id": 1, "result": {"ok": True}}
    assert json.loads(encode_response(response)) == response
    bad = json.loads(encode_response({"jsonrpc": "2.0", "id": 1, "result": {"x": float("nan")}}))
    assert bad["error"]["data"]["kind"] == "internal_error"
    fields = EncodedList({"x": object()}, "models", [])
    bad = json.loads(encode_response({"jsonrpc": "2.0", "id": 1, "result": fields}))
    assert bad["error"]["data"]["kind"] == "internal_error"


def test_a_record_is_encoded_once() -> None:
    models, one = EncodedModels(), record()
    first = models.get(one)
    assert json.loads(first) == one.to_wire()
    assert models.get(one) is first
    changed = replace(one, aliases=("me",))
    assert json.loads(models.get(changed))["aliases"] == ["me"]


def test_names_that_are_no_utf_8() -> None:
    made = json.loads(EncodedModels().get(record(path="/m/\udcff.gguf")))
    assert made["source"]["path"] == "/m/%FF.gguf"


def test_what_is_gone_is_forgotten() -> None:
    models = EncodedModels()
    kept, gone = record("a"), record("b")
    first = models.get(kept)
    models.get(gone)
    models.keep_only({"a": kept})
    assert models.get(kept) is first
    assert list(models._made) == ["a"]
