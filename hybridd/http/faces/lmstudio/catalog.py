"""LM Studio's `/api/v0/models`: what there is, and whether it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.shared import model_names
from hybridd.http.faces.shared.listing import listed


async def list_models(call: Call) -> Answer:
    """Every model that can be loaded."""
    loaded = await running(call)
    data = [entry(record, loaded.get(record.id)) async for record, _ in listed(call.daemon)]
    return Reply({"object": "list", "data": data})


async def show(call: Call) -> Answer:
    """One model."""
    record = await model_names.record(call.daemon, call.path["id"])
    return Reply(entry(record, (await running(call)).get(record.id)))


async def running(call: Call) -> dict[str, Mapping[str, Any]]:
    """The protocol's `Loaded` of the models in memory, by id."""
    loaded = await call.daemon.manager.loaded()
    return {each["id"]: each for each in loaded if each["status"] == "loaded"}


def entry(record: ModelRecord, loaded: Mapping[str, Any] | None) -> dict[str, Any]:
    """A model of the list."""
    facts = record.facts
    made = {
        "id": record.id,
        "object": "model",
        "type": _type(facts.capabilities),
        "publisher": record.publisher,
        "arch": facts.architecture,
        "compatibility_type": facts.format,
        "quantization": facts.quantization,
        "state": "loaded" if loaded else "not-loaded",
        "max_context_length": facts.context_length,
        "capabilities": ["tool_use"] if "tools" in facts.capabilities else [],
    }
    if loaded:
        made["loaded_context_length"] = loaded.get("context_length")
    return made


def _type(capabilities: tuple[str, ...]) -> str:
    if "embedding" in capabilities:
        return "embeddings"
    return "vlm" if "vision" in capabilities else "llm"
