"""The scheduler's state, and the few moves that both of its halves make.

`scheduler` (serving what is ready) and `loading` (bringing up what is not) share one `Roster`: the
instances, the queues, the tickets, and the effects of the event at hand. It holds no rule of its
own beyond what "idle" and "over" mean. Owned by the `Scheduler`; nothing else changes it.
"""

from __future__ import annotations

from math import inf
from typing import Any

from hybridd.core.instance import Instance, Ticket
from hybridd.core.lifecycle import State, move
from hybridd.core.quarantine import Quarantine
from hybridd.core.scheduling import Configure, Effect, Finish, Item, LoadState, Notify, Stop
from hybridd.wire import errors


class Roster:
    """See the module's text.

    Attributes:
        instances: Workers' lives by model.
        by_number: The same by number, while their processes are not known to be over.
        queues: What waits for each model, in order of arrival; none is kept empty.
        tickets: Loads that wait for room, by model.
        now: Seconds, of the event at hand.
        effects: What the event at hand brought about so far.
    """

    def __init__(self, config: Configure) -> None:
        self.instances: dict[str, Instance] = {}
        self.by_number: dict[int, Instance] = {}
        self.queues: dict[str, list[Item]] = {}
        self.tickets: dict[str, Ticket] = {}
        self.quarantine = Quarantine()
        self.config = config
        self.closing = False
        self.now = 0.0
        self.effects: list[Effect] = []
        self._counter = 0

    def next_number(self) -> int:
        """A number that no item, ticket or instance has had."""
        self._counter += 1
        return self._counter

    # ---------------------------------------------------------------- effects

    def do(self, effect: Effect) -> None:
        """Have something done."""
        self.effects.append(effect)

    def say(self, topic: str, type: str, model: str, **data: Any) -> None:
        """Tell subscribers."""
        self.do(Notify(topic, type, model, data))

    def finish(self, item: Item, error: errors.HybriddError) -> None:
        """End an item with an error, unless its waiter left before."""
        if not item.load:
            self.say("requests", "finished", item.model)
        if not item.left:
            self.do(Finish(item.key, error))

    def stop(self, instance: Instance, *, force: bool = False) -> None:
        """End an instance; one that is ending hears of it again only by force."""
        if instance.state is State.STOPPING:
            if force:
                self.do(Stop(instance.number, force))
            return
        instance.state = move(instance.state, State.STOPPING)
        self.say("models", "unloading", instance.model)
        self.do(Stop(instance.number, force))

    def cancel_load(self, instance: Instance, error: errors.HybriddError) -> None:
        """End the job of a load that is under way."""
        self.do(LoadState(instance.ticket, instance.model, "cancelled", error))

    def cancel_waiters(self, model: str, *, only_loads: bool = False) -> None:
        """End everything that waits for a model, or only the wishes to have it loaded."""
        queue = self.queues.pop(model, [])
        for item in queue:
            if item.load or not only_loads:
                self.finish(item, errors.Cancelled(f"the load of {model} was cancelled"))
        if kept := [item for item in queue if only_loads and not item.load]:
            self.queues[model] = kept

    # ---------------------------------------------------------------- what is so

    def idle(self, instance: Instance, before: float = inf) -> bool:
        """Ready, nothing running, no request waiting that it may still serve.

        Args:
            before: The seq of a ticket that needs its room: what came later does not count.
        """
        if instance.state is not State.READY or instance.active:
            return False
        before = min(before, instance.yield_to or inf)
        return not any(item.seq < before for item in self.queues.get(instance.model, ()))

    def idle_models(self, before: float) -> set[str]:
        """The models whose instances are idle."""
        return {i.model for i in self.instances.values() if self.idle(i, before)}


def not_loaded(model: str) -> errors.HybriddError:
    """For a request that may not load its model."""
    return errors.NotLoaded(
        f"{model} is not loaded, and this request may not load it (smart switching is off, or it "
        f"says autoload=false); load it first (hybridctl load {model})",
        model=model,
    )


def load_cancelled() -> errors.HybriddError:
    """For the job of a load that was stopped."""
    return errors.Cancelled("the load was cancelled")


def shutting_down() -> errors.HybriddError:
    """For everything once the daemon ends."""
    return errors.ShuttingDown("hybridd is shutting down; ask again once it is back")


def unloaded(model: str) -> errors.HybriddError:
    """For what was running on an instance that was told to end."""
    return errors.Cancelled(f"{model} was unloaded")
