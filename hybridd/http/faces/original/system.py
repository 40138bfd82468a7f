"""`/api/v1/events`, `/system` and `/config`: what goes on, the machine, the settings."""

from __future__ import annotations

import trio

from hybridd.http.faces.api import SSE, Answer, Call, Produced, Reply, Route, Send
from hybridd.http.faces.shared.events import event
from hybridd.wire.errors import InvalidParams
from hybridd.wire.protocol import TOPICS

# A silent stream is told from a dead one by this.
_HEARTBEAT_S = 15.0


async def events(call: Call) -> Answer:
    """The daemon's events, as the socket's subscribers get them; `?topics=models,jobs`."""
    asked = call.query.get("topics", "")
    topics = [topic for topic in asked.split(",") if topic] or list(TOPICS)
    if unknown := sorted(set(topics) - set(TOPICS)):
        raise InvalidParams(
            f"topics takes some of {', '.join(TOPICS)}, got {', '.join(unknown)[:80]}",
            field="topics",
            reason="no topic",
        )

    async def produce(send: Send) -> None:
        wakened = trio.Event()
        subscription = call.daemon.events.subscribe(topics, lambda: wakened.set())
        try:
            await send(b": these are the events from now on\n\n")
            while True:
                parts: list[bytes] = []
                while subscription.waiting:
                    told, lost = subscription.take()
                    name, value = (
                        ("lost", {"count": lost}) if told is None else (told["topic"], told)
                    )
                    parts.append(event(name, value))
                if parts:
                    await send(b"".join(parts))
                    continue
                wakened = trio.Event()
                with trio.move_on_after(_HEARTBEAT_S) as silence:
                    await wakened.wait()
                if silence.cancelled_caught:
                    await send(b": nothing new\n\n")
        finally:
            call.daemon.events.unsubscribe(subscription.name)

    return Produced(SSE, produce)


async def system(call: Call) -> Answer:
    """The daemon, its formats, the machine's devices and the catalog's state."""
    return Reply(await call.daemon.information.read())


async def config(call: Call) -> Answer:
    """Every setting with its value and where that came from."""
    return Reply({"values": call.daemon.configuration.get()})


_OBJECT = {"type": "object"}
ROUTES = (
    Route("GET", "/api/v1/events", events, "The daemon's events, as they come (SSE)."),
    Route("GET", "/api/v1/system", system, "The daemon and the machine.", result=_OBJECT),
    Route("GET", "/api/v1/config", config, "The settings.", result=_OBJECT),
)
