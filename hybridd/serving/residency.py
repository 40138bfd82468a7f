"""What is in memory, and everything that changes it: the scheduler's one owner.

An event goes in, the effects that come out are performed at once and in order, without waiting, so
that between two events the state is always whole. Workers' tasks live in this nursery. The facade
that clients use is `serving/manager`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from hybridd.backends.api import Backend, LoadSpec
from hybridd.backends.cpu import usable_cores
from hybridd.core import catalog, scheduling
from hybridd.core.devices import CPU, Snapshot
from hybridd.core.model import ModelRecord
from hybridd.core.plan import Need
from hybridd.core.scheduler import Scheduler
from hybridd.daemon.configuration import Configuration
from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import Job, Jobs
from hybridd.processes.host import ProcessHost
from hybridd.processes.worker_process import WorkerProcess
from hybridd.serving.kept_states import KeptStates
from hybridd.serving.memory import MemoryMeter, Reading
from hybridd.serving.options import adapters, draft_models
from hybridd.serving.requests import InferenceRequest
from hybridd.serving.supervisor import Supervisor
from hybridd.wire import errors

log = logging.getLogger(__name__)

# NVML may show an ended process's memory for a moment.
GPU_MEMORY_BACK_S = 5.0
LIVE_LIMITS = frozenset(
    {
        "models.keepalive",
        "models.auto_context",
        "limits.max_loaded",
        "limits.max_queue",
        "limits.ram_max",
        "limits.vram_max",
    }
)


class Residency:
    """See the module's text.

    Args:
        models: The catalog's present snapshot.
        meter: Makes the reader of memory, of which workers are alive.

    Attributes:
        scheduler: For reading only; what changes it goes through `feed`.
        states: What loads may keep of conversations.
        requests: Requests under way, by the scheduler's key.
        waiters: Who waits for loads and unloads, by the scheduler's key.
        supervisors: By the instance's number.
        permissions: What the user allows a model that others may not.
    """

    def __init__(
        self,
        configuration: Configuration,
        models: Callable[[], catalog.Snapshot],
        backends: Mapping[str, Backend],
        host: ProcessHost,
        meter: Callable[[Callable[[], list[WorkerProcess]]], MemoryMeter],
        events: EventHub,
        jobs: Jobs,
        states: KeptStates,
    ) -> None:
        self.states = states
        self._configuration = configuration
        self._models = models
        self._backends = backends
        self._host = host
        self._events = events
        self._jobs = jobs
        self._meter = meter(self.workers)
        self.scheduler = Scheduler()
        self.requests: dict[int, InferenceRequest] = {}
        self.waiters: dict[int, Waiter] = {}
        self.supervisors: dict[int, Supervisor] = {}
        self.permissions: Callable[[str], list[str]] = lambda _model: []
        self._load_jobs: dict[int, Job] = {}
        self._load_began: dict[str, float] = {}
        self._inbox: deque[scheduling.Event] = deque()
        self._feeding = False
        self._deadline_moved = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._empty = trio.Event()

    # ---------------------------------------------------------------- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; call `close` first to end workers politely."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.reconfigure(set(LIVE_LIMITS))
            self._configuration.on_change(self.reconfigure)
            # Of the last run, or of before it was turned off.
            nursery.start_soon(self._trim_states)
            task_status.started()
            await self._keep_time()

    async def close(self) -> None:
        """Refuse everything from now on, end what runs with a typed error, stop all workers."""
        self.feed(scheduling.Close())
        while self.supervisors:
            self._empty = trio.Event()
            await self._empty.wait()

    def reconfigure(self, changed: set[str]) -> None:
        """Take over changed settings."""
        if changed & LIVE_LIMITS:
            c = self._configuration
            self.feed(
                scheduling.Configure(
                    c["models.keepalive"],
                    c["limits.max_loaded"],
                    c["limits.max_queue"],
                    (c["limits.ram_max"], c["limits.vram_max"], c["models.auto_context"]),
                    usable_cores(),
                )
            )

        if "kv.persist" in changed:
            self._spawn(self._trim_states)

    async def _trim_states(self) -> None:
        if self.states.present():
            await trio.to_thread.run_sync(self.states.trim)

    # ---------------------------------------------------------------- for the manager

    def workers(self) -> list[WorkerProcess]:
        """The worker processes that are alive."""
        return [s.worker for s in self.supervisors.values() if s.worker is not None]

    async def measure(self) -> Reading:
        """Read the machine's memory and keep each worker's part for the views."""
        reading = await self._meter.read()
        for supervisor in self.supervisors.values():
            if supervisor.worker is not None:
                supervisor.measured(reading.workers.get(supervisor.worker.pid))
        return reading

    async def through(
        self, item: scheduling.Item, need: Need, over: Callable[[], Awaitable[None]]
    ) -> None:
        """Enqueue an item and wait until it is `over`; leaving early abandons it."""
        ended = False
        try:
            self.feed(scheduling.Enqueue(item, need))  # trace 1
            await over()
            ended = True
        finally:
            self.requests.pop(item.key, None)
            self.waiters.pop(item.key, None)
            if not ended:
                self.feed(scheduling.Abandon(item.key))

    # ---------------------------------------------------------------- the loop

    def feed(self, event: scheduling.Event) -> None:
        """Hand an event to the scheduler and perform what comes out; never re-entered."""
        self._inbox.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inbox:
                for effect in self.scheduler.handle(self._inbox.popleft(), trio.current_time()):
                    _PERFORM[type(effect)](self, effect)
        finally:
            self._feeding = False
        self._deadline_moved.set()

    async def _keep_time(self) -> None:
        """Send a tick whenever something runs out."""
        while True:
            self._deadline_moved = trio.Event()
            with trio.move_on_at(self.scheduler.next_deadline()) as scope:
                await self._deadline_moved.wait()
            if scope.cancelled_caught:
                self.feed(scheduling.Tick())

    # ---------------------------------------------------------------- effects

    def _sample(self, effect: scheduling.Sample) -> None:
        self._spawn(self._sample_now)

    async def _sample_now(self) -> None:
        try:
            snapshot = (await self.measure()).snapshot
        except Exception:  # a driver may raise what it likes; the daemon goes on without room
            log.exception("the memory cannot be read")
            snapshot = Snapshot()
        self.feed(scheduling.Sampled(snapshot))  # trace 2, 3, 5

    def _start(self, effect: scheduling.Start) -> None:
        models = self._models().models
        record = models.get(effect.model)
        if record is None or record.format not in self._backends:
            gone = errors.ModelNotFound(
                f"the files of {effect.model} went away", model=effect.model, suggestions=[]
            )
            self.feed(scheduling.WorkerRefused(effect.instance, gone))
            self.feed(scheduling.WorkerGone(effect.instance))
            return
        job = self._load_jobs.get(effect.ticket)

        def progress(stage: str, done: int, total: int) -> None:
            if job is not None:
                self._jobs.update(job, stage=stage, done=done, total=total)

        self._host.make_room(effect.plan.placement.get(CPU, 0), record.id, record.format)
        backend = self._backends[record.format]
        spec: LoadSpec = {
            "model": record.id,
            "format": record.format,
            "path": _path(record),
            "load_options": dict(effect.plan.load_options),
            "defaults": dict(record.facts.defaults),
            "identity": record.content,
            "kv": self.states.for_load(
                record.id, effect.plan.host_cache_bytes, persist=backend.keeps_states
            ),
            "placement": dict(effect.plan.placement),
        }
        if placed := adapters.placed(effect.plan.load_options, models):
            spec["adapters"] = list(placed)
        if draft := draft_models.of(effect.plan.load_options, models):
            spec["draft"] = {"model": draft.id, "path": _path(draft)}
        if allowed := self.permissions(record.id):
            spec["permissions"] = allowed
        supervisor = Supervisor(
            effect.instance,
            backend,
            spec,
            self._host,
            self.requests,
            self.feed,
            progress,
            lambda: float(self._configuration["workers.stop_seconds"]),
        )
        self.supervisors[effect.instance] = supervisor  # trace 5
        self._load_began[effect.model] = trio.current_time()
        self._spawn(self._supervise, supervisor, [d for d in effect.plan.placement if d != CPU])

    async def _supervise(self, supervisor: Supervisor, gpus: list[str]) -> None:
        await supervisor.run(lambda pid: self._gpu_memory_back(pid) if gpus else None)
        self.supervisors.pop(supervisor.number, None)
        if not self.supervisors:
            self._empty.set()
        await self._trim_states()

    async def _gpu_memory_back(self, pid: int) -> None:
        with trio.move_on_after(GPU_MEMORY_BACK_S):
            # NVML has no event for this.
            while await trio.to_thread.run_sync(self._meter.holds_gpu, pid):  # noqa: ASYNC110
                await trio.sleep(0.05)

    def _stop(self, effect: scheduling.Stop) -> None:
        if supervisor := self.supervisors.get(effect.instance):
            supervisor.stop(force=effect.force)

    def _send(self, effect: scheduling.Send) -> None:
        request = self.requests.get(effect.key)
        supervisor = self.supervisors[effect.instance]
        if request is None:
            self.feed(scheduling.RequestEnded(effect.instance, effect.key, completed=False))
            return
        request.sent_at = trio.current_time()
        began = self._load_began.get(request.model, 0.0)
        if supervisor.loaded_at_mono is not None:
            request.load_s = max(0.0, supervisor.loaded_at_mono - max(request.arrived_at, began))
        # trace 7
        supervisor.send({"op": "start", "request": {"id": effect.key, **request.request}})

    def _cancel_active(self, effect: scheduling.CancelActive) -> None:
        if supervisor := self.supervisors.get(effect.instance):
            supervisor.send({"op": "cancel", "id": effect.key})

    def _set_threads(self, effect: scheduling.SetThreads) -> None:
        if supervisor := self.supervisors.get(effect.instance):
            supervisor.send({"op": "threads", "n": effect.count})

    def _finish(self, effect: scheduling.Finish) -> None:
        error = effect.error
        if isinstance(error, errors.Quarantined):
            error.data["until"] = time.time() + error.data.pop("retry_after_s", 0.0)
        if (request := self.requests.get(effect.key)) is not None and error is not None:
            request.fail(error)
        if (waiter := self.waiters.get(effect.key)) is not None:
            waiter.finish(error, effect.instance, effect.freed_bytes)
            if waiter.keep:
                del self.waiters[effect.key]

    def _joined(self, effect: scheduling.Joined) -> None:
        if waiter := self.waiters.get(effect.key):
            waiter.join(self._load_jobs[effect.ticket])

    def _load_state(self, effect: scheduling.LoadState) -> None:
        if effect.state == "queued":
            job = self._jobs.create(
                "load",
                effect.model,
                cancel=lambda: self.feed(scheduling.CancelLoad(effect.ticket)),
            )
            self._load_jobs[effect.ticket] = job
            return
        job = self._load_jobs[effect.ticket]
        if effect.state == "loading":
            self._jobs.update(job, state="running", stage="start")
            return
        del self._load_jobs[effect.ticket]
        if effect.state == "done":
            supervisor = self.supervisors[effect.instance] if effect.instance else None
            if supervisor is not None:
                supervisor.loaded_at = time.time()
                supervisor.loaded_at_mono = trio.current_time()
            self._jobs.finish(job, "done", result={"id": effect.model})
        else:
            self._jobs.finish(job, effect.state, error=effect.error)

    def _notify(self, effect: scheduling.Notify) -> None:
        data = dict(effect.data)
        if effect.topic == "models":
            data["revision"] = self._models().revision
        self._events.publish(effect.topic, effect.type, id=effect.model, **data)
        if effect.topic == "models":
            log.info("%s %s", effect.type, effect.model)

    def _spawn(self, task: Callable[..., Any], *args: Any) -> None:
        assert self._nursery is not None, "Residency.run has to be running"
        self._nursery.start_soon(task, *args)


def _path(record: ModelRecord) -> str:
    """What an engine is told to load."""
    return str(record.facts.files[0] if record.path.is_file() else record.path)


_PERFORM: Mapping[type, Callable[[Residency, Any], None]] = {
    scheduling.Sample: Residency._sample,
    scheduling.Start: Residency._start,
    scheduling.Stop: Residency._stop,
    scheduling.Send: Residency._send,
    scheduling.CancelActive: Residency._cancel_active,
    scheduling.SetThreads: Residency._set_threads,
    scheduling.Finish: Residency._finish,
    scheduling.Joined: Residency._joined,
    scheduling.LoadState: Residency._load_state,
    scheduling.Notify: Residency._notify,
}


class Waiter:
    """One call that waits for a load or an unload."""

    def __init__(self, on_job: Callable[[Job], None] | None, *, keep: bool = False) -> None:
        self.over = trio.Event()
        self.keep = keep  # the call does not wait: kept only until the scheduler is done with it
        self.job: Job | None = None
        self.error: errors.HybriddError | None = None
        self.freed_bytes = 0
        self._number: int | None = None
        self._on_job = on_job

    def join(self, job: Job) -> None:
        self.job = job
        if self._on_job is not None:
            self._on_job(job)

    def finish(
        self, error: errors.HybriddError | None, number: int | None, freed_bytes: int
    ) -> None:
        self.error, self._number, self.freed_bytes = error, number, freed_bytes
        self.over.set()

    def instance(self) -> int:
        """The number of the instance that is ready.

        Raises:
            HybriddError: The load ended with one.
        """
        if self.error is not None:
            raise self.error
        assert self._number is not None
        return self._number
