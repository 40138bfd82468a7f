"""Sequence states in the host's memory: conversations that lost their slot to others.

Within a budget of bytes, the least recently used leave first. A state is worth its memory when its
tokens begin a later prompt; states of models that cannot be cut back have to be its beginning as a
whole, and so have those that a sliding window has moved in: what it left behind is not in them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.prefix import common_prefix, shared_tokens

from .slots import MIN_COPIED_TOKENS


@dataclass
class SavedState:
    """What `Context.save` gave, with the tokens that it stands for.

    Attributes:
        adapters: What it was computed with.
    """

    tokens: array[int]
    data: bytearray
    adapters: AdapterChoice = NO_ADAPTERS

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + len(self.tokens) * self.tokens.itemsize


class _Kept(Protocol):
    """What has to be known of a state to see its worth."""

    @property
    def tokens(self) -> array[int]: ...

    @property
    def adapters(self) -> AdapterChoice: ...


K = TypeVar("K", bound=_Kept)


def can_cut(held: int, length: int, *, whole: bool, window: int) -> bool:
    """Whether a saved state of `held` tokens can serve as one of its first `length`.

    Of what a window moved in, the last token alone can go: the one before it sees as far.

    Args:
        whole: States can only be used as a whole.
        window: Tokens that a sliding window looks back on; 0 without one.
    """
    return length == held or not (whole or (window and held > window and length < held - 1))


def most_useful(
    states: Iterable[K],
    prompt: Sequence[int],
    least: int,
    adapters: AdapterChoice,
    *,
    whole: bool,
    window: int = 0,
) -> tuple[K, int] | None:
    """The state that spares most of a prompt, and how many tokens that is.

    Args:
        least: It has to be more than so many.
        whole, window: As `can_cut` has them.
    """
    wanted = array("i", prompt)
    best: tuple[K, int] | None = None
    for state in states:
        if state.adapters != adapters:
            continue
        length = shared_tokens(state.tokens, wanted)
        if not can_cut(len(state.tokens), length, whole=whole, window=window):
            continue
        if length > (best[1] if best else least):
            best = state, length
    return best


class StateCache:
    """See the module's text.

    Args:
        budget: Bytes; 0 keeps nothing.
        whole, window: As `can_cut` has them.
    """

    def __init__(self, budget: int, *, whole: bool, window: int = 0) -> None:
        self.budget = budget
        self._whole = whole
        self._window = window
        self._states: list[SavedState] = []  # the least recently used first

    def __len__(self) -> int:
        return len(self._states)

    @property
    def size(self) -> int:
        """Bytes taken."""
        return sum(state.size for state in self._states)

    @property
    def states(self) -> Sequence[SavedState]:
        """All of them, the least recently used first."""
        return self._states

    def wants(self, tokens: array[int], adapters: AdapterChoice = NO_ADAPTERS) -> bool:
        """Whether a state of these tokens would add anything."""
        if not self.budget or len(tokens) < MIN_COPIED_TOKENS:
            return False
        return not any(
            s.adapters == adapters and self._serves(s.tokens, tokens) for s in self._states
        )

    def _serves(self, tokens: array[int], beginning: array[int]) -> bool:
        """Whether a state of `tokens` makes one of `beginning` needless."""
        return common_prefix(tokens, beginning) == len(beginning) and can_cut(
            len(tokens), len(beginning), whole=self._whole, window=self._window
        )

    def add(self, state: SavedState) -> None:
        """Keep a state, if it fits into the budget; what it goes beyond of is not needed any more.

        A shorter one that it cannot be cut back to stays: a later prompt may begin with it.
        """
        if state.size > self.budget:
            return
        self._states = [
            s
            for s in self._states
            if s.adapters != state.adapters or not self._serves(state.tokens, s.tokens)
        ]
        self._states.append(state)
        while self.size > self.budget:
            del self._states[0]

    def find(
        self, prompt: Sequence[int], least: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> tuple[SavedState, int] | None:
        """`most_useful` of the states, which is the most recently used then."""
        best = most_useful(
            self._states, prompt, least, adapters, whole=self._whole, window=self._window
        )
        if best is not None:
            self._states = [s for s in self._states if s is not best[0]]
            self._states.append(best[0])
        return best

    def drop(self, state: SavedState) -> None:
        """Forget one that turned out to be of no use."""
        self._states = [s for s in self._states if s is not state]
