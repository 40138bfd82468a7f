"""`/v1/models`: the catalog as OpenAI lists models, with what hybridd knows beside."""

from __future__ import annotations

from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.shared import model_names
from hybridd.http.faces.shared.listing import listed


async def list_models(call: Call) -> Answer:
    """Every model that can be loaded."""
    return Reply(
        {"object": "list", "data": [_entry(record) async for record, _ in listed(call.daemon)]}
    )


async def show(call: Call) -> Answer:
    """One model."""
    return Reply(_entry(await model_names.record(call.daemon, call.path["id"])))


def _entry(record: ModelRecord) -> dict[str, Any]:
    facts = record.facts
    return {
        "id": record.id,
        "object": "model",
        "created": int(record.modified_at),
        "owned_by": record.publisher or "local",
        "context_length": facts.context_length,
        "format": record.format,
        "capabilities": list(facts.capabilities),
    }
