"""`events.*`: the event stream."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Choice, ListOf, Text
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method
from hybridd.wire.errors import Busy
from hybridd.wire.protocol import TOPICS


@method("events.subscribe", result=results.Subscribed)
async def subscribe(
    call: Call,
    *,
    topics: Annotated[
        list[str],
        ListOf(Choice(TOPICS), min_length=1, max_length=len(TOPICS)),
        "What to hear of.",
    ],
) -> dict[str, Any]:
    """Receive `$/event` notifications of these topics from now on, on this connection.

    A connection has at most 64 subscriptions (`busy`). They end with it.
    """
    made = call.daemon.events.subscribe(topics, call.client.wake)
    try:
        call.client.attach(made)
    except Busy:
        call.daemon.events.unsubscribe(made.name)
        raise
    return {"subscription": made.name, "revision": call.daemon.library.snapshot.revision}


@method("events.unsubscribe", result=results.Nothing)
async def unsubscribe(
    call: Call, *, subscription: Annotated[str, Text(1, 128), "Its name."]
) -> dict[str, Any]:
    """End a subscription of this connection; one that is not there is no error."""
    if call.client.detach(subscription):
        call.daemon.events.unsubscribe(subscription)
    return {}
