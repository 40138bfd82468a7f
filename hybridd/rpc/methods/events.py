"""`events.*`: the event stream."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Choice, ListOf, Text
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method
from hybridd.wire.errors import Busy
from hybridd.wire.protocol import TOPICS


@method("events.subscribe")
async def subscribe(
    call: Call,
    *,
    topics: Annotated[list[str], ListOf(Choice(TOPICS), min_length=1, max_length=len(TOPICS))],
) -> dict[str, Any]:
    """Receive `$/event` notifications of these topics from now on."""
    made = call.daemon.events.subscribe(topics, call.client.wake)
    try:
        call.client.attach(made)
    except Busy:
        call.daemon.events.unsubscribe(made.name)
        raise
    return {"subscription": made.name, "revision": call.daemon.library.snapshot.revision}


@method("events.unsubscribe")
async def unsubscribe(call: Call, *, subscription: Annotated[str, Text(1, 128)]) -> dict[str, Any]:
    """End a subscription of this connection; one that is not there is no error."""
    if call.client.detach(subscription):
        call.daemon.events.unsubscribe(subscription)
    return {}
