"""A connection over memory: a client at the other end, and methods to call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Annotated, Any

import trio

from hybridd.core.fields import Bool, Field, Int, Text
from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import Jobs
from hybridd.parts import Daemon
from hybridd.rpc.call import Call
from hybridd.rpc.connection import Connection
from hybridd.rpc.dispatch import Dispatcher
from hybridd.rpc.encoded import EncodedModels
from hybridd.rpc.limits import Limits
from hybridd.rpc.methods import events as events_methods
from hybridd.rpc.methods import jobs as jobs_methods
from hybridd.rpc.registry import REGISTRY, Method, Registry
from hybridd.wire.delta import Delta
from hybridd.wire.errors import Busy
from tests.memory_stream import MemoryStream

LIMITS = Limits(max_line_bytes=1024 * 1024, slow_bytes=1024 * 1024, slow_s=60.0)
assert events_methods
assert jobs_methods


class Client:
    """Speaks lines over a `MemoryStream`."""

    def __init__(self, wire: MemoryStream, connection: Connection, world: Any) -> None:
        self.wire = wire
        self.connection = connection
        self.world = world
        self._buffer = b""

    def send(self, *messages: Any) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.wire.feed(data + b"\n")

    def call(self, method: str, id: Any = 1, **params: Any) -> None:
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})

    def cancel(self, id: Any) -> None:
        params = {"id": id}
        self.send({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": params})

    async def receive(self) -> Any:
        """The next message; None once the daemon closed."""
        while b"\n" not in self._buffer:
            data = await self.wire.read()
            if not data:
                assert not self._buffer, "the connection ended within a line"
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    async def until_response(self) -> tuple[list[Any], Any]:
        """Notifications up to the next response, and that."""
        before = []
        while "method" in (message := await self.receive()):
            before.append(message)
        return before, message

    async def everything(self) -> list[Any]:
        """All that comes until the daemon closes."""
        found = []
        while (message := await self.receive()) is not None:
            found.append(message)
        return found


TEST = Registry()


@TEST.method("echo")
async def echo(call: Call, *, value: Annotated[Any, Field()] = None) -> dict[str, Any]:
    """Say it again."""
    return {"value": value}


@TEST.method("wait")
async def wait(call: Call, *, name: Annotated[str, Text(1)]) -> dict[str, Any]:
    """Answer once the test lets it."""
    world: Any = call.daemon.manager
    world.waiting.add(name)
    try:
        await world.gate(name).wait()
    except trio.Cancelled:
        world.cancelled.append(name)
        raise
    finally:
        world.waiting.discard(name)
    return {"name": name}


@TEST.method("stream")
async def stream(
    call: Call,
    *,
    deltas: Annotated[list[str], Field()],
    each: Annotated[bool, Bool()] = True,
    stream: Annotated[bool, Bool()] = False,
    progress: Annotated[bool, Bool()] = False,
) -> dict[str, Any]:
    """Send texts as deltas, with a turn for the others after each, or all at once."""
    if not stream:
        return {"text": "".join(deltas)}
    sink = call.sink()
    for text in deltas:
        flush = sink(Delta(text, 1, logprobs=[{"token": text}] if text == "logprob" else None))
        if each and flush:
            flush()
            await trio.lowlevel.checkpoint()
    return {}


@TEST.method("flood")
async def flood(call: Call, *, size: Annotated[int, Int(0)]) -> dict[str, Any]:
    """Stream without end."""
    sink = call.sink()
    while True:
        if flush := sink(Delta("x" * size, 1)):
            flush()
        await trio.lowlevel.checkpoint()


@TEST.method("job")
async def job(
    call: Call, *, steps: Annotated[int, Int(0)], progress: Annotated[bool, Bool()] = False
) -> dict[str, Any]:
    """Report the steps of a job, all in one go."""
    jobs = call.daemon.jobs
    made = jobs.create("test", None)
    for step in range(steps):
        jobs.update(made, state="running", stage="step", done=step, total=steps)
        if progress:
            call.follow(made)
    jobs.finish(made, "done")
    return {"job": made.job}


@TEST.method("refuse")
async def refuse(call: Call) -> dict[str, Any]:
    """Fail with a typed error."""
    raise Busy("come back later", queue_length=3)


@TEST.method("broken")
async def broken(call: Call) -> dict[str, Any]:
    """Fail as nobody expects."""
    raise KeyError("a secret of the inside")


@TEST.method("unsendable")
async def unsendable(
    call: Call, *, what: Annotated[str, Text()], progress: Annotated[bool, Bool()] = False
) -> Any:
    """Return what JSON has not."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return {"nan": {"x": float("nan")}, "object": {"x": object()}, "deep": deep}[what]


METHODS: dict[str, Method] = {
    **TEST.methods,
    **{
        name: REGISTRY.methods[name]
        for name in ("events.subscribe", "events.unsubscribe", "jobs.wait", "jobs.get")
    },
}


class World:
    """What the methods above use of a daemon."""

    def __init__(self) -> None:
        self.events = EventHub(clock=lambda: 0.0)
        self.jobs = Jobs(self.events, clock=trio.current_time)
        self.waiting: set[str] = set()
        self.cancelled: list[str] = []
        self._gates: dict[str, trio.Event] = {}
        library = SimpleNamespace(snapshot=SimpleNamespace(revision=7))
        fakes: Any = (self, library, self.jobs, self.events, None, None, None, lambda: None)
        self.daemon = Daemon(*fakes)

    def gate(self, name: str) -> trio.Event:
        return self._gates.setdefault(name, trio.Event())


@asynccontextmanager
async def connected(
    *, methods: Mapping[str, Method] = METHODS, limits: Limits = LIMITS, room: int = 256 * 1024
) -> AsyncIterator[Client]:
    """A client of a running connection; at the end it hangs up, and everything has to be over."""
    world, wire = World(), MemoryStream(room)
    connection = Connection(wire, world.daemon, Dispatcher(methods), limits, EncodedModels())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield Client(wire, connection, world)
        wire.hang_up()
    assert wire.closed
    assert world.waiting == set(), "a request outlived its connection"
    assert len(world.events) == 0, "a subscription outlived its connection"
