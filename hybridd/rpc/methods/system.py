"""`system.*` and `rpc.discover`."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Int, Struct
from hybridd.rpc.call import Call
from hybridd.rpc.discover import document
from hybridd.rpc.registry import REGISTRY, method
from hybridd.wire import protocol
from hybridd.wire.errors import Unsupported

_PROTOCOL = Struct(
    {"major": Int(0, 10_000), "minor": Int(0, 10_000)},
    required=("major",),
    what='an object such as {"major":1,"minor":0}',
)


@method("system.ping")
async def ping(call: Call) -> dict[str, Any]:
    """Answer, through the loop that schedules everything."""
    await call.daemon.manager.ping()
    return {"ok": True}


@method("system.info")
async def info(
    call: Call, *, min_protocol: Annotated[dict[str, int] | None, _PROTOCOL] = None
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


@method("system.shutdown")
async def shutdown(call: Call) -> dict[str, Any]:
    """End the daemon as SIGTERM does; running requests end with `shutting_down`."""
    call.daemon.shutdown()
    return {}


@method("system.reload")
async def reload(call: Call) -> dict[str, Any]:
    """Read the configuration file again, as SIGHUP does."""
    return call.daemon.configuration.reload()


@method("rpc.discover")
async def discover(call: Call) -> dict[str, Any]:
    """This interface as an OpenRPC document."""
    return document(REGISTRY.methods)
