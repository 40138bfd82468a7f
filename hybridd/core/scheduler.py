"""Who is loaded, who runs, who waits: events in, effects out.

Theory of operation
-------------------
Every model has a queue of items (requests, and wishes to have it loaded) in order of arrival, and
at most one `Instance`, which is a worker's life from start to end. After each event `_pump` looks
at every model once and does what its state allows: this module serves what is ready, `loading`
brings up what is not, and the `roster` is the state that both work on.

Room is made by ending idle instances. Busy ones are never ended. When they hold what a ticket
needs, they are marked `yield_to` the ticket: requests that came after it are no longer handed to
them, so the ticket's wait is bounded by the work that was there before it, and two clients of two
models that do not fit together take turns. Only the first ticket that has to wait makes others
leave; a later one may start meanwhile where it is not in the first one's way (`placing.Turns`).

A ready model that is wanted with options that it does not satisfy is ended for a load with those,
behind its running requests, and only if that load has a chance: a refusal unloads nothing.

`trace 1` to `trace 8` in comments, here and where effects are performed, are the steps of one load
that docs/architecture.md follows from its request to its answer.

An item ends exactly once: by `Finish` here, by the worker's own reply, or by `Abandon`. The
scheduler has no clock (times are handed in, in seconds), no I/O and no tasks. Its one owner is
`serving/residency`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from hybridd.core import plan
from hybridd.core.devices import Snapshot
from hybridd.core.instance import Instance
from hybridd.core.lifecycle import State, move
from hybridd.core.loading import Loading
from hybridd.core.options import satisfies
from hybridd.core.roster import Roster, load_cancelled, not_loaded, shutting_down, unloaded
from hybridd.core.scheduling import (
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
    LoadState,
    RequestEnded,
    Sampled,
    Send,
    Tick,
    Unload,
    WorkerGone,
    WorkerReady,
    WorkerRefused,
    WorkerUp,
)
from hybridd.core.threads import retell
from hybridd.wire import errors


class Scheduler:
    """The state machine. Call `handle` with each event; perform the effects in order."""

    def __init__(
        self, *, keepalive: float = 300.0, max_loaded: int = 0, max_queue: int = 512
    ) -> None:
        self._roster = roster = Roster(Configure(keepalive, max_loaded, max_queue))
        self._loading = Loading(roster)
        # For others to read.
        self.instances = roster.instances
        self.queues = roster.queues
        self.tickets = roster.tickets
        self.quarantine = roster.quarantine
        self.promised = self._loading.promised
        self._by_number = roster.by_number

    # ---------------------------------------------------------------- the outside

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` (seconds, any epoch, never going back)."""
        self._roster.now = now
        self._roster.effects = []
        _HANDLERS[type(event)](self, event)
        self._pump()
        self._roster.effects += retell(self.instances.values(), self._roster.config.cores)
        return self._roster.effects

    def next_deadline(self) -> float:
        """When a `Tick` is due; infinity when nothing runs out."""
        return min((self._expiry(i) for i in self.instances.values()), default=inf)

    def expires_in(self, instance: Instance, now: float) -> float | None:
        """Seconds until an idle instance is unloaded; None for never, all of them while busy."""
        expiry = instance.last_used + instance.keepalive
        if instance.pinned or expiry == inf:
            return None
        return max(0.0, expiry - now) if self._roster.idle(instance) else instance.keepalive

    def instance(self, number: int) -> Instance | None:
        """The instance with this number, while its process is not known to be over."""
        return self._by_number.get(number)

    def queued_requests(self, model: str) -> int:
        """Requests that wait for this model and are not running."""
        return sum(not item.load for item in self.queues.get(model, ()))

    def plan_for(self, need: plan.Need, wanted: Mapping[str, Any], snapshot: Snapshot) -> plan.Plan:
        """What a load would do now; changes nothing."""
        return self._loading.plan_for(need, wanted, snapshot)

    # ---------------------------------------------------------------- events

    def _enqueue(self, event: Enqueue) -> None:
        item = event.item
        item.seq = self._roster.next_number()
        self._loading.learn(event.need)
        queue = self.queues.setdefault(item.model, [])
        if (refusal := self._refusal(item, len(queue))) is not None:
            self._roster.do(Finish(item.key, refusal))
            return
        queue.append(item)  # trace 1: `loading.end_round` sees that nothing serves this queue
        if not item.load:
            self._roster.say(
                "requests", "queued", item.model, position=self.queued_requests(item.model)
            )

    def _refusal(self, item: Item, waiting: int) -> errors.HybriddError | None:
        """Why an item may not even wait."""
        if self._roster.closing:
            return shutting_down()
        if item.model not in self.instances:
            if held := self.quarantine.check(item.model, self._roster.now):
                return held
            if not (item.load or item.switch or item.model in self.tickets):
                return not_loaded(item.model)
        if waiting >= self._roster.config.max_queue:
            return errors.Busy(
                f"{waiting} requests wait for {item.model} already; try again later",
                queue_length=waiting,
                retry_after_s=1.0,
            )
        return None

    def _abandon(self, event: Abandon) -> None:
        for model, queue in self.queues.items():
            for item in queue:
                if item.key == event.key:
                    queue.remove(item)
                    if not item.load:
                        self._roster.say("requests", "finished", model)
                    self._loading.drop_without_waiters(model)
                    return
        for instance in self.instances.values():
            running = instance.active.get(event.key)
            if running is not None and not running.left:
                running.left = True
                self._roster.do(CancelActive(instance.number, event.key))
            if event.key in instance.unloads:
                instance.unloads.remove(event.key)
                if not instance.unloads and instance.state is State.DRAINING:
                    instance.state = move(instance.state, State.READY)

    def _sampled(self, event: Sampled) -> None:
        self._loading.sampled(event.snapshot)

    def _worker_up(self, event: WorkerUp) -> None:
        instance = self._by_number.get(event.instance)
        if instance and instance.state is State.STARTING:
            instance.state = move(instance.state, State.LOADING)  # trace 6

    def _worker_ready(self, event: WorkerReady) -> None:
        instance = self._by_number.get(event.instance)
        if not instance or instance.state is not State.LOADING:
            return  # it was told to stop meanwhile
        instance.state = move(instance.state, State.READY)  # trace 7: `_serve` follows at once
        instance.facts = event.facts
        instance.last_used = self._roster.now
        self._roster.do(
            LoadState(instance.ticket, instance.model, "done", instance=instance.number)
        )
        self._roster.say("models", "loaded", instance.model)

    def _worker_refused(self, event: WorkerRefused) -> None:
        instance = self._by_number.get(event.instance)
        if instance and instance.coming_up:
            instance.refusal = event.error
            self._roster.stop(instance)

    def _worker_gone(self, event: WorkerGone) -> None:
        # trace 4: what it had reserved is free from here on
        instance = self._by_number.pop(event.instance, None)
        if not instance:
            return
        before = instance.state
        instance.state = move(instance.state, State.ABSENT)
        del self.instances[instance.model]
        self._loading.memory_came_back()
        error = instance.refusal or (event.error if before is not State.STOPPING else None)
        for item in instance.active.values():
            self._roster.finish(item, error or unloaded(instance.model))
        if before in (State.STARTING, State.LOADING) or instance.refusal:
            error = error or unloaded(instance.model)
            self._roster.do(LoadState(instance.ticket, instance.model, "failed", error))
            for item in self.queues.pop(instance.model, []):
                self._roster.finish(item, error)
        if error is not None:
            self._roster.say("models", "failed", instance.model, reason=error.message)
            if not instance.refusal and not instance.completed and event.counts:
                self.quarantine.death(instance.model, self._roster.now, error.message)
        else:
            self._roster.say("models", "unloaded", instance.model)
        freed = sum(instance.plan.placement.values())
        for key in instance.unloads:
            self._roster.do(Finish(key, freed_bytes=freed))

    def _request_ended(self, event: RequestEnded) -> None:
        instance = self._by_number.get(event.instance)
        item = instance.active.pop(event.key, None) if instance else None
        if not instance or not item:
            return
        instance.last_used = self._roster.now  # trace 8: its keepalive counts from here
        if event.completed:
            instance.completed += 1
            self.quarantine.clear(instance.model)
        self._roster.say("requests", "finished", instance.model)

    def _unload(self, event: Unload) -> None:
        instance = self.instances.get(event.model)
        if instance is None:
            self._roster.do(Finish(event.key))
            return
        instance.unloads.append(event.key)
        if instance.coming_up:
            self._roster.cancel_waiters(instance.model, only_loads=True)
            self._roster.cancel_load(instance, load_cancelled())
            self._roster.stop(instance)
        elif instance.state is State.READY:
            instance.state = move(instance.state, State.DRAINING)
        if event.force:
            for item in instance.active.values():
                self._roster.finish(
                    item, errors.Cancelled(f"{instance.model} was unloaded by force")
                )
            instance.active.clear()
            self._roster.stop(instance, force=True)

    def _cancel_load(self, event: CancelLoad) -> None:
        self._loading.cancel(event.ticket)

    def _files_changed(self, event: FilesChanged) -> None:
        self.quarantine.clear(event.model)
        for instance in self.instances.values():
            if event.model in (instance.model, instance.plan.load_options.get("draft_model")):
                instance.stale = True

    def _configure(self, event: Configure) -> None:
        self._roster.config = event
        for instance in self.instances.values():
            if not instance.keepalive_by:
                instance.keepalive = event.keepalive

    def _tick(self, event: Tick) -> None:
        pass  # `_pump` looks at every expiry anyway

    def _close(self, event: Close) -> None:
        self._roster.closing = True
        self._loading.close()
        for queue in self.queues.values():
            for item in queue:
                self._roster.finish(item, shutting_down())
        self.queues.clear()
        for instance in self.instances.values():
            if instance.coming_up:
                self._roster.cancel_load(instance, shutting_down())
            for item in instance.active.values():
                self._roster.finish(item, shutting_down())
            instance.active.clear()
            self._roster.stop(instance, force=True)

    # ---------------------------------------------------------------- after every event

    def _pump(self) -> None:
        self._loading.begin_round()
        for instance in list(self.instances.values()):
            if not self.tickets:
                instance.yield_to = None
            if instance.state is State.READY:
                self._serve(instance)
            elif instance.state is State.DRAINING and not instance.active:
                self._roster.stop(instance)
        self._loading.end_round()

    def _serve(self, instance: Instance) -> None:
        """Hand out what may run, answer loads that are satisfied, end what is over."""
        queue = self.queues.get(instance.model, [])
        for item in [i for i in queue if i.load and self._satisfied(i, instance)]:
            queue.remove(item)
            self._apply(item, instance)
            self._loading.satisfied(item, instance)
            self._roster.do(Finish(item.key, instance=instance.number))
        while queue and len(instance.active) < instance.parallel:
            item = queue[0]
            if item.load or not self._satisfied(item, instance):
                if not instance.active:
                    self._loading.wants_other_options(instance.model, item)
                return
            if instance.yield_to is not None and item.seq > instance.yield_to:
                break
            queue.pop(0)
            self._apply(item, instance)
            instance.active[item.key] = item
            self._roster.say("requests", "started", instance.model)
            self._roster.do(Send(instance.number, item.key))  # trace 7
        if self._roster.idle(instance) and self._roster.now >= self._expiry(instance):
            self._roster.stop(instance)

    def _expiry(self, instance: Instance) -> float:
        if instance.pinned or not self._roster.idle(instance):
            return inf
        return instance.last_used + instance.keepalive

    def _satisfied(self, item: Item, instance: Instance) -> bool:
        return satisfies(instance.in_force, item.load_options)

    def _apply(self, item: Item, instance: Instance) -> None:
        # Loads are answered before the requests that came first; the latest of all counts.
        if item.keepalive is not None and item.seq > instance.keepalive_by:
            instance.keepalive, instance.keepalive_by = item.keepalive, item.seq
        if item.pin is not None:
            instance.pinned = item.pin
        instance.last_used = self._roster.now


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
