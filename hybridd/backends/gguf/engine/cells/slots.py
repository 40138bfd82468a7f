"""Which sequence of the context a request gets, and how much of its prompt is there already.

Pure bookkeeping: what a slot holds is cut back, copied or thrown away here in thought only.
`Choice` says what is to be done, and `cache_manager` has the context do it.

A *slot* is a sequence of llama.cpp's context by its number, together with the tokens whose cells
it holds. There are as many as requests that may run, from the load to the end; a slot is in one of
three states:

    state     busy  tokens  entered by                       left by
    empty     no    none    the load; `forget`, `spoil`      `take` -> busy
    retained  no    some    `release` -> a kept prefix       `take` -> busy, taken over or cut to 0
                                                             `forget` -> empty: its cells are needed
    busy      yes   any     `take`                           `release` -> retained, or empty

A request whose cells are needed by requests that came before it is paused: its slot stays busy, and
`forget` leaves it with no tokens, to be computed again. What holds of a slot's tokens besides:

    shared n  the first n cells may be another sequence's too. Only unified cells are shared. They
              are never moved, as a context shift would; cutting back leaves them to the other.
    exact n   only the first n cells are what a prompt of these tokens would make: a context shift
              moved the others, which were computed behind tokens that are gone. The request goes
              on from all of them, a later prompt from the exact ones alone; `release` comes after
              the others were cut off. None: all are.
    adapters  what they were computed with; of no use to a request with others.
    spoiled   NaN may be in them (`backends.engine.not_finite`). The slot is emptied, and no slot is
              taken until all cells were set to zero, which waits until no slot is busy.

What a request goes on from follows the rule in `backends.engine.prefix`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.prefix import keeps_most, shared_tokens, worth_copying

# Copying a sequence takes as long as computing some tokens of it; below this it is no gain.
MIN_COPIED_TOKENS = 32


@dataclass
class Slot:
    """One sequence of the context; see the module for its states.

    Attributes:
        tokens: Those in its cells, in order: cell i is at position i.
        busy: A request has it.
        used: When it was last busy, by a counter.
        shared: How many cells at the beginning another sequence may have too.
        adapters: What its cells were computed with.
        exact: How many tokens at the beginning a later prompt may go on from; None is all.
    """

    index: int
    tokens: array[int] = field(default_factory=lambda: array("i"))
    busy: bool = False
    used: int = 0
    shared: int = 0
    exact: int | None = None
    adapters: AdapterChoice = NO_ADAPTERS


@dataclass(frozen=True)
class Choice:
    """What a request gets.

    Attributes:
        slot: It runs there.
        reused: How many tokens of its prompt need not be computed.
        source: Another slot, from which they are copied first.
        kept: What the slot held is lost, and worth a state in the host's cache.
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
        adapters: AdapterChoice = NO_ADAPTERS,
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
        if keeps_most(prefixes[best.index], len(best.tokens)):
            taken = Choice(best, prefixes[best.index])
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
        worth = worth_copying(longest, taken.reused, MIN_COPIED_TOKENS)
        if source is not taken.slot and worth:
            victim = self._victim([s for s in free if s is not source])
            return Choice(victim, longest, source, kept=bool(victim.tokens))
        return taken

    def take(
        self, slot: Slot, tokens: Iterable[int], adapters: AdapterChoice = NO_ADAPTERS
    ) -> None:
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
        """The retained slot that was not used for the longest time."""
        held = [slot for slot in self.all if slot.tokens and not slot.busy]
        return min(held, key=lambda s: s.used, default=None)

    def _touch(self, slot: Slot) -> None:
        self._clock += 1
        slot.used = self._clock

    def _prefix(self, slot: Slot, wanted: array[int], can_cut: CanCut) -> int:
        length = shared_tokens(slot.tokens, wanted)
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
