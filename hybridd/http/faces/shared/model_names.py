"""Which model a name means that a client insists on: the catalog's names, then `http.model_map`."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from hybridd.core.model import ModelRecord
from hybridd.parts import Daemon
from hybridd.wire.errors import ModelNotFound


async def meant(daemon: Daemon, name: str) -> str:
    """The model that a name stands for by `http.model_map`, where no model has it."""
    mapped: Mapping[str, str] = daemon.configuration["http.model_map"]
    if not mapped:
        return name
    try:
        return (await daemon.manager.find(name)).id
    except ModelNotFound:
        return next((m for pattern, m in mapped.items() if fnmatchcase(name, pattern)), name)


async def record(daemon: Daemon, name: str) -> ModelRecord:
    """The catalog's record of the model that a name means.

    Raises:
        ModelNotFound, ModelAmbiguous: With suggestions or candidates.
    """
    return await daemon.manager.find(await meant(daemon, name))
