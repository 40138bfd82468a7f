"""Which idle models make room: a pure choice among those that may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Victim:
    """A loaded model that may be evicted.

    Attributes:
        frees: Reserved bytes by device that come back.
        last_used: Seconds on the scheduler's clock.
    """

    model: str
    frees: Mapping[str, int]
    last_used: float


def choose(
    candidates: Iterable[Victim],
    enough: Callable[[Iterable[Victim]], bool],
) -> list[Victim] | None:
    """The least recently used models whose going is enough, and none that need not go.

    Args:
        candidates: Models that may go (idle, unpinned), in any order.
        enough: Whether the load fits once these are gone.

    Returns:
        The victims, least recently used first; None when even all of them are not enough.
    """
    chosen: list[Victim] = []
    for victim in sorted(candidates, key=lambda v: (v.last_used, v.model)):
        if enough(chosen):
            break
        chosen.append(victim)
    if not enough(chosen):
        return None
    # A small one may have been taken before a large one that alone suffices: spare what can stay,
    # the most recently used first.
    for victim in sorted(chosen, key=lambda v: v.last_used, reverse=True):
        rest = [v for v in chosen if v is not victim]
        if enough(rest):
            chosen = rest
    return chosen
