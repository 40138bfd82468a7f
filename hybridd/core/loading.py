"""The loads: tickets, their jobs, and which gets room when.

The scheduler's half for models that are not there, or not as they are wanted. A model whose queue
is not empty and that has no instance has a `Ticket`: a load that waits for room. Loads are placed
only on a fresh reading of memory, so a ticket first asks for one (`Sample`) and is decided when it
comes (`Sampled`); it is looked at again whenever the set of instances, or which of them are idle,
has changed. A load whose options the running instance does not satisfy gets the number of the
ticket that will follow (a promise), so that its job exists from the moment a call waits for it.

Pure as the scheduler is, which owns it and calls it. How room is found is `placing`'s knowledge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from hybridd.core import plan
from hybridd.core.devices import CPU, Snapshot
from hybridd.core.instance import Instance, Ticket
from hybridd.core.options import satisfies
from hybridd.core.placing import Decision, Turns, decide, why_not
from hybridd.core.roster import Roster, load_cancelled, not_loaded, shutting_down
from hybridd.core.scheduling import Item, Joined, LoadState, Sample, Start
from hybridd.wire import errors


class Loading:
    """See the module's text.

    Args:
        roster: Shared with the scheduler.

    Attributes:
        promised: By model, the number of the ticket that follows its present instance.
    """

    def __init__(self, roster: Roster) -> None:
        self.promised: dict[str, int] = {}
        self._roster = roster
        self._needs: dict[str, plan.Need] = {}
        self._reloads: dict[str, Item] = {}  # what wants a ready model with other options
        self._sampling = False
        self._sample_is_old = False
        self._sampled_for: object = None

    # ---------------------------------------------------------------- from the scheduler

    def learn(self, need: plan.Need) -> None:
        """Take over how the planner has to know a model now."""
        self._needs[need.model] = need

    def plan_for(self, need: plan.Need, wanted: Mapping[str, Any], snapshot: Snapshot) -> plan.Plan:
        """What a load would do now; changes nothing."""
        planned = self._decide(need, wanted, snapshot, self._roster.idle_models(inf)).plan
        return plan.with_host_cache(need, planned, self._free(snapshot, planned))

    def memory_came_back(self) -> None:
        """A worker is gone: what is being read may have its memory twice, or not at all."""
        # trace 4: a reading under way is not believed; `end_round` asks for another
        self._sample_is_old = self._sampling

    def sampled(self, snapshot: Snapshot) -> None:
        """Decide the loads on the reading that was asked for."""
        self._sampling = False
        if self._sample_is_old:
            self._sampled_for, self._sample_is_old = None, False
        else:
            self._weigh_reloads(snapshot)
            self._place_tickets(snapshot)

    def begin_round(self) -> None:
        """The scheduler is about to look at every model."""
        self._reloads.clear()

    def wants_other_options(self, model: str, item: Item) -> None:
        """A ready model does not satisfy the item that is first in its queue."""
        self._reloads[model] = item

    def satisfied(self, item: Item, instance: Instance) -> None:
        """A load is over; where the model was to go for it, it stayed after all."""
        if item.ticket is not None and item.ticket == self.promised.get(item.model):
            number = self.promised.pop(item.model)
            self._roster.do(LoadState(number, item.model, "done", instance=instance.number))

    def end_round(self) -> None:
        """See to every queue without an instance; ask for a reading of memory if it may help."""
        roster = self._roster
        for model, queue in list(roster.queues.items()):
            if queue and model not in roster.instances and model not in roster.tickets:
                self._open_ticket(model, queue)
            if not queue:
                roster.queues.pop(model, None)
            else:
                self._join(model, queue)
        self._keep_promises()
        if (roster.tickets or self._reloads) and not self._sampling:
            # Whatever changes this may change what fits, and nothing else does.
            now = (
                [ticket.number for ticket in roster.tickets.values()],
                [item.key for item in self._reloads.values()],
                [
                    (i.number, i.state, i.pinned, i.yield_to, roster.idle(i))
                    for i in roster.instances.values()
                ],
                roster.config,
            )
            if now != self._sampled_for:
                self._sampling, self._sampled_for = True, now
                roster.do(Sample())

    # ---------------------------------------------------------------- ends

    def cancel(self, number: int) -> None:
        """Stop the load whose ticket has this number, and everything that waits for it."""
        roster = self._roster
        for ticket in list(roster.tickets.values()):
            if ticket.number == number:
                del roster.tickets[ticket.model]
                roster.do(LoadState(number, ticket.model, "cancelled", load_cancelled()))
                roster.cancel_waiters(ticket.model)
        for model, promised in self.promised.items():
            if promised == number:
                roster.cancel_waiters(model, only_loads=True)  # `_keep_promises` ends the job
        for instance in list(roster.instances.values()):
            if instance.ticket == number and instance.coming_up:
                roster.cancel_load(instance, load_cancelled())
                roster.cancel_waiters(instance.model)
                roster.stop(instance)

    def drop_without_waiters(self, model: str) -> None:
        """Stop a load that no item waits for any more."""
        roster = self._roster
        if roster.queues.get(model):
            return
        if ticket := roster.tickets.pop(model, None):
            roster.do(LoadState(ticket.number, model, "cancelled", load_cancelled()))
        instance = roster.instances.get(model)
        if instance and instance.coming_up:
            roster.cancel_load(instance, load_cancelled())
            roster.stop(instance)

    def close(self) -> None:
        """End the tickets: the daemon ends."""
        for ticket in self._roster.tickets.values():
            self._roster.do(LoadState(ticket.number, ticket.model, "cancelled", shutting_down()))
        self._roster.tickets.clear()

    # ---------------------------------------------------------------- tickets and their jobs

    def _open_ticket(self, model: str, queue: list[Item]) -> None:
        roster = self._roster
        for item in list(queue):
            # What was waiting when the model died once too often is not tried on it again.
            refusal: errors.HybriddError | None = roster.quarantine.check(model, roster.now)
            if refusal is None and not any(i.load or i.switch for i in queue):
                refusal = not_loaded(model)
            if refusal is not None:
                queue.remove(item)
                roster.finish(item, refusal)
        if not queue:
            return
        number = self.promised.pop(model, None)
        if number is None:
            number = self._new_job(model)
        # trace 1: it waits for a reading of memory that is newer than itself
        roster.tickets[model] = Ticket(number, model, queue[0].seq, queue[0].load_options)

    def _new_job(self, model: str) -> int:
        number = self._roster.next_number()
        self._roster.do(LoadState(number, model, "queued"))
        self._roster.say("models", "queued", model)
        return number

    def _join(self, model: str, queue: list[Item]) -> None:
        """Tell load items which ticket they wait on; a ticket takes the larger of two wishes."""
        ticket = self._roster.tickets.get(model)
        instance = self._roster.instances.get(model)
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
                self._roster.do(Joined(item.key, number))

    def _is_larger(self, wanted: Mapping[str, Any], ticket: Ticket) -> bool:
        """Whether a load with these options would do for all that the ticket would do for."""
        settled = plan.settle(self._needs[ticket.model], ticket.options)
        if satisfies(settled, wanted) or not satisfies(wanted, ticket.options):
            return False
        context = wanted.get("context_length", "auto")
        return context == "auto" or bool(context >= settled["context_length"])

    def _promise(self, model: str) -> int:
        """The number of the ticket that follows the model's present instance."""
        if model not in self.promised:
            self.promised[model] = self._new_job(model)
        return self.promised[model]

    def _keep_promises(self) -> None:
        """End the jobs of promised tickets that no item waits for any more."""
        for model, number in list(self.promised.items()):
            if any(item.ticket == number for item in self._roster.queues.get(model, ())):
                continue
            del self.promised[model]
            error = shutting_down() if self._roster.closing else load_cancelled()
            self._roster.do(LoadState(number, model, "cancelled", error))

    # ---------------------------------------------------------------- placing

    def _place_tickets(self, snapshot: Snapshot) -> None:
        roster = self._roster
        turns = Turns(roster.config.max_loaded)
        yielded = {i.model: i.yield_to for i in roster.instances.values()}
        for instance in roster.instances.values():
            instance.yield_to = None
        for ticket in sorted(roster.tickets.values(), key=lambda t: t.seq):
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
                spare = turns.spare(CPU, self._free(snapshot, decision.plan))
                planned = plan.with_host_cache(self._needs[ticket.model], decision.plan, spare)
                turns.take(CPU, planned.host_cache_bytes)
                self._start(ticket, planned)
            elif not turns.someone_waits:
                turns.promise(decision, len(roster.instances) - len(decision.leaving) + 1)
                # trace 2 ends victims; trace 3 comes here again while they go, and waits
                for model in decision.victims or ():
                    roster.stop(roster.instances[model])
                for model in decision.wait_for:
                    roster.instances[model].yield_to = ticket.seq

    def _weigh_reloads(self, snapshot: Snapshot) -> None:
        """End a ready model for other options only if those have a chance; else it stays."""
        for model, item in self._reloads.items():
            decision = self._judge(model, item.load_options, snapshot, item.seq)
            if not isinstance(decision, errors.HybriddError):
                # The ticket that follows has the options.
                self._roster.stop(self._roster.instances[model])
                continue
            number = item.ticket
            if number is not None and self.promised.get(model) == number:
                del self.promised[model]
                self._roster.do(LoadState(number, model, "failed", decision))
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
                self._needs[model], wanted, snapshot, self._roster.idle_models(seq), yielding
            )
        except Exception as exc:  # an estimate is a backend's, which may be a third party's
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
            [i for i in self._roster.instances.values() if i.model != need.model],
            idle=idle,
            max_loaded=self._roster.config.max_loaded,
            now=self._roster.now,
            yielding=yielding,
        )

    def _free(self, snapshot: Snapshot, planned: plan.Plan) -> int:
        """Main memory that is left beside what is loaded and this load."""
        others = [i for i in self._roster.instances.values() if i.model != planned.model]
        available = snapshot.available(i.plan.placement for i in others)
        return available.get(CPU, 0) - planned.placement.get(CPU, 0)

    def _start(self, ticket: Ticket, planned: plan.Plan) -> None:
        roster = self._roster
        model = ticket.model
        del roster.tickets[model]
        instance = Instance(
            roster.next_number(),
            model,
            ticket.number,
            planned,
            ticket.options,
            roster.config.keepalive,
            last_used=roster.now,
        )
        roster.instances[model] = instance
        roster.by_number[instance.number] = instance
        # trace 5: the plan's placement is reserved as soon as the instance is there
        roster.do(LoadState(ticket.number, model, "loading", instance=instance.number))
        roster.say("models", "loading", model)
        roster.do(Start(instance.number, model, planned, ticket.number))

    def _refuse(self, ticket: Ticket, error: errors.HybriddError) -> None:
        """End a ticket and the items that asked for as much; the others get another ticket."""
        del self._roster.tickets[ticket.model]
        self._roster.do(LoadState(ticket.number, ticket.model, "failed", error))
        self._roster.say("models", "failed", ticket.model, reason=error.message)
        self._finish_alike(ticket.model, ticket.options, error)

    def _finish_alike(
        self, model: str, options: Mapping[str, Any], error: errors.HybriddError
    ) -> None:
        queue = self._roster.queues.pop(model, [])
        for item in queue:
            if item.load_options == options:
                self._roster.finish(item, error)
        if kept := [item for item in queue if item.load_options != options]:
            self._roster.queues[model] = kept
