"""Where the adapters of a load lie: clients name them as the catalog does, never by a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.core.naming import resolve
from hybridd.wire.errors import InvalidParams

Models = Mapping[str, ModelRecord]


def named(load_options: Mapping[str, Any], models: Models) -> Mapping[str, Any]:
    """The load options with the full ids of their adapters.

    Raises:
        ModelNotFound, ModelAmbiguous: An adapter is not in the catalog.
        InvalidParams: Two have one name, or what is meant is no adapter.
    """
    wanted = load_options.get("adapters")
    if not wanted:
        return load_options
    if len({one["name"] for one in wanted}) != len(wanted):
        raise InvalidParams(
            "two adapters have the same name", field="load_options.adapters", reason="same name"
        )
    found = [{"name": one["name"], "path_or_id": _id(one["path_or_id"], models)} for one in wanted]
    return {**load_options, "adapters": found}


def placed(load_options: Mapping[str, Any], models: Models) -> Sequence[dict[str, str]]:
    """Name and path of each adapter that is still in the catalog."""
    return [
        {"name": one["name"], "path": str(record.path)}
        for one in load_options.get("adapters") or ()
        if (record := models.get(one["path_or_id"])) is not None
    ]


def _id(query: str, models: Models) -> str:
    by_path = next((id for id, r in models.items() if query == str(r.path)), None)
    id = by_path or resolve(query, models)
    card = models[id].facts.metadata.get("card", {})
    if card.get("kind") != "adapter":
        raise InvalidParams(
            f"{id} is no adapter", field="load_options.adapters", reason="no adapter"
        )
    return id
