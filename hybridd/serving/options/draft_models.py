"""The model that a load's `draft_model` means, and what it adds to what the load needs.

Clients name it as they name the model. What cannot draft for it is refused before anything is done
for the load, as far as the headers tell; the engine sees the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from hybridd.backends.api import Backend
from hybridd.catalog.resolving import resolve
from hybridd.core.model import AVAILABLE, Estimate, Facts, ModelRecord
from hybridd.wire.errors import InvalidParams, ModelAmbiguous, ModelNotFound, Unsupported

Models = Mapping[str, ModelRecord]


async def named(
    load_options: Mapping[str, Any],
    record: ModelRecord,
    backend: Backend,
    loadable: Callable[[str], Awaitable[ModelRecord]],
    models: Models,
    in_force: ModelRecord | None = None,
) -> Mapping[str, Any]:
    """The load options with the full id of their draft model, or without one (null).

    Args:
        record: The model that it is to draft for.
        backend: The model's.
        loadable: Finds a model by any of its names, as for `model`.
        models: The catalog.
        in_force: What drafts for the model now, if it is loaded. It may have left the catalog; a
            name that means it goes on doing so, as a name means the build that is loaded.

    Raises:
        HybriddError: Those of `loadable`.
        Unsupported: Nothing can be drafted for the model.
        InvalidParams: What is meant cannot draft for it; as `Drafting.check` says it, LoadFailed.
    """
    wanted = load_options.get("draft_model")
    if wanted is None:
        return {name: value for name, value in load_options.items() if name != "draft_model"}
    if backend.drafting is None:
        raise Unsupported(
            f"draft models are not supported for {record.format} models yet; leave draft_model out",
            capability="draft_model",
            format=record.format,
        )
    if in_force is not None and await _means(wanted, in_force, models):
        return {**load_options, "draft_model": in_force.id}
    if "completion" not in record.facts.capabilities:
        raise Unsupported(
            f"a draft model helps to generate text, and {record.id} generates none; leave "
            "draft_model out",
            capability="draft_model",
            format=record.format,
        )
    draft = await loadable(wanted)
    if draft.format != record.format:
        raise _invalid(
            f"{draft.id} is a {draft.format} model and cannot draft for {record.id}, which is a "
            f"{record.format} one",
            "other format",
        )
    if "completion" not in draft.facts.capabilities:
        raise _invalid(
            f"{draft.id} generates no text, so it cannot draft any for {record.id}",
            "generates no text",
        )
    backend.drafting.check(record.id, record.facts, draft.id, draft.facts)
    return {**load_options, "draft_model": draft.id}


async def _means(query: str, in_force: ModelRecord, models: Models) -> bool:
    if query == in_force.id:
        return True
    # While new files are written over its own, it goes on drafting.
    usable = {**models, in_force.id: replace(in_force, status=AVAILABLE)}
    try:
        return await resolve(query, usable, {in_force.id}, None) == in_force.id
    except ModelAmbiguous as exc:
        return in_force.id in exc.data["candidates"]
    except ModelNotFound:
        return False


def of(load_options: Mapping[str, Any], models: Models) -> ModelRecord | None:
    """The draft model of options that `named` made, if there is one and it has not gone away."""
    return models.get(load_options.get("draft_model") or "")


def with_draft(
    estimate: Estimate,
    facts: Facts,
    load_options: Mapping[str, Any],
    backend: Backend,
    models: Models,
) -> Estimate:
    """What a load of a model needs, with its draft model."""
    record = of(load_options, models)
    if record is None or backend.drafting is None:
        return estimate
    added = backend.drafting.estimate(facts, record.facts, load_options)
    return replace(
        estimate,
        weights_bytes=estimate.weights_bytes + added.weights_bytes,
        kv_cache_bytes=estimate.kv_cache_bytes + added.kv_cache_bytes,
        compute_bytes=estimate.compute_bytes + added.compute_bytes,
        overhead_bytes=estimate.overhead_bytes + added.overhead_bytes,
        spread=None,
    )


def _invalid(message: str, reason: str) -> InvalidParams:
    return InvalidParams(message, field="load_options.draft_model", reason=reason)
