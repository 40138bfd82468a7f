"""One generation at work: its tokens, its slot, its sampler."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.base import ActiveSequence
from hybridd.backends.engine.output.generation import Generation
from hybridd.backends.engine.prefix import common_prefix

from ..drafting.draft_policy import Pace
from ..tokens.sampling import Sampler
from .slots import Slot

# So many tokens are worth waiting for, when they are being computed for another request.
_MIN_SHARED_TOKENS = 64


class GGUFSequence(ActiveSequence):
    """See the module's text.

    Attributes:
        tokens: The prompt and what was generated; those behind `slot.tokens` are to be computed.
        slot: Its sequence of the context.
        adapters: What it is computed with.
        started: The prompt was done once; tokens come.
        paused: Its cells were needed for requests that came before it.
        draft: Tokens that may come after `tokens`, to be computed along with the next one.
        drafted: How many of them a draft model proposed; others only make up the number.
        asked: How many it might have proposed.
        pace: How well drafts go; None without a draft model.
    """

    def __init__(
        self,
        generation: Generation,
        prompt: list[int],
        slot: Slot,
        sampler: Sampler,
        adapters: AdapterChoice = NO_ADAPTERS,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(generation, prompt)
        self.tokens = array("i", prompt)
        self.slot = slot
        self.sampler = sampler
        self.adapters = adapters
        self.started = False
        self.paused = False
        self.draft: Sequence[int] = ()
        self.drafted = self.asked = 0
        self.pace = pace

    @property
    def slot_index(self) -> int:
        """The sequence's number in the context."""
        return self.slot.index

    @property
    def todo(self) -> int:
        """Tokens that are not in the cells yet."""
        return len(self.tokens) - len(self.slot.tokens)

    @property
    def length(self) -> int:
        """Tokens that it has, done or not."""
        return len(self.tokens)

    @property
    def generating(self) -> bool:
        """Whether its next row is a token of its own; not so while lost cells come back."""
        return self.started and self.todo == 1

    def will_share(self, prompt: Sequence[int], adapters: AdapterChoice) -> bool:
        """Whether much of another prompt is what this one has yet to compute."""
        if self.started or self.paused or self.adapters != adapters:
            return False
        shared = common_prefix(self.tokens, array("i", prompt))
        return shared - len(self.slot.tokens) >= _MIN_SHARED_TOKENS
