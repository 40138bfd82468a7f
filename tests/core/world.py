"""A made-up machine around a scheduler: workers that do as they are told, memory of round numbers.

Performs every effect, and fails on one that must not be: a start beyond the limits, an end of a
busy or pinned model that nobody asked for, a second end of an item or a job, an effect on a worker
that is gone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridd.core import scheduling
from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.core.model import Estimate
from hybridd.core.plan import Need
from hybridd.core.scheduler import Scheduler
from hybridd.wire import errors

ROOM = 100


@dataclass
class Worker:
    """A process as the scheduler's world has it."""

    number: int
    model: str
    size: int
    state: str = "starting"
    forced: bool = False
    wanted: Mapping[str, Any] = field(default_factory=dict)


class World:
    """See the module's text.

    Attributes:
        ends: How each key ended: "ok", "reply", "left", or the kind of its error.
        running: Keys that a worker has, with its number.
        jobs: States that each ticket went through.
        told: (model, threads) of every time that a worker was told.
        said: (topic, type, model) of every notification.
        automatic: Whether a reading of memory arrives at once.
    """

    def __init__(self, sizes: Mapping[str, int], *, room: int = ROOM, **settings: Any) -> None:
        self.sizes = dict(sizes)
        self.room = room
        self.settings = {"keepalive": 300.0, "max_loaded": 0, "max_queue": 512, **settings}
        self.scheduler = Scheduler(**self.settings)
        self.now = 1000.0
        self.parallel = 1
        self.keys = itertools.count(1)
        self.items: dict[int, scheduling.Item] = {}
        self.ends: dict[int, str] = {}
        self.running: dict[int, int] = {}
        self.workers: dict[int, Worker] = {}
        self.jobs: dict[int, list[str]] = {}
        self.tickets: dict[int, int] = {}
        self.said: list[tuple[str, str, str]] = []
        self.errors: dict[int, errors.HybriddError | None] = {}
        self.freed: dict[int, int] = {}
        self.automatic = True
        self.samples = 0
        self.asked_to_go: set[str] = set()
        self.told: list[tuple[str, int]] = []

    # ---------------------------------------------------------------- clients

    def need(self, model: str) -> Need:
        def estimate(options: Mapping[str, Any]) -> Estimate:
            context = int(options.get("context_length", 8192))
            cache = max(0, context - 8192) // 1024
            return Estimate(self.sizes[model], cache, 0, 0, context, self.parallel)

        return Need(model, estimate, context_length=1024 * 1024, auto_context=8192)

    def ask(self, model: str, **more: Any) -> int:
        """A request; returns its key."""
        return self._enqueue(scheduling.Item(next(self.keys), model, **more))

    def load(self, model: str, **more: Any) -> int:
        """A wish to have it loaded; returns its key."""
        return self._enqueue(scheduling.Item(next(self.keys), model, load=True, **more))

    def unload(self, model: str, *, force: bool = False) -> int:
        """Returns the key of whoever waits for it."""
        key = next(self.keys)
        self.asked_to_go.add(model)
        self.feed(scheduling.Unload(key, model, force))
        return key

    def leave(self, key: int) -> None:
        """Whoever waited for `key` goes away."""
        if key not in self.ends:
            self.ends[key] = "left"
            self.feed(scheduling.Abandon(key))

    def cancel_job(self, key: int) -> None:
        """`jobs.cancel` of the job that this load waits on."""
        item = self.items[key]
        self.asked_to_go.add(item.model)
        self.feed(scheduling.CancelLoad(self.tickets[key]))

    def _enqueue(self, item: scheduling.Item) -> int:
        self.items[item.key] = item
        self.feed(scheduling.Enqueue(item, self.need(item.model)))
        return item.key

    # ---------------------------------------------------------------- workers

    def worker(self, model: str) -> Worker:
        """The one worker that holds this model."""
        (found,) = [w for w in self.workers.values() if w.model == model]
        return found

    def up(self, model: str) -> None:
        """Its process exists."""
        worker = self.worker(model)
        if worker.state == "starting":
            worker.state = "loading"
        self.feed(scheduling.WorkerUp(worker.number))

    def ready(self, model: str, **options: Any) -> None:
        """It is loaded."""
        if self.worker(model).state == "starting":
            self.up(model)
        worker = self.worker(model)
        worker.state = "ready"
        facts = {"parallel": self.parallel, "load_options": options}
        self.feed(scheduling.WorkerReady(worker.number, facts))

    def refuse(self, model: str) -> None:
        """Its load fails with a typed error; the process then ends."""
        worker = self.worker(model)
        self.feed(scheduling.WorkerRefused(worker.number, errors.LoadFailed("no", reason="test")))

    def die(self, model: str, *, counts: bool = True) -> None:
        """It is lost."""
        self._end(self.worker(model), errors.WorkerDied("it died", signal="SIGSEGV"), counts)

    def gone(self, model: str) -> None:
        """It ends, as it was told."""
        worker = self.worker(model)
        assert worker.state == "stopping", f"{model} was not told to stop"
        self._end(worker, None, True)

    def _end(self, worker: Worker, error: errors.HybriddError | None, counts: bool) -> None:
        del self.workers[worker.number]
        for key in [k for k, number in self.running.items() if number == worker.number]:
            del self.running[key]
        self.asked_to_go.discard(worker.model)
        self.feed(scheduling.WorkerGone(worker.number, error, counts))

    def reply(self, key: int) -> None:
        """The worker answers a request."""
        number = self.running.pop(key)
        if key not in self.ends:
            self.ends[key] = "reply"
        self.feed(scheduling.RequestEnded(number, key))

    def sampled(self) -> None:
        """A reading of memory that was asked for arrives."""
        assert self.samples == 1
        self.samples = 0
        self.feed(scheduling.Sampled(self.snapshot()))

    def snapshot(self) -> Snapshot:
        held = sum(worker.size for worker in self.workers.values())
        return Snapshot((Device(CPU, "cpu", "CPU", 1000, self.room - held, self.room, held),))

    def tick(self, seconds: float = 0.0) -> None:
        """Time passes."""
        self.now += seconds
        self.feed(scheduling.Tick())

    def configure(self, **settings: Any) -> None:
        self.settings.update(settings)
        s = self.settings
        limits = s["keepalive"], s["max_loaded"], s["max_queue"]
        self.feed(scheduling.Configure(*limits, (self.room,), s.get("cores", 0)))

    def close(self) -> None:
        self.asked_to_go |= {worker.model for worker in self.workers.values()}
        self.feed(scheduling.Close())

    # ---------------------------------------------------------------- what is to be seen

    @property
    def loaded(self) -> set[str]:
        return {w.model for w in self.workers.values() if w.state == "ready"}

    def state(self, model: str) -> str | None:
        """Of the worker that holds it."""
        return next((w.state for w in self.workers.values() if w.model == model), None)

    def waiting(self) -> set[int]:
        """Keys that are neither over nor at a worker."""
        return {key for key in self.items if key not in self.ends and key not in self.running}

    # ---------------------------------------------------------------- effects

    def feed(self, event: scheduling.Event) -> None:
        """Hand an event in and perform what comes out."""
        effects = self.scheduler.handle(event, self.now)
        for effect in effects:
            getattr(self, f"_{type(effect).__name__.lower()}")(effect)
        if self.automatic and self.samples:
            self.sampled()

    def _sample(self, effect: scheduling.Sample) -> None:
        assert self.samples == 0, "one reading at a time"
        self.samples = 1

    def _start(self, effect: scheduling.Start) -> None:
        assert effect.model not in {w.model for w in self.workers.values()}
        size = sum(effect.plan.placement.values())
        assert size >= self.sizes[effect.model]
        reserved = sum(worker.size for worker in self.workers.values())
        assert reserved + size <= self.room, "more is reserved than there is"
        limit = self.settings["max_loaded"]
        assert not limit or len(self.workers) < limit, "more models than may be"
        self.workers[effect.instance] = Worker(
            effect.instance, effect.model, size, wanted=effect.plan.load_options
        )

    def _stop(self, effect: scheduling.Stop) -> None:
        worker = self.workers[effect.instance]
        if worker.state == "stopping":
            assert effect.force, "told to stop twice"
            assert not worker.forced or self.asked_to_go
        busy = [k for k, n in self.running.items() if n == worker.number and k not in self.ends]
        assert not busy or worker.model in self.asked_to_go, f"{worker.model} is busy"
        worker.state = "stopping"
        worker.forced = worker.forced or effect.force

    def _send(self, effect: scheduling.Send) -> None:
        worker = self.workers[effect.instance]
        assert worker.state == "ready"
        item = self.items[effect.key]
        assert item.model == worker.model
        assert effect.key not in self.ends
        assert effect.key not in self.running
        taken = sum(number == worker.number for number in self.running.values())
        assert taken < self.parallel, "more at a time than it takes"
        self.running[effect.key] = effect.instance

    def _cancelactive(self, effect: scheduling.CancelActive) -> None:
        assert self.workers[effect.instance]
        assert self.running[effect.key] == effect.instance
        assert self.ends[effect.key] == "left"

    def _setthreads(self, effect: scheduling.SetThreads) -> None:
        worker = self.workers[effect.instance]
        assert worker.number in self.running.values(), "an idle worker has nothing to compute"
        assert effect.count >= 1
        self.told.append((worker.model, effect.count))

    def _finish(self, effect: scheduling.Finish) -> None:
        key, error = effect.key, effect.error
        assert key not in self.ends, f"{key} ended as {self.ends.get(key)} before"
        self.ends[key] = error.kind if error else "ok"
        self.errors[key] = error
        self.freed[key] = effect.freed_bytes
        item = self.items.get(key)
        if item is not None and item.load and error is None:
            assert effect.instance in self.workers
        if item is not None and not item.load:
            assert error is not None, "a request ends with its worker's reply"

    def _joined(self, effect: scheduling.Joined) -> None:
        assert self.items[effect.key].load
        assert effect.key not in self.ends
        states = self.jobs[effect.ticket]
        assert states[-1] in ("queued", "loading"), "nobody waits on a job that is over"
        self.tickets[effect.key] = effect.ticket

    def _loadstate(self, effect: scheduling.LoadState) -> None:
        states = self.jobs.setdefault(effect.ticket, [])
        before = states[-1] if states else None
        assert effect.state in {
            None: {"queued"},
            "queued": {"loading", "failed", "cancelled", "done"},
            "loading": {"done", "failed", "cancelled"},
        }.get(before, set()), f"a job went from {before} to {effect.state}"
        assert (effect.error is not None) == (effect.state in ("failed", "cancelled"))
        if effect.state in ("loading", "done"):
            assert effect.instance is not None
        states.append(effect.state)

    def _notify(self, effect: scheduling.Notify) -> None:
        self.said.append((effect.topic, effect.type, effect.model))
