"""`/v1/models`: the catalog as OpenAI lists models, with what hybridd knows beside."""

from __future__ import annotations

from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.shared import model_names
from hybridd.http.faces.shared.listing import listed
from hybridd.serving.views import Overlay
from hybridd.wire.framing import encode_line


async def list_models(call: Call) -> Answer:
    """Every model that can be loaded."""
    # Encoded in the slices in which they come: ten thousand at once would hold the loop.
    entries = [
        encode_line(entry(record, running)).rstrip(b"\n")
        async for record, running in listed(call.daemon)
    ]
    return Reply(b'{"object":"list","data":[%b]}' % b",".join(entries))


async def show(call: Call) -> Answer:
    """One model."""
    record = await model_names.record(call.daemon, call.path["id"])
    return Reply(entry(record, call.daemon.manager.overlay(record.id)))


def entry(record: ModelRecord, running: Overlay | None) -> dict[str, Any]:
    """One model as OpenAI has it, and beside it, by names of hybridd's own, what is known more."""
    facts = record.facts
    shown: dict[str, Any] = {
        "id": record.id,
        "object": "model",
        "created": int(record.modified_at),
        "owned_by": record.publisher or "local",
        "status": (running and running.status) or record.status,
        "format": record.format,
        "capabilities": list(facts.capabilities),
        "size_bytes": facts.size_bytes,
    }
    if facts.context_length is not None:
        shown["context_length"] = facts.context_length
    if facts.quantization is not None:
        shown["quantization"] = facts.quantization
    return shown
