"""Who is loaded, who runs, who waits: events in, effects out.

Theory of operation
-------------------
Every model has a queue of items (requests, and wishes to have it loaded) in order of arrival, and
at most one `Instance`, which is a worker's life from start to end. A model whose queue is not empty
and that has no instance has a `Ticket`: a load that waits for room. After each event `_pump` looks
at every model once and does what its state allows; loads are placed only on a fresh reading of
memory, so a ticket first asks for one (`Sample`) and is decided when it comes (`Sampled`).

Room is made by ending idle instances. Busy ones are never ended. When they hold what a ticket
needs, they are marked `yield_to` the ticket: requests that came after it are no longer handed to
them, so the ticket's wait is bounded by the work that was there before it, and two clients of two
models that do not fit together take turns.

An item ends exactly once: by `Finish` here, by the worker's own reply, or by `Abandon`.
The scheduler has no clock (times are handed in, in seconds), no I/O and no tasks. Its one owner is
`service/manager`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from hybridd.core import plan
from hybridd.core.devices import Snapshot
from hybridd.core.instance import Instance, Ticket
from hybridd.core.lifecycle import State, move
from hybridd.core.options import satisfies
from hybridd.core.placing import Decision, decide, why_not
from hybridd.core.quarantine import Quarantine
from hybridd.core.work import (
    Abandon,
    CancelActive,
    CancelLoad,
    Close,
    Configure,
    Effect,
    Enqueue,
    Event,
    FilesChanged,
    Finish,
    Item,
    Joined,
    LoadState,
    Notify,
    RequestEnded,
    Sample,
    Sampled,
    Send,
    Start,
    Stop,
    Tick,
    Unload,
    WorkerGone,
    WorkerReady,
    WorkerRefused,
    WorkerUp,
)
from hybridd.wire import errors


class Scheduler:
    """The state machine. Call `handle` with each event; perform the effects in order."""

    def __init__(
        self, *, keepalive: float = 300.0, max_loaded: int = 0, max_queue: int = 512
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.queues: dict[str, list[Item]] = {}
        self.tickets: dict[str, Ticket] = {}
        self.quarantine = Quarantine()
        self._by_number: dict[int, Instance] = {}
        self._needs: dict[str, plan.Need] = {}
        self._config = Configure(keepalive, max_loaded, max_queue)
        self._counter = 0
        self._sampling = False
        self._want_sample = False
        self._closing = False
        self._now = 0.0
        self._effects: list[Effect] = []

    # ---------------------------------------------------------------- the outside

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, any epoch, never going back)."""
        self._now = now
        self._effects = []
        _HANDLERS[type(event)](self, event)
        self._pump()
        return self._effects

    def next_deadline(self) -> float:
        """When a `Tick` is due; infinity when nothing runs out."""
        return min((self._expiry(i) for i in self.instances.values()), default=inf)

    def expires_in(self, instance: Instance) -> float | None:
        """Seconds until an idle instance is unloaded; None for never, and while it is busy."""
        expiry = instance.last_used + instance.keepalive
        if instance.pinned or expiry == inf:
            return None
        return max(0.0, expiry - self._now) if self._idle(instance) else instance.keepalive

    def instance(self, number: int) -> Instance | None:
        """The instance with this number, while its process is not known to be over."""
        return self._by_number.get(number)

    def queued_requests(self, model: str) -> int:
        """Requests that wait for this model and are not running."""
        return sum(not item.load for item in self.queues.get(model, ()))

    def plan_for(self, need: plan.Need, wanted: Mapping[str, Any], snapshot: Snapshot) -> plan.Plan:
        """What a load would do now; changes nothing."""
        return self._decide(need, wanted, snapshot).plan

    # ---------------------------------------------------------------- events

    def _enqueue(self, event: Enqueue) -> None:
        item = event.item
        self._counter += 1
        item.seq = self._counter
        self._needs[item.model] = event.need
        queue = self.queues.setdefault(item.model, [])
        instance = self.instances.get(item.model)
        if self._closing:
            self._finish(item, _shutting_down())
        elif (held := self.quarantine.check(item.model, self._now)) and instance is None:
            self._finish(item, held)
        elif (
            not item.load
            and not item.switch
            and instance is None
            and item.model not in self.tickets
        ):
            self._finish(item, _not_loaded(item.model))
        elif len(queue) >= self._config.max_queue:
            self._finish(
                item,
                errors.Busy(
                    f"{len(queue)} requests wait for {item.model} already; try again later",
                    queue_length=len(queue),
                    retry_after_s=1.0,
                ),
            )
        else:
            queue.append(item)
            if not item.load:
                self._say(
                    "requests", "queued", item.model, position=self.queued_requests(item.model)
                )
            if item.load and item.load_options and instance and not self._satisfied(item, instance):
                # It waits behind the requests that run; the ticket comes once they are done.
                self._say("models", "queued", item.model)

    def _abandon(self, event: Abandon) -> None:
        for model, queue in self.queues.items():
            for item in queue:
                if item.key == event.key:
                    queue.remove(item)
                    self._drop_load_without_waiters(model)
                    return
        for instance in self.instances.values():
            if event.key in instance.active:
                self._do(CancelActive(instance.number, event.key))
            if event.key in instance.unloads:
                instance.unloads.remove(event.key)

    def _sampled(self, event: Sampled) -> None:
        self._sampling = False
        self._place_tickets(event.snapshot)

    def _worker_up(self, event: WorkerUp) -> None:
        instance = self._by_number.get(event.instance)
        if instance and instance.state is State.STARTING:
            instance.state = move(instance.state, State.LOADING)

    def _worker_ready(self, event: WorkerReady) -> None:
        instance = self._by_number.get(event.instance)
        if not instance or instance.state is not State.LOADING:
            return  # it was told to stop meanwhile
        instance.state = move(instance.state, State.READY)
        instance.facts = event.facts
        instance.last_used = self._now
        self._do(LoadState(instance.ticket, instance.model, "done", instance=instance.number))
        self._say("models", "loaded", instance.model)

    def _worker_refused(self, event: WorkerRefused) -> None:
        instance = self._by_number.get(event.instance)
        if instance:
            instance.refusal = event.error
            self._stop(instance)

    def _worker_gone(self, event: WorkerGone) -> None:
        instance = self._by_number.pop(event.instance, None)
        if not instance:
            return
        before = instance.state
        instance.state = move(instance.state, State.ABSENT)
        del self.instances[instance.model]
        self._want_sample = True
        error = instance.refusal or (event.error if before is not State.STOPPING else None)
        for item in instance.active.values():
            self._finish(item, error or _stopped(instance.model), ended=True)
        if before in (State.STARTING, State.LOADING) or instance.refusal:
            error = error or _stopped(instance.model)
            self._do(LoadState(instance.ticket, instance.model, "failed", error))
            for item in self.queues.pop(instance.model, []):
                self._finish(item, error)
        if error is not None:
            self._say("models", "failed", instance.model, reason=error.message)
            if not instance.refusal and not instance.completed and event.counts:
                self.quarantine.death(instance.model, self._now, error.message)
        else:
            self._say("models", "unloaded", instance.model)
        freed = sum(instance.plan.placement.values())
        for key in instance.unloads:
            self._do(Finish(key, freed_bytes=freed))

    def _request_ended(self, event: RequestEnded) -> None:
        instance = self._by_number.get(event.instance)
        item = instance.active.pop(event.key, None) if instance else None
        if not instance or not item:
            return
        instance.last_used = self._now
        if event.completed:
            instance.completed += 1
            self.quarantine.clear(instance.model)
        self._want_sample = True
        self._say("requests", "finished", instance.model)

    def _unload(self, event: Unload) -> None:
        instance = self.instances.get(event.model)
        if instance is None:
            self._do(Finish(event.key))
            return
        instance.unloads.append(event.key)
        if instance.coming_up:
            self._cancel_waiters(instance.model, only_loads=True)
            self._do(LoadState(instance.ticket, instance.model, "cancelled", _cancelled()))
            self._stop(instance)
        elif instance.state is State.READY:
            instance.state = move(instance.state, State.DRAINING)
        if event.force and instance.state is not State.STOPPING:
            for item in list(instance.active.values()):
                self._finish(
                    item, errors.Cancelled(f"{instance.model} was unloaded by force"), ended=True
                )
            instance.active.clear()
            self._stop(instance, force=True)

    def _cancel_load(self, event: CancelLoad) -> None:
        for ticket in list(self.tickets.values()):
            if ticket.number == event.ticket:
                del self.tickets[ticket.model]
                self._want_sample = True
                self._do(LoadState(ticket.number, ticket.model, "cancelled", _cancelled()))
                self._cancel_waiters(ticket.model)
        for instance in list(self.instances.values()):
            if instance.ticket == event.ticket and instance.state in (
                State.STARTING,
                State.LOADING,
            ):
                self._do(LoadState(instance.ticket, instance.model, "cancelled", _cancelled()))
                self._cancel_waiters(instance.model)
                self._stop(instance)

    def _files_changed(self, event: FilesChanged) -> None:
        self.quarantine.clear(event.model)
        if instance := self.instances.get(event.model):
            instance.stale = True

    def _configure(self, event: Configure) -> None:
        self._config = event
        self._want_sample = True

    def _tick(self, event: Tick) -> None:
        pass  # `_pump` looks at every expiry anyway

    def _close(self, event: Close) -> None:
        self._closing = True
        for ticket in self.tickets.values():
            self._do(LoadState(ticket.number, ticket.model, "cancelled", _shutting_down()))
        self.tickets.clear()
        for queue in self.queues.values():
            for item in queue:
                self._finish(item, _shutting_down())
        self.queues.clear()
        for instance in self.instances.values():
            if instance.coming_up:
                self._do(LoadState(instance.ticket, instance.model, "cancelled", _shutting_down()))
            for item in instance.active.values():
                self._finish(item, _shutting_down(), ended=True)
            instance.active.clear()
            self._stop(instance, force=True)

    # ---------------------------------------------------------------- after every event

    def _pump(self) -> None:
        for instance in list(self.instances.values()):
            if not self.tickets:
                instance.yield_to = None
            if instance.state is State.READY:
                self._serve(instance)
            elif instance.state is State.DRAINING and not instance.active:
                self._stop(instance)
        for model, queue in list(self.queues.items()):
            if queue and model not in self.instances and model not in self.tickets:
                self._open_ticket(model, queue)
            if not queue:
                self.queues.pop(model, None)
            elif model in self.tickets or self.instances[model].coming_up:
                self._join(model, queue)
        if self.tickets and self._want_sample and not self._sampling:
            self._sampling, self._want_sample = True, False
            self._do(Sample())

    def _serve(self, instance: Instance) -> None:
        """Hand out what may run, answer loads that are satisfied, end what is over."""
        queue = self.queues.get(instance.model, [])
        for item in [i for i in queue if i.load and self._satisfied(i, instance)]:
            queue.remove(item)
            self._apply(item, instance)
            self._do(Finish(item.key, instance=instance.number))
        while queue and len(instance.active) < instance.parallel:
            item = queue[0]
            if item.load or not self._satisfied(item, instance):
                if not instance.active:
                    self._stop(instance)  # the ticket that follows has the options it wants
                return
            if instance.yield_to is not None and item.seq > instance.yield_to:
                break
            queue.pop(0)
            self._apply(item, instance)
            instance.active[item.key] = item
            self._say("requests", "started", instance.model)
            self._do(Send(instance.number, item.key))
        if self._idle(instance) and self._now >= self._expiry(instance):
            self._stop(instance)

    def _open_ticket(self, model: str, queue: list[Item]) -> None:
        if not any(item.load or item.switch for item in queue):
            for item in queue:
                self._finish(item, _not_loaded(model))
            queue.clear()
            return
        self._counter += 1
        ticket = Ticket(self._counter, model, queue[0].seq, queue[0].load_options)
        self.tickets[model] = ticket
        self._want_sample = True
        self._do(LoadState(ticket.number, model, "queued"))
        self._say("models", "queued", model)

    def _join(self, model: str, queue: list[Item]) -> None:
        """Tell load items which ticket they wait on; a ticket takes the larger of two wishes."""
        ticket = self.tickets.get(model)
        number = ticket.number if ticket else self.instances[model].ticket
        for item in queue:
            if not item.load or item.ticket == number:
                continue
            if ticket and item.load_options and satisfies(item.load_options, ticket.options):
                ticket.options = item.load_options
            item.ticket = number
            self._do(Joined(item.key, number))

    # ---------------------------------------------------------------- placing loads

    def _place_tickets(self, snapshot: Snapshot) -> None:
        for instance in self.instances.values():
            instance.yield_to = None
        for ticket in sorted(self.tickets.values(), key=lambda t: t.seq):
            decision = self._decide(self._needs[ticket.model], ticket.options, snapshot)
            if decision.victims == []:
                self._start(ticket, decision.plan)
            elif decision.victims:
                for model in decision.victims:
                    self._stop(self.instances[model])
            elif not decision.wait_for:
                self._refuse(ticket, decision.plan)
            for model in decision.wait_for:
                instance = self.instances[model]
                if instance.yield_to is None:
                    instance.yield_to = ticket.seq

    def _decide(self, need: plan.Need, wanted: Mapping[str, Any], snapshot: Snapshot) -> Decision:
        return decide(
            need,
            wanted,
            snapshot,
            [i for i in self.instances.values() if i.model != need.model],
            idle={i.model for i in self.instances.values() if self._idle(i)},
            max_loaded=self._config.max_loaded,
            now=self._now,
        )

    def _start(self, ticket: Ticket, made: plan.Plan) -> None:
        del self.tickets[ticket.model]
        self._counter += 1
        instance = Instance(
            self._counter, ticket.model, ticket.number, made, ticket.options, self._config.keepalive
        )
        instance.last_used = self._now
        self.instances[ticket.model] = instance
        self._by_number[instance.number] = instance
        self._do(LoadState(ticket.number, ticket.model, "loading", instance=instance.number))
        self._say("models", "loading", ticket.model)
        self._do(Start(instance.number, ticket.model, made, ticket.number))

    def _refuse(self, ticket: Ticket, made: plan.Plan) -> None:
        del self.tickets[ticket.model]
        error = errors.DoesNotFit(why_not(made), plan=made.to_wire())
        self._do(LoadState(ticket.number, ticket.model, "failed", error))
        self._say("models", "failed", ticket.model, reason=error.message)
        for item in self.queues.pop(ticket.model, []):
            self._finish(item, error)

    # ---------------------------------------------------------------- small things

    def _idle(self, instance: Instance) -> bool:
        """Ready, nothing running, nobody waiting whom it may still serve."""
        if instance.state is not State.READY or instance.active:
            return False
        waiting = self.queues.get(instance.model, [])
        if instance.yield_to is None:
            return not waiting
        return not any(item.seq < instance.yield_to for item in waiting)

    def _expiry(self, instance: Instance) -> float:
        if instance.pinned or not self._idle(instance):
            return inf
        return instance.last_used + instance.keepalive

    def _satisfied(self, item: Item, instance: Instance) -> bool:
        return satisfies(instance.in_force, item.load_options)

    def _apply(self, item: Item, instance: Instance) -> None:
        if item.keepalive is not None:
            instance.keepalive = item.keepalive
        if item.pin is not None:
            instance.pinned = item.pin
        instance.last_used = self._now

    def _stop(self, instance: Instance, *, force: bool = False) -> None:
        if instance.state is State.STOPPING:
            return
        instance.state = move(instance.state, State.STOPPING)
        self._say("models", "unloading", instance.model)
        self._do(Stop(instance.number, force))

    def _drop_load_without_waiters(self, model: str) -> None:
        if self.queues.get(model):
            return
        if ticket := self.tickets.pop(model, None):
            self._want_sample = True
            self._do(LoadState(ticket.number, model, "cancelled", _cancelled()))
        instance = self.instances.get(model)
        if instance and instance.coming_up:
            self._do(LoadState(instance.ticket, model, "cancelled", _cancelled()))
            self._stop(instance)

    def _cancel_waiters(self, model: str, *, only_loads: bool = False) -> None:
        queue = self.queues.pop(model, [])
        for item in queue:
            if item.load or not only_loads:
                self._finish(item, errors.Cancelled(f"the load of {model} was cancelled"))
        if kept := [item for item in queue if only_loads and not item.load]:
            self.queues[model] = kept

    def _finish(self, item: Item, error: errors.HybriddError, *, ended: bool = False) -> None:
        if not item.load and not ended:
            self._say("requests", "finished", item.model)
        self._do(Finish(item.key, error))

    def _say(self, topic: str, type: str, model: str, **data: Any) -> None:
        self._do(Notify(topic, type, model, data))

    def _do(self, effect: Effect) -> None:
        self._effects.append(effect)


_HANDLERS: Mapping[type, Any] = {
    Enqueue: Scheduler._enqueue,
    Abandon: Scheduler._abandon,
    Sampled: Scheduler._sampled,
    WorkerUp: Scheduler._worker_up,
    WorkerReady: Scheduler._worker_ready,
    WorkerRefused: Scheduler._worker_refused,
    WorkerGone: Scheduler._worker_gone,
    RequestEnded: Scheduler._request_ended,
    Unload: Scheduler._unload,
    CancelLoad: Scheduler._cancel_load,
    FilesChanged: Scheduler._files_changed,
    Configure: Scheduler._configure,
    Tick: Scheduler._tick,
    Close: Scheduler._close,
}


def _not_loaded(model: str) -> errors.HybriddError:
    return errors.NotLoaded(
        f"{model} is not loaded and smart switching is off; load it first (hybridctl load {model})",
        model=model,
    )


def _cancelled() -> errors.HybriddError:
    return errors.Cancelled("the load was cancelled")


def _shutting_down() -> errors.HybriddError:
    return errors.ShuttingDown("hybridd is shutting down; ask again once it is back")


def _stopped(model: str) -> errors.HybriddError:
    return errors.Cancelled(f"{model} was unloaded")
