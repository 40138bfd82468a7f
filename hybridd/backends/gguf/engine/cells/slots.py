"""Which sequence of the context a request gets, and how much of its prompt is there already.

Pure bookkeeping: a slot is a sequence of the context with the tokens whose cells it holds. A slot
whose request is over keeps its cells as a *retained prefix* until somebody needs the slot or the
cells; the longest common prefix with any slot, free or at work, is worth reusing.

What a slot holds is cut back, copied or thrown away here in thought only: `Choice` says what is to
be done, and `cache_manager` has the context do it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

# What a sequence is computed with beside the model: content and scale of each adapter that counts.
Key = tuple[tuple[str, float], ...]
NONE: Key = ()
# Copying a sequence takes as long as computing some tokens of it; below this it is no gain.
MIN_COPIED_TOKENS = 32
# A slot is taken over together with its prefix if that keeps most of what it holds. Otherwise the
# prefix is copied, and the conversation that it belongs to stays.
_KEPT_SHARE = 0.5


@dataclass
class Slot:
    """One sequence of the context.

    Attributes:
        tokens: Those in its cells, in order; while a request runs, all that were computed.
        busy: A request has it.
        used: When it was last busy, by a counter.
        shared: How many cells at the beginning another sequence may have too.
        adapters: What its cells were computed with: see `Key`.
        exact: How many tokens at the beginning have cells as any prompt with them would make; None
            is all. What a context shift moved was computed from tokens that are gone.
    """

    index: int
    tokens: array[int] = field(default_factory=lambda: array("i"))
    busy: bool = False
    used: int = 0
    shared: int = 0
    exact: int | None = None
    adapters: Key = NONE


@dataclass(frozen=True)
class Choice:
    """What a request gets.

    Attributes:
        slot: It runs there.
        reused: How many tokens of its prompt need not be computed.
        source: Another slot, from which they are copied first.
        kept: What the slot held is worth a place in the host's cache.
    """

    slot: Slot
    reused: int = 0
    source: Slot | None = None
    kept: bool = False


# Whether the first `length` tokens of a slot can be had without the others: see `Context.can_cut`.
CanCut = Callable[[Slot, int], bool]


class Slots:
    """All slots of one context."""

    def __init__(self, count: int) -> None:
        self.all = [Slot(i) for i in range(count)]
        self._clock = 0

    def choose(
        self,
        prompt: Sequence[int],
        can_cut: CanCut,
        adapters: Key = NONE,
        *,
        can_copy: CanCut | None = None,
    ) -> Choice | None:
        """The best slot for a prompt; None when all are busy. Changes nothing.

        One token of the prompt at least is left to compute: its logits are wanted.

        Args:
            can_copy: Whether they can be had as a copy, and are worth it; as `can_cut` if None.
        """
        free = [slot for slot in self.all if not slot.busy]
        if not free:
            return None
        wanted = array("i", prompt)
        prefixes = {
            s.index: self._prefix(s, wanted, can_cut) if s.adapters == adapters else 0
            for s in self.all
        }
        best = max(free, key=lambda s: prefixes[s.index])
        length = prefixes[best.index]
        if length and (len(free) == 1 or length >= _KEPT_SHARE * len(best.tokens)):
            taken = Choice(best, length, kept=length < _KEPT_SHARE * len(best.tokens))
        else:
            victim = self._victim(free)
            taken = Choice(victim, prefixes[victim.index], kept=bool(victim.tokens))
        copied = {
            s.index: length if length and (can_copy is None or can_copy(s, length)) else 0
            for s in self.all
            for length in [prefixes[s.index]]
        }
        source = max(self.all, key=lambda s: copied[s.index])
        longest = copied[source.index]
        if source is not taken.slot and longest >= taken.reused + MIN_COPIED_TOKENS:
            victim = self._victim([s for s in free if s is not source])
            return Choice(victim, longest, source, kept=bool(victim.tokens))
        return taken

    def take(self, slot: Slot, tokens: Iterable[int], adapters: Key = NONE) -> None:
        """A request has the slot now, with these tokens in its cells."""
        slot.adapters = adapters
        slot.tokens = array("i", tokens)
        slot.shared = min(slot.shared, len(slot.tokens))
        slot.busy = True
        self._touch(slot)

    def release(self, slot: Slot) -> None:
        """Its request is over; what it holds is retained."""
        slot.busy = False
        self._touch(slot)

    def least_recent(self) -> Slot | None:
        """The free slot with cells that nobody used for the longest time."""
        held = [slot for slot in self.all if slot.tokens and not slot.busy]
        return min(held, key=lambda s: s.used, default=None)

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def _prefix(self, slot: Slot, wanted: array[int], can_cut: CanCut) -> int:
        length = min(common_prefix(slot.tokens, wanted), len(wanted) - 1)
        if slot.exact is not None:
            length = min(length, slot.exact)
        return length if length > 0 and can_cut(slot, length) else 0

    def _victim(self, free: Sequence[Slot]) -> Slot:
        """An empty slot, near to the busy ones; else the least recently used.

        Sequences with neighbouring numbers are computed in one pass (see `step_plan`).
        """
        busy = [slot.index for slot in self.all if slot.busy]

        def rank(slot: Slot) -> tuple[bool, int, int]:
            distance = min((abs(slot.index - i) for i in busy), default=slot.index)
            return bool(slot.tokens), 0 if slot.tokens else distance, slot.used

        return min(free, key=rank)


def common_prefix(one: array[int], other: array[int]) -> int:
    """How many tokens at the beginning are equal.

    By halves, since comparing slices is done in C: a long conversation has many thousand tokens.
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
