"""Records as the wire shows them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.model import Facts, FileIdentity, Location, ModelRecord, printable
from hybridd.wire.types import Model, ModelDetails

PATH = Path("/models/p/r/x.gguf")


def record(**more: object) -> ModelRecord:
    facts = Facts(
        "gguf",
        (PATH,),
        size_bytes=10,
        parameters=5,
        quantization="Q4_K_M",
        bits_per_weight=4.5,
        capabilities=("completion",),
        metadata={"a": 1},
        chat_template="{{ x }}",
        defaults={"top_k": 3},
    )
    made = ModelRecord(
        id="p/r:Q4_K_M",
        facts=facts,
        publisher="p",
        name="r",
        store="local",
        path=PATH,
        locations=(Location("local", PATH),),
        status="available",
        reason=None,
        modified_at=3.5,
        files=(PATH,),
        identity=(FileIdentity(1, 2, 10, 3),),
        base="r",
    )
    return made if not more else ModelRecord(**{**_values(made), **more})  # type: ignore[arg-type]


def _values(made: ModelRecord) -> dict[str, object]:
    return {name: getattr(made, name) for name in ModelRecord.__dataclass_fields__}


def test_to_wire_is_the_protocols_model() -> None:
    assert record().to_wire() == {
        "id": "p/r:Q4_K_M",
        "aliases": [],
        "format": "gguf",
        "publisher": "p",
        "name": "r",
        "base": "r",
        "size_bytes": 10,
        "parameters": 5,
        "quantization": {"name": "Q4_K_M", "bits_per_weight": 4.5},
        "capabilities": ["completion"],
        "status": "available",
        "stale": False,
        "source": {"store": "local", "path": str(PATH)},
        "locations": [{"store": "local", "path": str(PATH)}],
        "modified_at": 3.5,
    }
    assert set(record().to_wire()) <= set(Model._fields)


def test_a_running_instance_is_laid_over() -> None:
    made = record().to_wire(status="loaded", stale=True)
    assert (made["status"], made["stale"]) == ("loaded", True)
    assert record(status="invalid", reason="cut").to_wire()["reason"] == "cut"
    assert record().to_wire(status="quarantined", reason="three deaths")["reason"] == "three deaths"


def test_details() -> None:
    made = record().details()
    assert made == {
        "metadata": {"a": 1, "defaults": {"top_k": 3}},
        "files": [{"path": str(PATH), "size_bytes": 10}],
        "chat_template": "{{ x }}",
    }
    assert set(made) <= set(ModelDetails._fields)


@given(some.binary(min_size=1))
def test_any_file_name_is_printable(raw: bytes) -> None:
    shown = printable(os.fsdecode(raw))
    json.dumps(shown, ensure_ascii=False).encode()
    for n in range(128, 256):
        if bytes([n]) == raw:
            assert shown == f"%{n:02X}"


def test_printable_leaves_unicode_alone() -> None:
    assert printable("Größe 模型") == "Größe 模型"
    assert printable(os.fsdecode("ä".encode() + b"\xff")) == "ä%FF"


def test_the_content_changes_with_the_files_and_with_nothing_else() -> None:
    made = record().content
    assert (
        record(id="other", name="other", path=Path("/elsewhere"), status="invalid").content == made
    )
    for other in (
        {"identity": (FileIdentity(1, 2, 11, 3),)},
        {"identity": (FileIdentity(1, 2, 10, 4),)},
        {"identity": (FileIdentity(1, 3, 10, 3),)},
        {"identity": (FileIdentity(1, 2, 10, 3), FileIdentity(1, 2, 10, 3))},
        {"digest": "sha256:00"},
    ):
        assert record(**other).content != made, other
    assert record(identity=(FileIdentity(9, 2, 10, 3),)).content == made, "devices get new numbers"
