"""The facade: everything that the daemon does with models, for any transport.

Owns the scheduler and is its only caller: an event goes in, the effects that come out are
performed at once and in order, without waiting, so that between two events the state is always
whole. Workers' tasks live in the manager's nursery. Knows no JSON-RPC and no socket.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from hybridd.backends.api import Backend
from hybridd.backends.registry import FormatInfo
from hybridd.core import work
from hybridd.core.devices import CPU, Snapshot
from hybridd.core.instance import Instance
from hybridd.core.lifecycle import State
from hybridd.core.model import ModelRecord
from hybridd.core.options import complete_sampling
from hybridd.core.plan import Need
from hybridd.core.scheduler import Scheduler
from hybridd.host.processes import ProcessHost
from hybridd.host.worker_process import WorkerProcess
from hybridd.service import views
from hybridd.service.configuration import Configuration
from hybridd.service.events import EventHub
from hybridd.service.jobs import Job, Jobs
from hybridd.service.library import Library
from hybridd.service.memory import MemoryMeter, Reading
from hybridd.service.requests import Sink, Work
from hybridd.service.supervisor import Supervisor
from hybridd.wire import errors

log = logging.getLogger(__name__)

# NVML may show an ended process's memory for a moment.
GPU_MEMORY_BACK_S = 5.0
LIVE_LIMITS = frozenset({"models.keepalive", "limits.max_loaded", "limits.max_queue"})


class Manager:
    """See the module's text.

    Args:
        formats: What is installed for each backend, by its name.
    """

    def __init__(
        self,
        configuration: Configuration,
        library: Library,
        backends: Mapping[str, Backend],
        formats: Mapping[str, FormatInfo],
        host: ProcessHost,
        meter: Callable[[Callable[[], list[WorkerProcess]]], MemoryMeter],
        events: EventHub,
        jobs: Jobs,
    ) -> None:
        self._configuration = configuration
        self.library = library
        self._backends = backends
        self._formats = formats
        self._host = host
        self._events = events
        self.jobs = jobs
        self.meter = meter(self._workers)
        self._scheduler = Scheduler()
        self._works: dict[int, Work] = {}
        self._waiters: dict[int, _Waiter] = {}
        self._supervisors: dict[int, Supervisor] = {}
        self._load_jobs: dict[int, Job] = {}
        self._load_began: dict[str, float] = {}
        self._keys = itertools.count(1)
        self._inbox: deque[work.Event] = deque()
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
            task_status.started()
            await self._keep_time()

    async def close(self) -> None:
        """Refuse everything from now on, end what runs with a typed error, stop all workers."""
        self._feed(work.Close())
        while self._supervisors:
            self._empty = trio.Event()
            await self._empty.wait()

    def reconfigure(self, changed: set[str]) -> None:
        """Take over changed settings."""
        if changed & LIVE_LIMITS:
            c = self._configuration
            self._feed(
                work.Configure(c["models.keepalive"], c["limits.max_loaded"], c["limits.max_queue"])
            )

    def files_changed(self, model: str) -> None:
        """The catalog says that the model's files were replaced or went away."""
        self._feed(work.FilesChanged(model))

    async def ping(self) -> None:
        """Answer through the loop that feeds the scheduler."""
        self._feed(work.Tick())
        await trio.lowlevel.checkpoint()

    # ---------------------------------------------------------------- what clients ask

    async def find(self, query: str) -> ModelRecord:
        """The model that a name means.

        Raises:
            ModelNotFound, ModelAmbiguous: With suggestions or candidates.
        """
        return await self.library.find(query, loaded_ids=set(self._scheduler.instances))

    async def load(
        self,
        query: str,
        *,
        load_options: Mapping[str, Any] | None = None,
        keepalive: float | None = None,
        pin: bool | None = None,
        on_job: Callable[[Job], None] | None = None,
    ) -> dict[str, Any]:
        """Have a model loaded; returns its `Loaded`. Cancelled, it leaves the load to others.

        Args:
            on_job: Hears which job the load is, to follow its progress.

        Raises:
            HybriddError: Any of those that a load can meet.
        """
        record = await self._loadable(query)
        item = work.Item(
            next(self._keys),
            record.id,
            load=True,
            load_options=load_options or {},
            keepalive=keepalive,
            pin=pin,
        )
        waiter = self._waiters[item.key] = _Waiter(on_job)
        await self._await(item, record, waiter.over.wait)
        number = waiter.instance()
        instance = self._scheduler.instance(number)
        if instance is None:
            raise errors.Cancelled(f"{record.id} was unloaded as soon as it was loaded")
        await self.meter_now()
        return self._loaded(instance)

    async def load_detached(
        self,
        query: str,
        *,
        load_options: Mapping[str, Any] | None = None,
        keepalive: float | None = None,
        pin: bool | None = None,
    ) -> Job:
        """Begin a load that goes on by itself; returns its job."""
        record = await self._loadable(query)
        item = work.Item(
            next(self._keys),
            record.id,
            load=True,
            load_options=load_options or {},
            keepalive=keepalive,
            pin=pin,
            detached=True,
        )
        waiter = self._waiters[item.key] = _Waiter(None, keep=True)
        self._feed(work.Enqueue(item, self._need(record)))
        if waiter.job is None:
            # Loaded already, or refused at once: a job that is over tells it.
            job = self.jobs.create("load", record.id)
            if waiter.error is None:
                self.jobs.finish(job, "done", result={"id": record.id})
            else:
                self.jobs.finish(job, "failed", error=waiter.error)
            return job
        return waiter.job

    async def infer(
        self,
        kind: str,
        query: str,
        request: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        load_options: Mapping[str, Any] | None = None,
        keepalive: float | None = None,
        timeout_s: float | None = None,
        sink: Sink | None = None,
    ) -> dict[str, Any]:
        """Run one request on a model, loading it if need be. Cancelled, it is taken back.

        Args:
            kind: An engine's `WorkRequest.kind`.
            request: Its other fields.
            sink: Takes the deltas; without one the result carries the text.

        Raises:
            HybriddError: Any of those that a request can meet.
        """
        with trio.move_on_after(math.inf if timeout_s is None else timeout_s):
            record = await self._loadable(query)
            if kind in ("chat", "apply_template") and "chat" not in record.facts.capabilities:
                raise errors.Unsupported(
                    f"{record.id} has no chat template; use generate with a plain prompt",
                    capability="chat",
                    format=record.format,
                )
            made = Work(
                next(self._keys),
                record.id,
                kind,
                {
                    **request,
                    "kind": kind,
                    "options": complete_sampling(options or {}, record.facts.defaults),
                },
                sink,
                trio.current_time(),
            )
            item = work.Item(
                made.key,
                record.id,
                load_options=load_options or {},
                keepalive=keepalive,
                switch=self._configuration["models.smart_switching"],
            )
            self._works[made.key] = made
            await self._await(item, record, made.over.wait)
            return await made.outcome()
        raise errors.RequestTimeout(
            f"the request was not done within {timeout_s:g} s; give it a longer timeout",
            seconds=timeout_s,
        )

    async def unload(self, query: str, *, force: bool = False) -> dict[str, Any]:
        """Unload one model, or all with "*"; waits until the memory is back."""
        running = self._scheduler.instances
        models = list(running)
        if query != "*":
            found = (await self.find(query)).id
            models = [found] if found in running else []
        waiters = {m: (next(self._keys), _Waiter(None)) for m in models}
        for model, (key, waiter) in waiters.items():
            self._waiters[key] = waiter
            self._feed(work.Unload(key, model, force))
        try:
            for _, waiter in waiters.values():
                await waiter.over.wait()
        finally:
            for key, _ in waiters.values():
                if self._waiters.pop(key, None):
                    self._feed(work.Abandon(key))
        freed = sum(waiter.freed_bytes for _, waiter in waiters.values())
        return {"unloaded": models, "freed_bytes": freed}

    async def loaded(self, *, all: bool = False) -> list[dict[str, Any]]:
        """PROTOCOL's `Loaded` of every instance that holds memory or is coming up.

        Args:
            all: Also templates, and models that are in quarantine.
        """
        running = self._scheduler.instances
        reading = await self.meter_now() if running or all else None
        made = [self._loaded(i) for i in running.values()]
        if all and reading is not None:
            pids = self._host.template_pids()
            made += [views.template(n, pids.get(n), m) for n, m in reading.templates.items()]
            held = self._scheduler.quarantine.held(trio.current_time())
            made += [views.quarantined(model, left) for model, left in held.items()]
        return made

    def worker_pids(self) -> set[int]:
        """Pids of all workers and templates."""
        return {w.pid for w in self._workers()} | set(self._host.template_pids().values())

    async def meter_now(self) -> Reading:
        """Read the memory and keep each worker's part for the views."""
        reading = await self.meter.read()
        for supervisor in self._supervisors.values():
            if supervisor.worker is not None:
                held = reading.workers.get(supervisor.worker.pid)
                if held:
                    supervisor.resident_bytes = held["private_bytes"] + held["file_bytes"]
                    supervisor.peak_bytes = max(supervisor.peak_bytes, supervisor.resident_bytes)
        return reading

    def status_of(self, record: ModelRecord) -> views.Overlay:
        """What the running state adds to a model of the catalog."""
        instance = self._scheduler.instances.get(record.id)
        held = self._scheduler.quarantine.check(record.id, trio.current_time())
        return views.overlay(instance, record.id in self._scheduler.tickets, held)

    @property
    def loaded_models(self) -> Sequence[str]:
        """Ids of the models that are ready."""
        found = self._scheduler.instances.values()
        return [i.model for i in found if i.state is State.READY]

    # ---------------------------------------------------------------- the loop

    def _feed(self, event: work.Event) -> None:
        """Hand an event to the scheduler and perform what comes out; never re-entered."""
        self._inbox.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inbox:
                for effect in self._scheduler.handle(self._inbox.popleft(), trio.current_time()):
                    _PERFORM[type(effect)](self, effect)
        finally:
            self._feeding = False
        self._deadline_moved.set()

    async def _keep_time(self) -> None:
        """Send a tick whenever something runs out."""
        while True:
            self._deadline_moved = trio.Event()
            with trio.move_on_at(self._scheduler.next_deadline()) as scope:
                await self._deadline_moved.wait()
            if scope.cancelled_caught:
                self._feed(work.Tick())

    async def _await(self, item: work.Item, record: ModelRecord, over: Callable[[], Any]) -> None:
        """Enqueue an item and wait; leaving early abandons it."""
        ended = False
        try:
            self._feed(work.Enqueue(item, self._need(record)))
            await over()
            ended = True
        finally:
            self._works.pop(item.key, None)
            self._waiters.pop(item.key, None)
            if not ended:
                self._feed(work.Abandon(item.key))

    async def _loadable(self, query: str) -> ModelRecord:
        record = await self.find(query)
        if not record.available:
            raise errors.ModelInvalid(
                f"{record.id} is no usable model: {record.reason}",
                model=record.id,
                reason=record.reason,
            )
        known = self._formats.get(record.format)
        if known is None or not known.available:
            reason = known.reason if known else "its format is not enabled"
            raise errors.Unsupported(
                f"{record.id} cannot be loaded: {reason}",
                capability="load",
                format=record.format,
            )
        return record

    def _need(self, record: ModelRecord) -> Need:
        backend = self._backends[record.format]
        facts = record.facts
        return Need(
            record.id,
            lambda options: backend.estimate(facts, options),
            context_length=facts.context_length,
            auto_context=self._configuration["models.auto_context"],
            gpu=backend.uses_gpu(),
            layers=facts.layers if backend.splits_layers else None,
        )

    def _workers(self) -> list[WorkerProcess]:
        return [s.worker for s in self._supervisors.values() if s.worker is not None]

    def _loaded(self, instance: Instance) -> dict[str, Any]:
        return views.loaded(
            instance,
            self._supervisors.get(instance.number),
            self.library.snapshot.models.get(instance.model),
            queued=self._scheduler.queued_requests(instance.model),
            expires_in_s=self._scheduler.expires_in(instance),
        )

    # ---------------------------------------------------------------- effects

    def _sample(self, effect: work.Sample) -> None:
        self._spawn(self._sample_now)

    async def _sample_now(self) -> None:
        try:
            snapshot = (await self.meter_now()).snapshot
        except OSError as exc:
            log.error("the memory cannot be read: %s", exc)
            snapshot = Snapshot()
        self._feed(work.Sampled(snapshot))

    def _start(self, effect: work.Start) -> None:
        record = self.library.snapshot.models.get(effect.model)
        if record is None or record.format not in self._backends:
            gone = errors.ModelNotFound(
                f"the files of {effect.model} went away", model=effect.model, suggestions=[]
            )
            self._feed(work.WorkerRefused(effect.instance, gone))
            self._feed(work.WorkerGone(effect.instance))
            return
        job = self._load_jobs.get(effect.ticket)

        def progress(stage: str, done: int, total: int) -> None:
            if job is not None:
                self.jobs.update(job, stage=stage, done=done, total=total)

        supervisor = Supervisor(
            effect.instance,
            self._backends[record.format],
            {
                "model": record.id,
                "format": record.format,
                "path": str(record.facts.files[0] if record.path.is_file() else record.path),
                "load_options": dict(effect.plan.load_options),
                "defaults": dict(record.facts.defaults),
            },
            self._host,
            self._works,
            self._feed,
            progress,
            lambda: float(self._configuration["workers.stop_seconds"]),
        )
        self._supervisors[effect.instance] = supervisor
        self._load_began[effect.model] = trio.current_time()
        self._spawn(self._supervise, supervisor, [d for d in effect.plan.placement if d != CPU])

    async def _supervise(self, supervisor: Supervisor, gpus: list[str]) -> None:
        await supervisor.run(lambda pid: self._gpu_memory_back(pid) if gpus else None)
        self._supervisors.pop(supervisor.number, None)
        if not self._supervisors:
            self._empty.set()

    async def _gpu_memory_back(self, pid: int) -> None:
        with trio.move_on_after(GPU_MEMORY_BACK_S):
            # NVML has no event for this.
            while await trio.to_thread.run_sync(self.meter.holds_gpu, pid):  # noqa: ASYNC110
                await trio.sleep(0.05)

    def _stop(self, effect: work.Stop) -> None:
        if supervisor := self._supervisors.get(effect.instance):
            supervisor.stop(force=effect.force)

    def _send(self, effect: work.Send) -> None:
        made = self._works.get(effect.key)
        supervisor = self._supervisors[effect.instance]
        if made is None:
            self._feed(work.RequestEnded(effect.instance, effect.key, completed=False))
            return
        made.sent_at = trio.current_time()
        began = self._load_began.get(made.model, 0.0)
        if supervisor.loaded_at_mono is not None:
            made.load_s = max(0.0, supervisor.loaded_at_mono - max(made.arrived_at, began))
        supervisor.send({"op": "start", "request": {"id": effect.key, **made.request}})

    def _cancel_active(self, effect: work.CancelActive) -> None:
        if supervisor := self._supervisors.get(effect.instance):
            supervisor.send({"op": "cancel", "id": effect.key})

    def _finish(self, effect: work.Finish) -> None:
        error = effect.error
        if isinstance(error, errors.Quarantined):
            error.data["until"] = time.time() + error.data.pop("retry_after_s", 0.0)
        if (made := self._works.get(effect.key)) is not None and error is not None:
            made.fail(error)
        if (waiter := self._waiters.get(effect.key)) is not None:
            waiter.finish(error, effect.instance, effect.freed_bytes)
            if waiter.keep:
                del self._waiters[effect.key]

    def _joined(self, effect: work.Joined) -> None:
        if waiter := self._waiters.get(effect.key):
            waiter.join(self._load_jobs[effect.ticket])

    def _load_state(self, effect: work.LoadState) -> None:
        if effect.state == "queued":
            job = self.jobs.create(
                "load",
                effect.model,
                cancel=lambda: self._feed(work.CancelLoad(effect.ticket)),
            )
            self._load_jobs[effect.ticket] = job
            return
        job = self._load_jobs[effect.ticket]
        if effect.state == "loading":
            self.jobs.update(job, state="running", stage="start")
            return
        del self._load_jobs[effect.ticket]
        if effect.state == "done":
            supervisor = self._supervisors[effect.instance] if effect.instance else None
            if supervisor is not None:
                supervisor.loaded_at = time.time()
                supervisor.loaded_at_mono = trio.current_time()
            self.jobs.finish(job, "done", result={"id": effect.model})
        else:
            self.jobs.finish(job, effect.state, error=effect.error)

    def _notify(self, effect: work.Notify) -> None:
        data = dict(effect.data)
        if effect.topic == "models":
            data["revision"] = self.library.snapshot.revision
        self._events.publish(effect.topic, effect.type, id=effect.model, **data)
        if effect.topic == "models":
            log.info("%s %s", effect.type, effect.model)

    def _spawn(self, task: Callable[..., Any], *args: Any) -> None:
        assert self._nursery is not None, "Manager.run has to be running"
        self._nursery.start_soon(task, *args)


_PERFORM: Mapping[type, Callable[[Manager, Any], None]] = {
    work.Sample: Manager._sample,
    work.Start: Manager._start,
    work.Stop: Manager._stop,
    work.Send: Manager._send,
    work.CancelActive: Manager._cancel_active,
    work.Finish: Manager._finish,
    work.Joined: Manager._joined,
    work.LoadState: Manager._load_state,
    work.Notify: Manager._notify,
}


class _Waiter:
    """Somebody who waits for a load or an unload."""

    def __init__(self, on_job: Callable[[Job], None] | None, *, keep: bool = False) -> None:
        self.over = trio.Event()
        self.keep = keep  # nobody waits; kept only until the scheduler is done with it
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
