"""Where the adapters of a load lie: clients name them as the catalog does.

A path is taken only if it is that of an adapter in the catalog, and is replaced by its id; nothing
is looked up on the disk for a client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hybridd.backends import card
from hybridd.backends.api import Backend
from hybridd.core.model import AVAILABLE, Estimate, ModelRecord
from hybridd.core.naming import resolve
from hybridd.wire.errors import InvalidParams, ModelNotFound, Unsupported

Models = Mapping[str, ModelRecord]


def named(load_options: Mapping[str, Any], models: Models, backend: Backend) -> Mapping[str, Any]:
    """The load options with the full ids of their adapters.

    Args:
        backend: The model's.

    Raises:
        Unsupported: Its engine takes none.
        ModelNotFound, ModelAmbiguous: An adapter is not in the catalog.
        InvalidParams: Two have one name, or what is meant is no adapter for such a model.
    """
    wanted = load_options.get("adapters")
    if not wanted:
        return load_options
    if backend.adapters is None:
        raise Unsupported(
            f"adapters (load_options.adapters) are not supported for {backend.name} models yet",
            capability="adapters",
            format=backend.name,
        )
    if len({one["name"] for one in wanted}) != len(wanted):
        raise _invalid("two adapters have the same name", "same name")
    adapters = []
    for one in wanted:
        record = _find(one["path_or_id"], models)
        if record.format != backend.name:
            raise _invalid(
                f"{record.id} is an adapter for {record.format} models, "
                f"not for {backend.name} ones",
                "other format",
            )
        adapters.append({"name": one["name"], "path_or_id": record.id})
    return {**load_options, "adapters": adapters}


def placed(load_options: Mapping[str, Any], models: Models) -> Sequence[dict[str, str]]:
    """Name and path of each adapter that is still in the catalog."""
    return [
        {"name": one["name"], "path": str(record.path)}
        for one in load_options.get("adapters") or ()
        if (record := models.get(one["path_or_id"])) is not None
    ]


def with_weights(
    estimate: Estimate, load_options: Mapping[str, Any], backend: Backend, models: Models
) -> Estimate:
    """What a load needs, with its adapters' weights.

    A model with adapters is not spread: on which device each belongs is not known.
    """
    wanted = load_options.get("adapters") or ()
    facts = [record.facts for one in wanted if (record := models.get(one["path_or_id"]))]
    if not facts or backend.adapters is None:
        return estimate
    size = sum(map(backend.adapters.weights_bytes, facts))
    return replace(estimate, weights_bytes=estimate.weights_bytes + size, spread=None)


def _find(query: str, models: Models) -> ModelRecord:
    by_path = next((id for id, r in models.items() if query == str(r.path)), None)
    record = models.get(by_path or query)
    if record is None:
        # A part of an id means one among adapters, which are no models for any other purpose.
        usable = {id: replace(r, status=AVAILABLE) for id, r in models.items() if _is_adapter(r)}
        try:
            record = models[resolve(query, usable)]
        except ModelNotFound as missing:
            try:
                record = models[resolve(query, models)]
            except ModelNotFound:
                raise missing from None
    if not _is_adapter(record):
        raise _invalid(f"{record.id} is no adapter", "no adapter")
    return record


def _is_adapter(record: ModelRecord) -> bool:
    return card.of(record.facts.metadata).get("kind") == card.ADAPTER


def _invalid(message: str, reason: str) -> InvalidParams:
    return InvalidParams(message, field="load_options.adapters", reason=reason)
