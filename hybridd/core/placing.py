"""How a load gets room: at once, by ending idle models, by waiting for busy ones, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """

    plan: plan.Plan
    victims: Sequence[str] | None
    wait_for: Sequence[str] = ()


def decide(
    need: plan.Need,
    wanted: Mapping[str, Any],
    snapshot: Snapshot,
    others: Collection[Instance],
    *,
    idle: Collection[str],
    max_loaded: int,
    now: float,
) -> Decision:
    """Decide on a load beside the instances `others`.

    Args:
        idle: Models that nothing keeps from being ended.
        max_loaded: The most models at a time; 0 for no limit.
    """
    available = snapshot.available(i.plan.placement for i in others)
    movable = [i for i in others if not i.pinned]
    all_free = add(available, (i.plan.placement for i in movable))
    made = plan.fit(need, wanted, available, all_free)

    def enough(gone: int, room: Mapping[str, int]) -> bool:
        if max_loaded and len(others) - gone >= max_loaded:
            return False
        return plan.place(need, made.load_options, room).fits

    def enough_victims(gone: Iterable[eviction.Victim]) -> bool:
        gone = list(gone)
        return enough(len(gone), add(available, (v.frees for v in gone)))

    victims = eviction.choose(
        (
            eviction.Victim(i.model, i.plan.placement, i.last_used)
            for i in movable
            if i.model in idle or i.state is State.STOPPING
        ),
        enough_victims,
    )
    if victims is not None:
        made = replace(made, evict=[_shown(v, now) for v in victims])
        return Decision(made, [v.model for v in victims])
    if not enough(len(movable), all_free):
        return Decision(made, None)
    wait_for: list[str] = []
    room = available
    for instance in sorted(movable, key=lambda i: (i.last_used, i.model)):
        if enough(len(wait_for), room):
            break
        wait_for.append(instance.model)
        room = add(room, [instance.plan.placement])
    return Decision(made, None, wait_for)


def _shown(victim: eviction.Victim, now: float) -> dict[str, Any]:
    return {
        "id": victim.model,
        "frees_bytes": sum(victim.frees.values()),
        "idle_s": round(max(0.0, now - victim.last_used), 3),
    }


def add(available: Mapping[str, int], shares: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Bytes by device once these shares are given back."""
    made = dict(available)
    for share in shares:
        for device, size in share.items():
            made[device] = made.get(device, 0) + size
    return made


def why_not(made: plan.Plan) -> str:
    """The sentence of `does_not_fit`."""
    hint = (
        f"a context length of {made.max_context_length} would fit"
        if made.max_context_length
        else "no context length would fit; try a smaller quantization or raise limits.ram_max"
    )
    return f"{made.model} does not fit: {made.reason or 'the loaded models are pinned'}; {hint}"
