"""When a pass over a few tokens of a long text is faster with some more rows in it.

On processors llama.cpp's attention takes 64 rows of a sequence at a time, by matrix products; what
has fewer goes row by row, which costs each row almost three times as much. The next turn of a long
conversation is such a pass. Filled up to 64 rows it takes the better way, and what the rows that
nobody wants cost besides is less than that saves from some length of the text on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ROWS = 64  # GGML_FA_TILE_Q
# Row by row against tiles, and what an element of attention costs row by row against one of a
# weight: measured with two models of Qwen2's shapes (0.1 B and 0.5 B), 2,000 and 6,000 tokens.
_GAIN = 2.8
_WEIGHTS_EACH = 0.15


@dataclass(frozen=True)
class Tiles:
    """What filling a pass brings for one model.

    Attributes:
        even: At a text of so many tokens attention, row by row, costs a row as much as all else.
    """

    even: float

    @classmethod
    def of(cls, weights: int, layers: int, width: int) -> Tiles:
        """Those of a model.

        Args:
            weights: Elements of all layers' matrices together.
            layers: Their number.
            width: Elements of a layer's queries.
        """
        return cls(max(1.0, _WEIGHTS_EACH * weights / (2 * layers * width)))

    def filling(self, rows: int, lengths: Sequence[int]) -> int:
        """How many rows to add to each of these sequences, which have `rows` each.

        Args:
            lengths: Tokens that each one's rows look back on.
        """
        if not 0 < rows < ROWS:
            return 0
        plain = sum(rows * (1 + length / self.even) for length in lengths)
        tiled = sum(ROWS * (1 + length / self.even / _GAIN) for length in lengths)
        return ROWS - rows if tiled < plain else 0
