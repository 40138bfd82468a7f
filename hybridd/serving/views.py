"""How instances look on the wire: `Loaded` of docs/protocol.md, and what they add to a `Model`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hybridd.core.devices import CPU
from hybridd.core.instance import Instance
from hybridd.core.lifecycle import WIRE_STATUS
from hybridd.core.model import ModelRecord
from hybridd.wire.errors import Quarantined

if TYPE_CHECKING:
    from hybridd.serving.supervisor import Supervisor


class Overlay(NamedTuple):
    """What overrides the catalog's own view of a model; None leaves it."""

    status: str | None = None
    stale: bool = False
    reason: str | None = None


def overlay(instance: Instance | None, queued: bool, held: Quarantined | None) -> Overlay:
    """The status of a model, given what runs of it."""
    if instance is not None:
        return Overlay(WIRE_STATUS[instance.state], instance.stale)
    if held is not None:
        return Overlay("quarantined", reason=held.message)
    return Overlay("queued") if queued else Overlay()


def loaded(
    instance: Instance,
    supervisor: Supervisor | None,
    record: ModelRecord | None,
    *,
    queued: int,
    expires_in_s: float | None,
) -> dict[str, Any]:
    """docs/protocol.md's `Loaded`."""
    facts = instance.facts
    estimate = instance.plan.estimate
    worker = supervisor.worker if supervisor else None
    reserved = sum(instance.plan.placement.values())
    resident = supervisor.resident_bytes if supervisor else 0
    in_force = {**instance.plan.load_options, **facts.get("load_options", {})}
    fields: dict[str, Any] = {
        "id": instance.model,
        "format": record.format if record else None,
        "engine": facts.get("engine", supervisor.backend.engine if supervisor else None),
        "status": WIRE_STATUS[instance.state],
        "pid": worker.pid if worker else None,
        "devices": [{"device": d, "bytes": n} for d, n in instance.plan.placement.items()],
        "memory": {
            **facts.get("memory", {}),
            "reserved_bytes": reserved,
            "resident_bytes": resident,
            "peak_bytes": supervisor.peak_bytes if supervisor else 0,
            "host_cache_bytes": instance.plan.host_cache_bytes,
        },
        "load_options": in_force,
        "context_length": facts.get("context_length", estimate.context_length),
        "parallel": facts.get("parallel", estimate.parallel),
        "kv_cells": in_force.get("kv_cells"),
        "active_requests": len(instance.active),
        "queued_requests": queued,
        "generation_tokens_per_s": supervisor.tokens_per_s if supervisor else None,
        "loaded_at": supervisor.loaded_at if supervisor else None,
        "last_used_at": supervisor.last_used_at if supervisor else None,
        "load_s": supervisor.load_s if supervisor else None,
        "keepalive_s": -1 if instance.keepalive == math.inf else instance.keepalive,
        "expires_in_s": None if expires_in_s is None else round(expires_in_s, 3),
        "pinned": instance.pinned,
        "stale": instance.stale,
        "notes": list(facts.get("notes", ())),
        "confinement": None,
    }
    return fields


def template(label: str, pid: int | None, held: Mapping[str, int]) -> dict[str, Any]:
    """A template process among the `Loaded`: it holds memory, but no model."""
    size = held["private_bytes"] + held["file_bytes"]
    return {
        "id": f"template:{label}",
        "format": label.partition(":")[0],
        "status": "template",
        "pid": pid,
        "devices": [{"device": CPU, "bytes": size}],
        "memory": {"reserved_bytes": 0, "resident_bytes": size, "peak_bytes": size},
    }


def quarantined(model: str, left_s: float) -> dict[str, Any]:
    """A model that is left alone for a while among the `Loaded`."""
    return {"id": model, "status": "quarantined", "expires_in_s": round(left_s, 3)}
