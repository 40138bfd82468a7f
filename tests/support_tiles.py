"""For tests of filled passes: filling as if it always paid."""

from __future__ import annotations

from collections.abc import Sequence

from hybridd.backends.gguf.tiles import ROWS, Tiles


class Always(Tiles):
    """Fills whatever can be filled."""

    def filling(self, counts: Sequence[int], lengths: Sequence[int], *, shared: bool) -> int:
        rows = sum(counts) if shared else counts[0]
        return max(0, ROWS - rows)
