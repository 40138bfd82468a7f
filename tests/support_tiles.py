"""For tests of filled passes: filling as if it always paid."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.backends.gguf.engine.weights.attention_tiles import ROWS, Tiles


class Always(Tiles):
    """Fills whatever can be filled."""

    def filling(self, counts: Sequence[int], lengths: Sequence[int], *, shared: bool) -> int:
        rows = sum(counts) if shared else counts[0]
        return max(0, ROWS - rows)

    def apart(
        self,
        counts: Sequence[int],
        lengths: Sequence[int],
        other_counts: Sequence[int],
        other_lengths: Sequence[int],
    ) -> bool:
        return False


class NowAndThenApart(Always):
    """And makes two passes of one, not always."""

    def apart(
        self,
        counts: Sequence[int],
        lengths: Sequence[int],
        other_counts: Sequence[int],
        other_lengths: Sequence[int],
    ) -> bool:
        return sum(other_counts) % 2 == 1
