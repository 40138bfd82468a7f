"""`system.*` and `rpc.discover`."""

from __future__ import annotations

import functools
from typing import Annotated, Any

from hybridd.core.fields import Int, Struct
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY, method
from hybridd.wire import protocol
from hybridd.wire.errors import Unsupported
from hybridd.wire.types import ConfigChange, Info

_PROTOCOL = Struct(
    {"major": Int(0, 10_000), "minor": Int(0, 10_000)},
    required=("major",),
    notes={
        "major": {"description": "The daemon's has to be the same."},
        "minor": {"description": "The daemon's has to be as high.", "default": 0},
    },
    what='an object such as {"major":1,"minor":0}',
)


@method("system.ping", result=results.Alive)
async def ping(call: Call) -> dict[str, Any]:
    """Answer, through the loop that schedules everything."""
    await call.daemon.manager.ping()
    return {"ok": True}


@method("system.info", result=Info, errors=(Unsupported,))
async def info(
    call: Call,
    *,
    min_protocol: Annotated[
        dict[str, int] | None, _PROTOCOL, "Fails with `unsupported` where the daemon is older."
    ] = None,
) -> dict[str, Any]:
    """What this daemon is, what it can do and what memory the machine has."""
    if min_protocol is not None:
        wanted = (min_protocol["major"], min_protocol.get("minor", 0))
        if wanted[0] != protocol.PROTOCOL_MAJOR or wanted[1] > protocol.PROTOCOL_MINOR:
            raise Unsupported(
                f"this daemon speaks protocol {protocol.PROTOCOL_MAJOR}."
                f"{protocol.PROTOCOL_MINOR}, not {wanted[0]}.{wanted[1]}; update hybridd",
                capability="protocol",
            )
    return await call.daemon.information.read()


@method("system.shutdown", result=results.Nothing)
async def shutdown(call: Call) -> dict[str, Any]:
    """End the daemon as SIGTERM does; running requests end with `shutting_down`."""
    call.daemon.shutdown()
    return {}


@method("system.reload", result=ConfigChange)
async def reload(call: Call) -> dict[str, Any]:
    """Read the configuration file again, as SIGHUP does; a bad file changes nothing."""
    return call.daemon.configuration.reload()


@method("rpc.discover", result=results.Document)
async def discover(call: Call) -> dict[str, Any]:
    """This interface as an OpenRPC document.

    It has every method with parameters, result and errors, the notifications (`x-notifications`),
    the events (`x-events`), and what any request can meet (`x-errors`).
    """
    return _document()


@functools.cache
def _document() -> dict[str, Any]:
    """It never changes, and making it would hold the loop for 20 ms."""
    return document(REGISTRY.methods)
