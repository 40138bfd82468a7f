"""A manager over workers that do as the test says: no process, no disk, no clock."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from hybridd.backends.api import Adapters, Backend, Drafting, Parallel, Switch
from hybridd.backends.registry import FormatInfo
from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.core.model import Estimate, Facts, Location, ModelRecord
from hybridd.core.naming import resolve
from hybridd.daemon.configuration import Configuration
from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import Jobs
from hybridd.daemon.state import StateFile
from hybridd.processes.worker_process import ExitStatus
from hybridd.serving.kept_states import KeptStates
from hybridd.serving.manager import Manager
from hybridd.serving.memory import Reading
from hybridd.serving.residency import Residency
from hybridd.wire import errors

# By the mock clock: a test that waits for what never comes ends all the same.
PATIENCE_S = 10_000.0

FACTS: dict[str, Any] = {
    "engine": "fake 1",
    "context_length": 4096,
    "parallel": 1,
    "load_options": {"context_length": 4096},
    "memory": {"weights_bytes": 5},
    "capabilities": ["completion"],
}
DONE: dict[str, Any] = {
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1},
    "timings": {"prompt_s": 0.5, "first_token_s": 0.5, "generation_s": 1.0},
}


class FakeWorker:
    """The twin of `host.worker_process.WorkerProcess`.

    Attributes:
        frames: What the daemon sent, oldest first.
        signals: What it was killed with.
        obeys: What it ends on: "stop", SIGTERM, SIGKILL.
        busy: Whether it uses the processor while time passes.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.frames: list[dict[str, Any]] = []
        self.signals: list[int] = []
        self.obeys: set[Any] = {"stop", signal.SIGTERM, signal.SIGKILL}
        self.busy = self.reading = False
        self.is_stopped = False
        self.answers_pings = True
        self.log: list[str] = []
        self.status: ExitStatus | None = None
        self._said, self._heard = trio.open_memory_channel[dict[str, Any] | None](1000)
        self._ended = trio.Event()
        self._sent = trio.Event()

    # ------------------------------------------------------------ the daemon's side

    async def send(self, frame: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.status is not None:
            raise trio.BrokenResourceError
        self.frames.append(frame)
        self._sent.set()
        self._sent = trio.Event()
        if frame["op"] == "ping" and self.answers_pings:
            self.say("pong", n=frame["n"])
        if frame["op"] == "stop" and "stop" in self.obeys:
            self.end()

    async def receive(self) -> dict[str, Any]:
        frame = await self._heard.receive()
        if frame is None:
            raise EOFError
        return frame

    async def wait(self) -> ExitStatus:
        await self._ended.wait()
        assert self.status is not None
        return self.status

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.status is None:
            self.signals.append(number)
            if number in self.obeys:
                self.end(signal=number)

    def log_tail(self, count: int = 20) -> list[str]:
        return self.log[-count:]

    def memory(self) -> dict[str, int]:
        return {"private_bytes": 1000, "file_bytes": 500}

    def work_done(self) -> tuple[int, int]:
        now = int(trio.current_time() * 100)
        return now if self.busy else 7, now if self.reading else 7

    def stopped(self) -> bool:
        return self.is_stopped

    # ------------------------------------------------------------ the test's side

    def say(self, op: str, **fields: Any) -> None:
        self._said.send_nowait({"op": op, **fields})

    def close_channel(self) -> None:
        self._said.send_nowait(None)

    def end(self, **how: Any) -> None:
        """End, with exit code 0 unless said otherwise."""
        self.status = ExitStatus(**(how or {"exit_code": 0}))
        self.close_channel()
        self._ended.set()

    async def heard(self, op: str) -> dict[str, Any]:
        """The first frame of this kind that the daemon sent and the test has not asked for yet."""
        while True:
            for frame in self.frames:
                if frame["op"] == op:
                    self.frames.remove(frame)
                    return frame
            await self._sent.wait()

    def ready(self, **facts: Any) -> None:
        self.say("ready", facts={**FACTS, **facts}, load_s=1.5)

    async def reply(self, *texts: str) -> dict[str, Any]:
        """Take the next request and answer it; returns it."""
        request: dict[str, Any] = (await self.heard("start"))["request"]
        for text in texts:
            self.say("deltas", items=[{"id": request["id"], "text": text, "tokens": 1}])
        self.say("done", id=request["id"], result=DONE)
        return request


class FakeHost:
    """The twin of `processes.host.ProcessHost`.

    Attributes:
        error: What starting a worker fails with.
        gate: What it waits for.
        wanted: The model of each load, and the bytes that it was to have free.
    """

    def __init__(self) -> None:
        self.workers: list[FakeWorker] = []
        self.wanted: list[tuple[str, int]] = []
        self.error: errors.HybriddError | None = None
        self.gate: trio.Event | None = None
        self._made = trio.Event()

    async def start_worker(self, backend: Any, model: str, preparation: Any = None) -> FakeWorker:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        made = FakeWorker(1000 + len(self.workers))
        self.workers.append(made)
        self._made.set()
        self._made = trio.Event()
        return made

    async def worker(self, number: int) -> FakeWorker:
        """The `number`th worker, once there is one and it was told what to load."""
        while len(self.workers) <= number:
            await self._made.wait()
        await self.workers[number].heard("load")
        return self.workers[number]

    def make_room(self, wanted: int, model: str, backend: str) -> None:
        self.wanted.append((model, wanted))

    def template_pids(self) -> dict[str, int]:
        return {"fake": 4711}

    def template_memory(self) -> dict[str, dict[str, int]]:
        return {"fake": {"private_bytes": 10, "file_bytes": 5}}


def check_draft(model: str, facts: Facts, draft: str, draft_facts: Facts) -> None:
    if draft_facts.vocab_size != facts.vocab_size:
        raise errors.LoadFailed(f"{draft} cannot draft for {model}", reason="other vocabulary")


def draft_estimate(facts: Facts, draft: Facts, load_options: Mapping[str, Any]) -> Estimate:
    return Estimate(draft.weights_bytes, 4, 3, 2, 1, 1)


class FakeBackend(Backend):
    """Knows what a model needs."""

    name = engine = "fake"
    engine_factory = "fake:Engine"
    switch = Switch("Serve fakes.")
    keeps_states = True
    tagged = True
    adapters: Adapters | None = Adapters(lambda facts: facts.weights_bytes)
    drafting: Drafting | None = Drafting(check_draft, draft_estimate)

    def inspect(self, path: Path) -> Facts:
        raise NotImplementedError

    def parallel(self, facts: Facts) -> Parallel:
        return Parallel(auto=1, most=8)

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        if load_options.get("dtype") == "int3":
            raise errors.InvalidParams("dtype int3 is unknown", field="load_options.dtype")

    def estimate(self, facts: Facts, load_options: Mapping[str, Any]) -> Estimate:
        length = int(load_options.get("context_length", 4096))
        return Estimate(facts.weights_bytes, 0, 0, 0, length, 1)


class FakeLibrary:
    """A catalog that the test writes."""

    def __init__(self, *records: ModelRecord) -> None:
        models = {record.id: record for record in records}
        self.snapshot = SimpleNamespace(models=models, revision=7)

    async def fresh(self, record: ModelRecord) -> ModelRecord:
        await trio.lowlevel.checkpoint()
        return record

    async def find(self, query: str, loaded_ids: Any = ()) -> ModelRecord:
        await trio.lowlevel.checkpoint()
        models = self.snapshot.models
        return models[resolve(query, models, loaded_ids)]


def record(id: str, size: int = 40, **more: Any) -> ModelRecord:
    facts = Facts(
        "fake", (Path("/m") / id,), capabilities=("completion", "chat"), weights_bytes=size,
        context_length=100_000, defaults={"top_k": 5},
    )  # fmt: skip
    path = Path("/m") / id
    made = ModelRecord(
        id, facts, None, id, "local", path, (Location("local", path),), "available", None, 0.0,
        facts.files, (), (), id,
    )  # fmt: skip
    return replace(made, **more)


class World:
    """Everything around one manager."""

    def __init__(self, directory: Path, *records: ModelRecord, room: int = 100) -> None:
        self.room = room
        self.host = FakeHost()
        self.library = FakeLibrary(*(records or (record("a"), record("b"), record("c"))))
        self.hub = EventHub(clock=lambda: 0.0)
        self.events: list[tuple[str, str]] = []
        self.jobs = Jobs(self.hub, clock=trio.current_time)
        self.configuration = Configuration(
            {"HOME": str(directory)}, state=StateFile(directory / "settings.json")
        )
        fakes: Any = (self.library, {"fake": FakeBackend()}, self.host)
        library, backends, host = fakes
        self.residency = Residency(
            self.configuration,
            lambda: library.snapshot,
            backends,
            host,
            self._meter,
            self.hub,
            self.jobs,
            KeptStates(directory / "kv", self.configuration.__getitem__),
        )
        self.manager = Manager(
            self.configuration, library, backends,
            {"fake": FormatInfo("fake", available=True, engine="fake")}, host, self.residency,
            self.jobs,
        )  # fmt: skip
        self._subscription = self.hub.subscribe(["models", "jobs", "requests"], self._take_events)

    def _meter(self, workers: Callable[[], list[Any]]) -> Any:
        async def read() -> Reading:
            await trio.lowlevel.checkpoint()
            held = {w.pid: w.memory() for w in workers()}
            device = Device(CPU, "cpu", "CPU", self.room, self.room, self.room)
            return Reading(Snapshot((device,)), held, self.host.template_memory())

        return SimpleNamespace(read=read, holds_gpu=lambda pid: False)

    def _take_events(self) -> None:
        while (event := self._subscription.take()[0]) is not None:
            self.events.append((event["type"], event.get("id") or event.get("job")))

    async def load(self, model: str, number: int | None = None) -> FakeWorker:
        """Have a model loaded; returns its worker."""
        number = len(self.host.workers) if number is None else number
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.manager.load, model)
            worker = await self.host.worker(number)
            worker.ready()
        return worker


