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
models that do not fit together take turns. Only the first ticket that has to wait makes others
leave; a later one may start meanwhile where it is not in the first one's way (`placing.Turns`).

A ready model that is wanted with options that it does not satisfy is ended for a load with those,
behind its running requests, and only if that load has a chance: a refusal costs nobody the model.

A ticket is looked at again whenever the set of instances, or which of them are idle, has changed.

An item ends exactly once: by `Finish` here, by the worker's own reply, or by `Abandon`. A load's
ticket has a job from the moment that somebody waits for it: a load whose options the running
instance does not satisfy gets the number of the ticket that will follow (`_promised`).
The scheduler has no clock (times are handed in, in seconds), no I/O and no tasks. Its one owner is
`service/residency`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from hybridd.core import plan
from hybridd.core.devices import Snapshot
from hybridd.core.instance import Instance, Ticket
from hybridd.core.lifecycle import State, move
from hybridd.core.options import satisfies
from hybridd.core.placing import Decision, Turns, decide, why_not
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
        self._promised: dict[str, int] = {}
        self._reloads: dict[str, Item] = {}  # what wants a ready model with other options
        self._sampling = False
        self._sample_is_old = False
        self._sampled_for: object = None
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

    def expires_in(self, instance: Instance, now: float) -> float | None:
        """Seconds until an idle instance is unloaded; None for never, all of them while busy."""
        expiry = instance.last_used + instance.keepalive
        if instance.pinned or expiry == inf:
            return None
        return max(0.0, expiry - now) if self._idle(instance) else instance.keepalive

    def instance(self, number: int) -> Instance | None:
        """The instance with this number, while its process is not known to be over."""
        return self._by_number.get(number)

    def queued_requests(self, model: str) -> int:
        """Requests that wait for this model and are not running."""
        return sum(not item.load for item in self.queues.get(model, ()))

    def plan_for(self, need: plan.Need, wanted: Mapping[str, Any], snapshot: Snapshot) -> plan.Plan:
        """What a load would do now; changes nothing."""
        return self._decide(need, wanted, snapshot, self._idle_models(inf)).plan

    # ---------------------------------------------------------------- events

    def _enqueue(self, event: Enqueue) -> None:
        item = event.item
        self._counter += 1
        item.seq = self._counter
        self._needs[item.model] = event.need
        queue = self.queues.setdefault(item.model, [])
        if (refusal := self._refusal(item, len(queue))) is not None:
            self._do(Finish(item.key, refusal))
            return
        queue.append(item)
        if not item.load:
            self._say("requests", "queued", item.model, position=self.queued_requests(item.model))

    def _refusal(self, item: Item, waiting: int) -> errors.HybriddError | None:
        """Why an item may not even wait."""
        if self._closing:
            return _shutting_down()
        if item.model not in self.instances:
            if held := self.quarantine.check(item.model, self._now):
                return held
            if not (item.load or item.switch or item.model in self.tickets):
                return _not_loaded(item.model)
        if waiting >= self._config.max_queue:
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
                        self._say("requests", "finished", model)
                    self._drop_load_without_waiters(model)
                    return
        for instance in self.instances.values():
            running = instance.active.get(event.key)
            if running is not None and not running.left:
                running.left = True
                self._do(CancelActive(instance.number, event.key))
            if event.key in instance.unloads:
                instance.unloads.remove(event.key)
                if not instance.unloads and instance.state is State.DRAINING:
                    instance.state = move(instance.state, State.READY)

    def _sampled(self, event: Sampled) -> None:
        self._sampling = False
        if self._sample_is_old:
            # Memory that came back while it was read may be in it twice, or not at all.
            self._sampled_for, self._sample_is_old = None, False
        else:
            self._weigh_reloads(event.snapshot)
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
        if instance and instance.coming_up:
            instance.refusal = event.error
            self._stop(instance)

    def _worker_gone(self, event: WorkerGone) -> None:
        instance = self._by_number.pop(event.instance, None)
        if not instance:
            return
        before = instance.state
        instance.state = move(instance.state, State.ABSENT)
        del self.instances[instance.model]
        self._sample_is_old = self._sampling
        error = instance.refusal or (event.error if before is not State.STOPPING else None)
        for item in instance.active.values():
            self._finish(item, error or _stopped(instance.model))
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
        if event.force:
            for item in instance.active.values():
                self._finish(item, errors.Cancelled(f"{instance.model} was unloaded by force"))
            instance.active.clear()
            self._stop(instance, force=True)

    def _cancel_load(self, event: CancelLoad) -> None:
        for ticket in list(self.tickets.values()):
            if ticket.number == event.ticket:
                del self.tickets[ticket.model]
                self._do(LoadState(ticket.number, ticket.model, "cancelled", _cancelled()))
                self._cancel_waiters(ticket.model)
        for model, number in self._promised.items():
            if number == event.ticket:
                self._cancel_waiters(model, only_loads=True)  # `_keep_promises` ends the job
        for instance in list(self.instances.values()):
            if instance.ticket == event.ticket and instance.coming_up:
                self._do(LoadState(instance.ticket, instance.model, "cancelled", _cancelled()))
                self._cancel_waiters(instance.model)
                self._stop(instance)

    def _files_changed(self, event: FilesChanged) -> None:
        self.quarantine.clear(event.model)
        if instance := self.instances.get(event.model):
            instance.stale = True

    def _configure(self, event: Configure) -> None:
        self._config = event
        for instance in self.instances.values():
            if not instance.keepalive_by:
                instance.keepalive = event.keepalive

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
                self._finish(item, _shutting_down())
            instance.active.clear()
            self._stop(instance, force=True)

    # ---------------------------------------------------------------- after every event

    def _pump(self) -> None:
        self._reloads.clear()
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
            else:
                self._join(model, queue)
        self._keep_promises()
        if (self.tickets or self._reloads) and not self._sampling:
            # Whatever changes this may change what fits, and nothing else does.
            now = (
                [ticket.number for ticket in self.tickets.values()],
                [item.key for item in self._reloads.values()],
                [
                    (i.number, i.state, i.pinned, i.yield_to, self._idle(i))
                    for i in self.instances.values()
                ],
                self._config,
            )
            if now != self._sampled_for:
                self._sampling, self._sampled_for = True, now
                self._do(Sample())

    def _serve(self, instance: Instance) -> None:
        """Hand out what may run, answer loads that are satisfied, end what is over."""
        queue = self.queues.get(instance.model, [])
        for item in [i for i in queue if i.load and self._satisfied(i, instance)]:
            queue.remove(item)
            self._apply(item, instance)
            if item.ticket is not None and item.ticket == self._promised.get(item.model):
                # The model was to go, and stayed after all.
                number = self._promised.pop(item.model)
                self._do(LoadState(number, item.model, "done", instance=instance.number))
            self._do(Finish(item.key, instance=instance.number))
        while queue and len(instance.active) < instance.parallel:
            item = queue[0]
            if item.load or not self._satisfied(item, instance):
                if not instance.active:
                    self._reloads[instance.model] = item
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
        for item in list(queue):
            # What was waiting when the model died once too often is not tried on it again.
            refusal: errors.HybriddError | None = self.quarantine.check(model, self._now)
            if refusal is None and not any(i.load or i.switch for i in queue):
                refusal = _not_loaded(model)
            if refusal is not None:
                queue.remove(item)
                self._finish(item, refusal)
        if not queue:
            return
        number = self._promised.pop(model, None)
        if number is None:
            self._counter += 1
            number = self._counter
            self._do(LoadState(number, model, "queued"))
            self._say("models", "queued", model)
        self.tickets[model] = Ticket(number, model, queue[0].seq, queue[0].load_options)

    def _join(self, model: str, queue: list[Item]) -> None:
        """Tell load items which ticket they wait on; a ticket takes the larger of two wishes."""
        ticket, instance = self.tickets.get(model), self.instances.get(model)
        for item in queue:
            if not item.load:
                continue
            if ticket is not None:
                number = ticket.number
                if item.ticket != number and self._is_larger(item.load_options, ticket):
                    ticket.options = item.load_options
            elif instance is not None and (instance.coming_up or instance.refusal):
                number = instance.ticket
            else:
                number = self._promise(model)
            if item.ticket != number:
                item.ticket = number
                self._do(Joined(item.key, number))

    def _is_larger(self, wanted: Mapping[str, Any], ticket: Ticket) -> bool:
        """Whether a load with these options would do for everybody whom the ticket would do for."""
        settled = plan.settle(self._needs[ticket.model], ticket.options)
        if satisfies(settled, wanted) or not satisfies(wanted, ticket.options):
            return False
        context = wanted.get("context_length", "auto")
        return context == "auto" or bool(context >= settled["context_length"])

    def _promise(self, model: str) -> int:
        """The number of the ticket that follows the model's present instance."""
        if model not in self._promised:
            self._counter += 1
            self._promised[model] = self._counter
            self._do(LoadState(self._counter, model, "queued"))
            self._say("models", "queued", model)
        return self._promised[model]

    def _keep_promises(self) -> None:
        """End the jobs of promised tickets that nobody waits for any more."""
        for model, number in list(self._promised.items()):
            if any(item.ticket == number for item in self.queues.get(model, ())):
                continue
            del self._promised[model]
            error = _shutting_down() if self._closing else _cancelled()
            self._do(LoadState(number, model, "cancelled", error))

    # ---------------------------------------------------------------- placing loads

    def _place_tickets(self, snapshot: Snapshot) -> None:
        turns = Turns(self._config.max_loaded)
        yielded = {i.model: i.yield_to for i in self.instances.values()}
        for instance in self.instances.values():
            instance.yield_to = None
        for ticket in sorted(self.tickets.values(), key=lambda t: t.seq):
            decision = self._judge(
                ticket.model,
                ticket.options,
                snapshot,
                ticket.seq,
                {model for model, seq in yielded.items() if seq == ticket.seq},
            )
            if isinstance(decision, errors.HybriddError):
                self._refuse(ticket, decision)
            elif turns.may_start(decision):
                self._start(ticket, decision.plan)
            elif not turns.someone_waits:
                turns.promise(decision, len(self.instances) - len(decision.leaving) + 1)
                for model in decision.victims or ():
                    self._stop(self.instances[model])
                for model in decision.wait_for:
                    self.instances[model].yield_to = ticket.seq

    def _weigh_reloads(self, snapshot: Snapshot) -> None:
        """End a ready model for other options only if those have a chance; else it stays."""
        for model, item in self._reloads.items():
            decision = self._judge(model, item.load_options, snapshot, item.seq)
            if not isinstance(decision, errors.HybriddError):
                self._stop(self.instances[model])  # the ticket that follows has the options
                continue
            number = item.ticket
            if number is not None and self._promised.get(model) == number:
                del self._promised[model]
                self._do(LoadState(number, model, "failed", decision))
            self._finish_alike(model, item.load_options, decision)

    def _judge(
        self,
        model: str,
        wanted: Mapping[str, Any],
        snapshot: Snapshot,
        seq: int,
        yielding: Collection[str] = (),
    ) -> Decision | errors.HybriddError:
        """The decision on a load that came at `seq`, or why there is no chance."""
        try:
            decision = self._decide(
                self._needs[model], wanted, snapshot, self._idle_models(seq), yielding
            )
        except Exception as exc:  # an estimate is a backend's, which may be anybody's code
            return errors.LoadFailed(
                f"what {model} needs cannot be worked out ({type(exc).__name__})",
                reason="estimate",
            )
        if decision.hopeless:
            return errors.DoesNotFit(why_not(decision.plan), plan=decision.plan.to_wire())
        return decision

    def _decide(
        self,
        need: plan.Need,
        wanted: Mapping[str, Any],
        snapshot: Snapshot,
        idle: Collection[str],
        yielding: Collection[str] = (),
    ) -> Decision:
        return decide(
            need,
            wanted,
            snapshot,
            [i for i in self.instances.values() if i.model != need.model],
            idle=idle,
            max_loaded=self._config.max_loaded,
            now=self._now,
            yielding=yielding,
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

    def _refuse(self, ticket: Ticket, error: errors.HybriddError) -> None:
        """End a ticket and who asked for as much; whoever asked for something else gets another."""
        del self.tickets[ticket.model]
        self._do(LoadState(ticket.number, ticket.model, "failed", error))
        self._say("models", "failed", ticket.model, reason=error.message)
        self._finish_alike(ticket.model, ticket.options, error)

    def _finish_alike(
        self, model: str, options: Mapping[str, Any], error: errors.HybriddError
    ) -> None:
        queue = self.queues.pop(model, [])
        for item in queue:
            if item.load_options == options:
                self._finish(item, error)
        if kept := [item for item in queue if item.load_options != options]:
            self.queues[model] = kept

    # ---------------------------------------------------------------- small things

    def _idle(self, instance: Instance, before: float = inf) -> bool:
        """Ready, nothing running, nobody waiting whom it may still serve.

        Args:
            before: The seq of a ticket that needs its room: who came later does not count.
        """
        if instance.state is not State.READY or instance.active:
            return False
        before = min(before, instance.yield_to or inf)
        return not any(item.seq < before for item in self.queues.get(instance.model, ()))

    def _idle_models(self, before: float) -> set[str]:
        return {i.model for i in self.instances.values() if self._idle(i, before)}

    def _expiry(self, instance: Instance) -> float:
        if instance.pinned or not self._idle(instance):
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
        instance.last_used = self._now

    def _stop(self, instance: Instance, *, force: bool = False) -> None:
        if instance.state is State.STOPPING:
            if force:
                self._do(Stop(instance.number, force))
            return
        instance.state = move(instance.state, State.STOPPING)
        self._say("models", "unloading", instance.model)
        self._do(Stop(instance.number, force))

    def _drop_load_without_waiters(self, model: str) -> None:
        if self.queues.get(model):
            return
        if ticket := self.tickets.pop(model, None):
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

    def _finish(self, item: Item, error: errors.HybriddError) -> None:
        if not item.load:
            self._say("requests", "finished", item.model)
        if not item.left:
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
