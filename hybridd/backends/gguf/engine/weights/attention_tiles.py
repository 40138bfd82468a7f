"""When a pass over a few tokens of a long text is faster with some more rows in it.

On processors llama.cpp's attention takes 64 rows of a sequence at a time, by matrix products; what
has fewer goes row by row. The next turn of a long conversation is such a pass. Filled up to 64 rows
it takes the better way, and what the filling rows cost besides is less than that saves
from some length of the text on.

How much better that way is depends on the threads. They share all heads' rows out in equal parts,
four for each thread, and where such a part begins or ends, so does a tile; but each tile takes as
long as a whole one. With few heads for many threads nothing is gained.

Sources: `ggml_compute_forward_flash_attn_ext_f16` and `..._tiled` in ggml-cpu/ops.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

ROWS = 64  # GGML_FA_TILE_Q
_PARTS = 4  # of each thread
# Row by row against whole tiles (median of 12 measurements, most of them 2.2 to 3.2), and what an
# element of attention costs row by row against one of a weight: two models of Qwen2's shapes (0.1 B
# and 0.5 B), one thread and two, 1,000 to 6,000 tokens.
_GAIN = 2.8
_WEIGHTS_EACH = 0.15
# Reading the weights once more costs as much as so many rows, for each thread (see `step_plan`).
_PASS = 5


@dataclass(frozen=True)
class Tiles:
    """What filling a pass brings for one model.

    Attributes:
        even: At a text of so many tokens attention, row by row, costs a row as much as all else.
        heads: Of a layer's queries.
        threads: That compute.
    """

    even: float
    heads: int = 1
    threads: int = 1

    @classmethod
    def of(cls, weights: int, layers: int, heads: int, width: int) -> Tiles:
        """Those of a model, for one thread.

        Args:
            weights: Elements of all layers' matrices together.
            layers: Their number.
            heads: Of a layer's queries.
            width: Elements of a layer's queries.
        """
        return cls(max(1.0, _WEIGHTS_EACH * weights / (2 * layers * width)), heads)

    def filling(self, counts: Sequence[int], lengths: Sequence[int], *, shared: bool) -> int:
        """How many rows to add to each stream, or behind all rows where cells are shared.

        Row by row, attention skips the cells of other sequences; a tile takes all those that any
        of its rows looks back on.

        Args:
            counts: Rows of each sequence; of streams all have as many.
            lengths: Tokens that each one's rows look back on.
            shared: Whether all of them are in the same tile.
        """
        rows, streams = (sum(counts), 1) if shared else (counts[0], len(counts))
        if not 0 < rows < ROWS:
            return 0
        better = self._by_tiles(ROWS, lengths, streams) < self._row_by_row(counts, lengths)
        return ROWS - rows if better else 0

    def apart(
        self,
        counts: Sequence[int],
        lengths: Sequence[int],
        other_counts: Sequence[int],
        other_lengths: Sequence[int],
    ) -> bool:
        """Whether two lots of rows that share their cells are faster in two passes than in one.

        Args:
            counts, lengths: As of `filling`, of one lot.
            other_counts, other_lengths: Of the other.
        """
        one, other = self._best(counts, lengths), self._best(other_counts, other_lengths)
        both = self._best([*counts, *other_counts], [*lengths, *other_lengths])
        return one + other + _PASS * self.threads < both

    def _best(self, counts: Sequence[int], lengths: Sequence[int]) -> float:
        rows = sum(counts)
        tiled = self._by_tiles(max(rows, ROWS), lengths, 1)
        return tiled if rows >= ROWS else min(tiled, self._row_by_row(counts, lengths))

    def _row_by_row(self, counts: Sequence[int], lengths: Sequence[int]) -> float:
        """What a pass costs, as are the others in rows behind nothing."""
        each = zip(counts, lengths, strict=True)
        return sum(count * (1 + length / self.even) for count, length in each)

    def _by_tiles(self, rows: int, lengths: Sequence[int], streams: int) -> float:
        """Of one tile that looks back on all; where there are more, the others on the longest."""
        gain = _GAIN * self.heads * streams / self.tiles(streams)
        back = ROWS * (sum(lengths) + (rows - 1) // ROWS * max(lengths))
        return rows * streams + back / self.even / gain

    def tiles(self, streams: int) -> int:
        """How many the threads make of 64 rows of each stream, of all heads together."""
        rows = self.heads * streams * ROWS
        part = -(-rows // (self.threads * _PARTS))
        parts = -(-rows // part)
        if self.threads == 1 or parts < self.threads:
            parts = self.threads
        part = -(-rows // parts)
        starts = -(-rows // part) + rows // ROWS
        return starts - -(-rows // lcm(part, ROWS))  # where both begin, one tile does