class Outcome:
    """How a task ended."""

    def __init__(self) -> None:
        self.value: Any = None
        self.error: errors.HybriddError | None = None
        self.over = trio.Event()
        self.scope = trio.CancelScope()

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> None:
        with self.scope:
            try:
                self.value = await function(*args, **kwargs)
            except errors.HybriddError as exc:
                self.error = exc
            self.over.set()

    @property
    def kind(self) -> str | None:
        return self.error.kind if self.error else None


@asynccontextmanager
async def running(
    directory: Path, *records: ModelRecord, room: int = 100
) -> AsyncIterator[tuple[World, Callable[..., Outcome]]]:
    """A running manager, and a way to begin tasks; at the end it is closed and all is over."""
    world = World(directory, *records, room=room)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(world.residency.run)

            def begin(function: Any, *args: Any, **kwargs: Any) -> Outcome:
                made = Outcome()
                nursery.start_soon(lambda: made.run(function, *args, **kwargs))
                return made

            yield world, begin
            await world.residency.close()
            nursery.cancel_scope.cancel()
    assert world.residency.supervisors == {}
    assert world.residency.requests == {}
    assert world.residency.waiters == {}
    assert world.residency._load_jobs == {}
    assert all(job.over for job in world.jobs.all())
    assert all(worker.status is not None for worker in world.host.workers)
