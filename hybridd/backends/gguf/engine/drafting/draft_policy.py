"""How many tokens a draft model is to propose for each request: a pure policy.

A draft of k tokens makes k rows more in the model's next pass, and saves a pass for each that turns
out right. So a token is worth drafting if the chance that it is right, and all before it are, buys
more than the pass pays for its row. Both sides are counted in passes over the weights for one row.

Everything follows from counts: the same requests in the same order get the same drafts, whatever
time anything took, so that what came of them can be had again.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

# What a row more costs of what a pass for one row does. Q4_K_M on two cores, 2 to 9 rows: 0.36 to
# 0.55 of 0.5 B, 0.13 to 0.16 of 0.1 B.
ROW_COST = 0.3
# On a GPU a pass for some tens of rows waits for the same weights as a pass for one.
GPU_ROW_COST = 0.02
# What a draft model's own pass costs. Such models have about a tenth of the weights; who names a
# larger one has reasons of his own.
_DRAFT_COST = 0.1
# What drafts save of a pass for each token, where nearly all are right.
_SAVED = 0.5
# The draft ends at a token that the draft model itself gives less than this: below what a row costs
# a single request, it would not pay even if the model knew its chances perfectly.
CONFIDENCE = 0.4
# A rate that is taken for right before anything is known; what one token more or less changes it.
_FIRST_RATE, _WEIGHT = 0.8, 1 / 8
# At this rate no draft pays, whatever other requests there are. After a rest it is tried again as
# if it were `_TRIED_RATE`, which allows of single tokens; what goes well for a while ends the long
# rests.
_HOPELESS_RATE, _TRIED_RATE, _GOOD_RATE = 0.4, 0.5, 0.7
# Tokens without drafts: at first, and at most, after each trial in vain twice as many.
_FIRST_REST, _LONGEST_REST = 16, 256


class Pace:
    """How well drafts go for one request.

    Attributes:
        rate: The chance that one token more is drafted and is right, if those before it are.
    """

    def __init__(self) -> None:
        self.rate = _FIRST_RATE
        self._rest = 0
        self._next_rest = _FIRST_REST
        self._over = False

    @property
    def resting(self) -> bool:
        """Whether nothing is to be drafted now."""
        return self._over or self._rest > 0

    def wait(self) -> None:
        """A token came without a draft."""
        self._rest = max(0, self._rest - 1)

    def learn(self, asked: int, accepted: int) -> None:
        """What became of a draft of up to `asked` tokens.

        A token that the draft model was not sure enough of counts as wrong: it was computed in
        vain. The first wrong one says nothing of those after it.
        """
        for right in [*[1.0] * accepted, *[0.0] * (accepted < asked)]:
            self.rate += (right - self.rate) * _WEIGHT
        if self.rate < _HOPELESS_RATE:
            self.rest()
        elif self.rate >= _GOOD_RATE:
            self._next_rest = _FIRST_REST

    def rest(self) -> None:
        """Draft nothing for a while, and longer the next time."""
        self._rest, self._next_rest = self._next_rest, min(2 * self._next_rest, _LONGEST_REST)
        self.rate = _TRIED_RATE

    def give_up(self) -> None:
        """Draft nothing for this request any more."""
        self._over = True


@dataclass(frozen=True, slots=True)
class Wish:
    """What can be drafted for a sequence that generates.

    Attributes:
        rate: See `Pace`.
        most: Tokens; 0 for none now.
        room: Rows beside its next one that its cells have room for, wanted or not.
    """

    rate: float
    most: int
    room: int


def share(wishes: Sequence[Wish], row_cost: float, rows: int) -> list[int]:
    """Tokens to draft for each, where each row counts by itself.

    Args:
        wishes: Of all sequences that generate in the step.
        row_cost: `ROW_COST` or `GPU_ROW_COST`.
        rows: The most of all together.
    """
    count = len(wishes)
    lengths = [0] * count
    tokens, cost = float(count), 1 + row_cost * (count - 1)
    price = row_cost + _DRAFT_COST / max(1, count)
    # Always the likeliest next token of all, as long as tokens a pass become more.
    chances = [(-wish.rate, number) for number, wish in enumerate(wishes) if wish.most]
    heapq.heapify(chances)
    while chances and sum(lengths) < rows:
        chance, number = heapq.heappop(chances)
        if -chance * cost <= price * tokens:
            break
        tokens, cost = tokens - chance, cost + price
        lengths[number] += 1
        if lengths[number] < wishes[number].most:
            heapq.heappush(chances, (chance * wishes[number].rate, number))
    return lengths


def level(wishes: Sequence[Wish], row_cost: float, rows: int) -> int:
    """The one length of all drafts, where every sequence has to have the same number of rows.

    llama.cpp cuts a batch of streams into parts of equal rows, and reads all weights for each. So
    who drafts less, or nothing, gets rows that are only filling.
    """
    count = len(wishes)
    if not count:
        return 0
    longest = max(wish.most for wish in wishes)
    longest = min(longest, rows // count, min(wish.room for wish in wishes))
    best, most = 0, count / (1 + row_cost * (count - 1))
    for length in range(1, longest + 1):
        tokens = sum(_expected(wish.rate, min(length, wish.most)) for wish in wishes)
        cost = 1 + row_cost * (count * (length + 1) - 1) + _DRAFT_COST * length
        if tokens / cost > most:
            best, most = length, tokens / cost
    return best


def worth_reading(missing: int, wanted: int, row_cost: float) -> bool:
    """Whether drafts can save what it costs to have the draft model read a text.

    Measured, 0.1 B beside 0.5 B on one core: 400 tokens took as long as 9 passes.

    Args:
        missing: Tokens that it has not read.
        wanted: The most that are still to be generated.
        row_cost: `ROW_COST` or `GPU_ROW_COST`.
    """
    return missing * row_cost * _DRAFT_COST <= wanted * _SAVED


def _expected(rate: float, length: int) -> float:
    """Tokens that come of a row and a draft of that length."""
    return sum(rate**power for power in range(length + 1))
