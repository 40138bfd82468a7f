"""The rows of one `llama_decode`: token, position, sequence, whether its logits are wanted.

The arrays are NumPy's and llama.cpp reads them in place: filling a field of a ctypes structure one
by one costs more than a small model needs for the token.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from ..weights.llama import llama


class Batch:
    """Room for `size` rows.

    Attributes:
        native: llama.cpp's structure, for `llama_decode`.
    """

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)  # sequences of a row: always one
        self._sequences = np.zeros(size, np.int32)
        self._logits = np.zeros(size, np.int8)
        # Row i's list of sequences is the i-th cell of `_sequences`.
        step = self._sequences.itemsize
        base = self._sequences.ctypes.data
        self._lists = np.arange(base, base + size * step, step, dtype=np.uintp)
        self.native = llama.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, llama.llama_token),
            embd=None,
            pos=_pointer(self._positions, llama.llama_pos),
            n_seq_id=_pointer(self._counts, ctypes.c_int32),
            seq_id=_pointer(self._lists, ctypes.POINTER(llama.llama_seq_id)),
            logits=_pointer(self._logits, ctypes.c_int8),
        )

    def clear(self) -> None:
        """Take all rows out."""
        self.native.n_tokens = 0

    def add(
        self,
        sequence: int,
        tokens: Sequence[int],
        position: int,
        logits: bool,
        *,
        every: bool = False,
    ) -> int:
        """Append rows of one sequence.

        Args:
            tokens: At least one; together with what is there, no more than `size`.
            position: Of the first one in its sequence.
            logits: Whether those of the last token are wanted.
            every: Those of all other tokens as well.

        Returns:
            The index of the last row, by which its logits are asked for.
        """
        start = self.native.n_tokens
        end = start + len(tokens)
        if len(tokens) == 1:
            self._tokens[start] = tokens[0]
            self._positions[start] = position
        else:
            self._tokens[start:end] = tokens
            self._positions[start:end] = np.arange(position, position + len(tokens))
            self._logits[start:end] = every
        self._sequences[start:end] = sequence
        self._logits[end - 1] = logits
        self.native.n_tokens = end
        return end - 1


def _pointer(array: np.ndarray, kind: type) -> ctypes._Pointer:  # type: ignore[type-arg]
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
