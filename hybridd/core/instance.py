"""What the scheduler keeps of a load that waits (`Ticket`) and of a worker's life (`Instance`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridd.core.lifecycle import State
from hybridd.core.plan import Plan
from hybridd.core.scheduling import Item
from hybridd.wire.errors import HybriddError


@dataclass
class Ticket:
    """A load: waiting for room until it has an instance. Its number is its job's."""

    number: int
    model: str
    seq: int
    options: Mapping[str, Any]


@dataclass
class Instance:
    """One worker's life.

    Attributes:
        wanted: The options it was asked for, which it satisfies.
        keepalive_by: The seq of the item that named its keepalive; 0 when none did.
        yield_to: The seq of a ticket that needs its memory: later requests are not handed out.
        unloads: Keys of the calls that wait for its end.
        refusal: Why its load failed, once it said so.
        stale: Its files, or its draft model's, were replaced or went away since.
        threads_told: The last number of threads that it was told; None leaves it to its engine.
    """

    number: int
    model: str
    ticket: int
    plan: Plan
    wanted: Mapping[str, Any]
    keepalive: float
    keepalive_by: int = 0
    state: State = State.STARTING
    pinned: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    active: dict[int, Item] = field(default_factory=dict)
    completed: int = 0
    last_used: float = 0.0
    yield_to: int | None = None
    unloads: list[int] = field(default_factory=list)
    refusal: HybriddError | None = None
    stale: bool = False
    threads_told: int | None = None

    @property
    def parallel(self) -> int:
        """Requests it takes at a time."""
        return int(self.facts.get("parallel", 1))

    @property
    def in_force(self) -> Mapping[str, Any]:
        """Options to compare a wish with: the plan's, what the engine says, what was asked for."""
        asked = {k: v for k, v in self.wanted.items() if v != "auto"}
        return {**self.plan.load_options, **self.facts.get("load_options", {}), **asked}

    @property
    def threads_given(self) -> bool:
        """Whether its threads were asked for by number, and are therefore not shared out."""
        return isinstance(self.wanted.get("threads"), int)

    @property
    def threads_claimed(self) -> int:
        """The most threads that its engine computes with, as it says; 0 where it does not say."""
        said = self.facts.get("load_options", {}).get("threads")
        return said if type(said) is int and said > 0 else 0

    @property
    def leaving(self) -> bool:
        """On its way out, wanted or not."""
        return self.state in (State.DRAINING, State.STOPPING)

    @property
    def coming_up(self) -> bool:
        """Not ready yet."""
        return self.state in (State.STARTING, State.LOADING)
