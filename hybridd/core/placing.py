"""How a load gets room: at once, by ending idle models, by waiting for busy ones, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from hybridd.core import eviction, plan
from hybridd.core.devices import Snapshot
from hybridd.core.instance import Instance
from hybridd.core.lifecycle import State


@dataclass(frozen=True)
class Decision:
    """What to do for one load.

    Attributes:
        plan: Fits now when `victims` is empty.
        victims: Idle models to end first; None when ending all of them is not enough.
        wait_for: Busy models that have to yield, when `victims` is None; empty when not even
            that would help.
        left: Bytes by device once those have left and the load has its place.
    """

    plan: plan.Plan
    victims: Sequence[str] | None
    wait_for: Sequence[str] = ()
    left: Mapping[str, int] = field(default_factory=dict)

    @property
    def hopeless(self) -> bool:
        """Whether nothing that may leave would make enough room."""
        return self.victims is None and not self.wait_for

    @property
    def leaving(self) -> Sequence[str]:
        """Models that have to go before it can start."""
        return self.victims or self.wait_for


def decide(
    need: plan.Need,
    wanted: Mapping[str, Any],
    snapshot: Snapshot,
    others: Collection[Instance],
    *,
    idle: Collection[str],
    max_loaded: int,
    now: float,
    yielding: Collection[str] = (),
) -> Decision:
    """Decide on a load beside the instances `others`.

    Args:
        idle: Models that nothing keeps from being ended.
        max_loaded: The most models at a time; 0 for no limit.
        yielding: Models that already make room for this load. Among busy ones they are chosen
            again: were it others each time, none would ever run empty.
    """
    available = snapshot.available(i.plan.placement for i in others)
    movable = [i for i in others if not i.pinned or i.leaving]
    all_free = add(available, (i.plan.placement for i in movable))
    planned = plan.fit(need, wanted, available, all_free)

    def enough(gone: Iterable[eviction.Victim]) -> bool:
        gone = list(gone)
        if max_loaded and len(others) - len(gone) >= max_loaded:
            return False
        room = add(available, (v.frees for v in gone))
        return plan.place(need, planned.load_options, room).fits

    def left(gone: Iterable[eviction.Victim]) -> dict[str, int]:
        room = add(available, (v.frees for v in gone))
        taken = plan.place(need, planned.load_options, room).placement
        return {device: size - taken.get(device, 0) for device, size in room.items()}

    victims = eviction.choose(
        (
            eviction.Victim(i.model, i.plan.placement, i.last_used)
            for i in movable
            if i.model in idle or i.state is State.STOPPING
        ),
        enough,
    )
    if victims is not None:
        planned = replace(planned, evict=[_shown(v, now) for v in victims])
        return Decision(planned, [v.model for v in victims], left=left(victims))
    waiting = eviction.choose(
        (
            eviction.Victim(i.model, i.plan.placement, -inf if i.model in yielding else i.last_used)
            for i in movable
        ),
        enough,
    )
    if waiting is None:
        if planned.fits:
            planned = replace(
                planned,
                placement={},
                reason=f"limits.max_loaded is {max_loaded} and the loaded models are pinned",
                hint="unpin one (load it with pin false), unload it, or raise the limit",
            )
        return Decision(planned, None)
    return Decision(planned, None, [v.model for v in waiting], left(waiting))


class Turns:
    """Which loads may start now, of several in order of arrival, on one reading of memory.

    The first that has to wait is promised its place. A later one may start before it, but only
    beside that place: small loads that come one after the other would else keep a large one out
    for ever. It also makes no model leave until its turn has come.
    """

    def __init__(self, max_loaded: int) -> None:
        self._max_loaded = max_loaded
        self._left: dict[str, int] | None = None
        self._count = 0

    @property
    def someone_waits(self) -> bool:
        """Whether a place is promised already."""
        return self._left is not None

    def promise(self, decision: Decision, count: int) -> None:
        """Keep the room that a load waits for; `count` models are there with it."""
        self._left, self._count = dict(decision.left), count

    def spare(self, device: str, free: int) -> int:
        """Of `free` bytes those that are promised to no load."""
        return free if self._left is None else min(free, self._left.get(device, 0))

    def take(self, device: str, size: int) -> None:
        """Bytes that a load takes beyond what it has to have."""
        if self._left is not None and size:
            self._left[device] -= size

    def may_start(self, decision: Decision) -> bool:
        """Whether a load fits now and beside what is promised; if so, it is taken to start."""
        if decision.victims != []:
            return False
        if self._left is None:
            return True
        taken = decision.plan.placement
        if any(size > self._left.get(device, 0) for device, size in taken.items()):
            return False
        if self._max_loaded and self._count >= self._max_loaded:
            return False
        for device, size in taken.items():
            self._left[device] -= size
        self._count += 1
        return True


def _shown(victim: eviction.Victim, now: float) -> dict[str, Any]:
    return {
        "id": victim.model,
        "frees_bytes": sum(victim.frees.values()),
        "idle_s": round(max(0.0, now - victim.last_used), 3),
    }


def add(available: Mapping[str, int], shares: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Bytes by device once these shares are given back."""
    total = dict(available)
    for share in shares:
        for device, size in share.items():
            total[device] = total.get(device, 0) + size
    return total


def why_not(planned: plan.Plan) -> str:
    """The sentence of `does_not_fit`."""
    if planned.hint is not None:
        hint = planned.hint
    elif planned.max_context_length:
        hint = f"a context length of {planned.max_context_length} would fit"
    else:
        hint = "no context length would fit; try a smaller quantization or raise limits.ram_max"
    return (
        f"{planned.model} does not fit: {planned.reason or 'the loaded models are pinned'}; {hint}"
    )
