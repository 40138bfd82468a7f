"""How much of a prompt a step may take while others wait for their next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# What a prompt may add to the time between two tokens of the others.
_PATIENCE_S = 0.25
# Fewer tokens take nearly as long: the weights are read for them too. More at once are no faster.
_LEAST, _MEASURED = 128, 64
# Of a new measurement; the machine's other work comes and goes.
_WEIGHT = 0.3


class Pace:
    """Tokens of prompts a second, as they were seen, and what follows from it.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._per_s = 0.0

    @property
    def chunk(self) -> int:
        """Tokens that a step may take beside others."""
        return max(_LEAST, int(self._per_s * _PATIENCE_S))

    @contextmanager
    def measured(self, tokens: int) -> Iterator[None]:
        """A pass over so many tokens of prompts; one that an exception ends does not count."""
        began = self._clock()
        yield
        took = self._clock() - began
        if tokens >= _MEASURED and took > 0:
            rate = tokens / took
            self._per_s += (_WEIGHT if self._per_s else 1.0) * (rate - self._per_s)
