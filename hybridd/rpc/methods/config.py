"""`config.*`: settings at run time."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Bool, Field, ListOf, MapOf, Text
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method

_KEY = Text(1, 128)


@method("config.get")
async def get(call: Call, *, key: Annotated[str | None, _KEY] = None) -> dict[str, Any]:
    """Every setting, or one, with its value, where that came from and what it means."""
    return {"values": call.daemon.configuration.get(key)}


@method("config.set")
async def set_values(
    call: Call,
    *,
    values: Annotated[dict[str, Any], MapOf(Field(), max_length=256)],
    persist: Annotated[bool, Bool()] = True,
) -> dict[str, Any]:
    """Set values at run time, all or none; persisted ones outlive a restart."""
    return call.daemon.configuration.set(values, persist=persist)


@method("config.unset")
async def unset(
    call: Call, *, keys: Annotated[list[str], ListOf(_KEY, min_length=1, max_length=256)]
) -> dict[str, Any]:
    """Forget values that were set at run time."""
    return call.daemon.configuration.unset(keys)
