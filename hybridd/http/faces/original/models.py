"""`/api/v1/models…`: the catalog, in the shape that LM Studio's users know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Call, Reply, Route
from hybridd.http.faces.shared.listing import listed
from hybridd.serving.views import Overlay

_UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "K"))


async def list_models(call: Call) -> Answer:
    """Every model that can be loaded."""
    running = {each["id"]: each for each in await call.daemon.manager.loaded()}
    models = [
        entry(record, over, running.get(record.id)) async for record, over in listed(call.daemon)
    ]
    return Reply({"models": models})


async def show(call: Call) -> Answer:
    """One model, with what its files say of it."""
    manager = call.daemon.manager
    record = await manager.find(call.path["id"])
    running = {each["id"]: each for each in await manager.loaded()}
    shown = entry(record, manager.overlay(record.id), running.get(record.id))
    return Reply({**shown, **record.details(), "settings": dict(manager.settings.get(record.id))})


async def loaded(call: Call) -> Answer:
    """The models in memory or coming up."""
    return Reply({"models": await call.daemon.manager.loaded()})


def entry(
    record: ModelRecord, over: Overlay | None, running: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One model as LM Studio lists it, with the protocol's fields beside."""
    over = over or Overlay()
    wire = record.to_wire(status=over.status, stale=over.stale, reason=over.reason)
    facts, able = record.facts, record.facts.capabilities
    return {
        **wire,
        "type": "embedding" if {"embedding", "reranking"} & set(able) else "llm",
        "key": record.id,
        "display_name": facts.name or record.name,
        "params_string": _rounded(facts.parameters),
        "max_context_length": facts.context_length,
        "capabilities": {
            "vision": "vision" in able,
            "trained_for_tool_use": "tools" in able,
            **dict.fromkeys(able, True),
        },
        "loaded_instances": [_instance(running)] if running else [],
    }


def _instance(running: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": running["id"],
        "status": running["status"],
        "config": {
            "context_length": running.get("context_length"),
            "parallel": running.get("parallel"),
        },
    }


def _rounded(parameters: int | None) -> str | None:
    """14,770,033,664 is 14.8B."""
    if not parameters:
        return None
    for size, unit in _UNITS:
        if parameters >= size:
            number = parameters / size
            return f"{number:.1f}{unit}" if number < 100 else f"{number:.0f}{unit}"
    return str(parameters)


_LIST = {"type": "object", "properties": {"models": {"type": "array", "items": {"type": "object"}}}}
ROUTES = (
    Route("GET", "/api/v1/models", list_models, "Every model that can be loaded.", result=_LIST),
    Route("GET", "/api/v1/models/loaded", loaded, "The models in memory.", result=_LIST),
    Route(
        "GET",
        "/api/v1/models/{id}",
        show,
        "One model, with what its files say of it.",
        result={"type": "object"},
    ),
)
