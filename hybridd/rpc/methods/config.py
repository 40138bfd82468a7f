"""`config.*`: settings at run time."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Bool, Field, ListOf, MapOf, Text
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method
from hybridd.wire.types import ConfigChange

_KEY = Text(1, 128)


@method("config.get", result=results.Settings)
async def get(
    call: Call, *, key: Annotated[str | None, _KEY, "Only this one."] = None
) -> dict[str, Any]:
    """Every setting, or one, with its value, where that came from and what it means."""
    return {"values": call.daemon.configuration.get(key)}


@method("config.set", result=ConfigChange)
async def set_values(
    call: Call,
    *,
    values: Annotated[dict[str, Any], MapOf(Field(), max_length=256), "New values by key."],
    persist: Annotated[bool, Bool(), "Whether they outlive a restart."] = True,
) -> dict[str, Any]:
    """Set values at run time, all or none.

    They go before the environment and the file, and flags of the daemon's start before them.
    `invalid_params` names the key, what it got and what it takes.
    """
    return call.daemon.configuration.set(values, persist=persist)


@method("config.unset", result=ConfigChange)
async def unset(
    call: Call,
    *,
    keys: Annotated[list[str], ListOf(_KEY, min_length=1, max_length=256), "Which."],
) -> dict[str, Any]:
    """Forget values that were set at run time, the persisted ones too."""
    return call.daemon.configuration.unset(keys)
