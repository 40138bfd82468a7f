"""The scheduler under whatever may happen, in any order: the laws of `tests.core.world` hold, and
once everybody has done their part nobody is left waiting.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from hybridd.core import scheduling
from hybridd.core.scheduler import Scheduler
from tests.core.world import ROOM, World

SIZES = {"a": 30, "b": 50, "c": 60, "d": 100, "never": ROOM + 1}
MODELS = some.sampled_from(sorted(SIZES))
CONTEXTS = some.sampled_from([None, None, None, 4096, 16384, 65536, 1024 * 1024])


def options(context: int | None) -> dict[str, int]:
    return {} if context is None else {"context_length": context}


class Machine(RuleBasedStateMachine):
    """Clients come and go, workers do what workers do, time passes."""

    world: World

    @initialize(
        parallel=some.sampled_from([1, 1, 2]),
        max_loaded=some.sampled_from([0, 0, 1, 2]),
        automatic=some.booleans(),
    )
    def begin(self, parallel: int, max_loaded: int, automatic: bool) -> None:
        self.world = World(SIZES, max_loaded=max_loaded, max_queue=20)
        self.world.parallel = parallel
        self.world.automatic = automatic
        self.closed = False

    # ------------------------------------------------------------ clients

    @rule(
        model=MODELS,
        context=CONTEXTS,
        keepalive=some.sampled_from([None, None, 0.0, 50.0]),
        switch=some.sampled_from([True, True, True, False]),
    )
    def ask(self, model: str, context: int | None, keepalive: float | None, switch: bool) -> None:
        self.world.ask(model, load_options=options(context), keepalive=keepalive, switch=switch)

    @rule(
        model=MODELS,
        context=CONTEXTS,
        detached=some.booleans(),
        pin=some.sampled_from([None, None, None, True, False]),
    )
    def load(self, model: str, context: int | None, detached: bool, pin: bool | None) -> None:
        self.world.load(model, load_options=options(context), detached=detached, pin=pin)

    @rule(model=MODELS, force=some.booleans())
    def unload(self, model: str, force: bool) -> None:
        self.world.unload(model, force=force)

    @precondition(lambda self: self.open_keys())
    @rule(data=some.data())
    def leave(self, data: some.DataObject) -> None:
        self.world.leave(data.draw(some.sampled_from(self.open_keys())))

    @precondition(lambda self: self.cancellable())
    @rule(data=some.data())
    def cancel_job(self, data: some.DataObject) -> None:
        self.world.cancel_job(data.draw(some.sampled_from(self.cancellable())))

    # ------------------------------------------------------------ workers

    @precondition(lambda self: self.world.workers)
    @rule(data=some.data())
    def worker_moves_on(self, data: some.DataObject) -> None:
        worker = data.draw(
            some.sampled_from(sorted(self.world.workers.values(), key=lambda w: w.number))
        )
        move: Callable[[str], None] = {
            "starting": self.world.up,
            "loading": self.world.ready,
            "ready": self.world.up,
            "stopping": self.world.gone,
        }[worker.state]
        if worker.state != "ready":
            move(worker.model)

    @precondition(lambda self: self.world.workers)
    @rule(data=some.data(), how=some.sampled_from(["die", "killed", "refuse"]))
    def worker_fails(self, data: some.DataObject, how: str) -> None:
        worker = data.draw(
            some.sampled_from(sorted(self.world.workers.values(), key=lambda w: w.number))
        )
        if how == "refuse":
            if worker.state in ("loading", "stopping"):
                self.world.refuse(worker.model)
        else:
            self.world.die(worker.model, counts=how == "die")

    @precondition(lambda self: self.world.running)
    @rule(data=some.data())
    def reply(self, data: some.DataObject) -> None:
        self.world.reply(data.draw(some.sampled_from(sorted(self.world.running))))

    @precondition(lambda self: self.world.samples)
    @rule()
    def sampled(self) -> None:
        self.world.sampled()

    # ------------------------------------------------------------ the rest

    @rule(seconds=some.sampled_from([0.0, 1.0, 49.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(max_loaded=some.sampled_from([0, 1, 2]))
    def configure(self, max_loaded: int) -> None:
        # A limit that is lowered ends nobody; only what starts from now on keeps to it.
        self.world.configure(max_loaded=max_loaded)

    @rule(model=MODELS)
    def files_changed(self, model: str) -> None:
        self.world.feed(scheduling.FilesChanged(model))

    # ------------------------------------------------------------ laws

    @invariant()
    def what_the_scheduler_knows_is_so(self) -> None:
        if not hasattr(self, "world"):
            return
        world, scheduler = self.world, self.world.scheduler
        assert {i.number for i in scheduler.instances.values()} == set(world.workers)
        assert all(scheduler.instance(number) for number in world.workers)
        active = {key for i in scheduler.instances.values() for key in i.active}
        assert set(world.running) - set(world.ends) <= active
        queued = [item.key for queue in scheduler.queues.values() for item in queue]
        assert set(queued) == world.waiting()
        assert len(queued) == len(set(queued))
        assert all(scheduler.queues.values()), "no empty queues are kept"
        assert not set(scheduler.tickets) & set(scheduler.instances)
        open_jobs = {n for n, states in world.jobs.items() if states[-1] in ("queued", "loading")}
        assert open_jobs == {
            *(ticket.number for ticket in scheduler.tickets.values()),
            *scheduler.promised.values(),
            *(
                i.ticket
                for i in scheduler.instances.values()
                if i.coming_up or i.refusal is not None
            ),
        }
        for key in world.waiting():
            if world.items[key].load:
                assert world.tickets[key] in open_jobs, "a load that waits has a job that is open"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            quieten(self.world)
            end(self.world)

    # ------------------------------------------------------------ helpers

    def open_keys(self) -> list[int]:
        return sorted(set(self.world.items) - set(self.world.ends))

    def cancellable(self) -> list[int]:
        world = self.world
        waiting = world.waiting() if hasattr(self, "world") else set()
        return sorted(key for key in waiting if key in world.tickets)


def quieten(world: World) -> None:
    """Everybody does their part, nobody new comes: nobody may be left waiting."""
    world.automatic = True
    for _ in range(1000):
        if world.samples:
            world.sampled()
        for worker in list(world.workers.values()):
            if worker.state in ("starting", "loading"):
                world.ready(worker.model)
            elif worker.state == "stopping":
                world.gone(worker.model)
        for key in list(world.running):
            if key in world.running:
                world.reply(key)
        if not (world.waiting() or world.running or world.samples):
            break
    assert not world.waiting(), f"they wait for ever: {world.waiting()}"
    assert not world.running
    assert not world.scheduler.tickets
    assert not world.scheduler.queues
    assert not world.scheduler.promised
    assert all(i.yield_to is None for i in world.scheduler.instances.values())
    assert set(world.items) <= set(world.ends), "everything ended"


def end(world: World) -> None:
    """The daemon closes: nothing is left."""
    world.close()
    for worker in list(world.workers.values()):
        world.gone(worker.model)
    assert world.workers == {}
    assert world.scheduler.instances == {}
    assert set(world.items) <= set(world.ends)
    assert all(s[-1] in ("done", "failed", "cancelled") for s in world.jobs.values())
    assert world.scheduler.next_deadline() == float("inf")
    assert isinstance(world.scheduler, Scheduler)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestScheduler = Machine.TestCase
