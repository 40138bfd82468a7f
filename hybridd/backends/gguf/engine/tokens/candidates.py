"""The tokens that can be drawn at all: a few out of a vocabulary of many thousand.

llama.cpp's samplers begin by writing the whole vocabulary out, and penalties look each token of it
up: 1.2 ms for 152k tokens with cold caches, 0.45 here; without penalties it is about the same
either way. With a top-k the rest cannot matter: a bound that at least k logits reach is found from
block maxima in a few passes of NumPy, and only what reaches it goes in.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from hybridd.backends.engine.not_finite import NotFinite

from ..weights.llama import llama

_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# Elements of a block. Blocks are columns, so that their maxima are taken row by row.
_BLOCK = 64
_ROOM = 256

Logits = np.ndarray[Any, np.dtype[np.float32]]  # [vocabulary]
Ids = np.ndarray[Any, np.dtype[np.intp]]  # [candidates], ascending


def check_finite(logits: Logits) -> None:
    """Refuse logits that no token could be chosen by.

    Raises:
        NotFinite: The largest one is NaN or infinite.
    """
    if not math.isfinite(logits.max()):
        raise NotFinite


def every(logits: Logits) -> Ids:
    """All ids.

    Raises:
        NotFinite: As `check_finite`.
    """
    check_finite(logits)
    return np.arange(len(logits))


def likeliest(logits: Logits, count: int) -> Ids:
    """Ids of at least the `count` largest logits, in the order of ids; some more as it comes.

    Raises:
        NotFinite: As `check_finite`.
    """
    blocks = len(logits) // _BLOCK
    if blocks <= count:
        return every(logits)
    whole = blocks * _BLOCK
    # Columns of [_BLOCK, blocks] are the blocks; maxima is [blocks].
    # The ufunc itself: an array's `max` takes a way through Python.
    maxima = np.maximum.reduce(logits[:whole].reshape(_BLOCK, blocks), axis=0)
    maxima.partition(blocks - count)  # NaN comes last, as the largest does
    largest = np.maximum.reduce(maxima[blocks - count :])
    if whole < len(logits):
        largest = np.maximum(largest, np.maximum.reduce(logits[whole:]))
    if not math.isfinite(largest):
        raise NotFinite
    # As many blocks have an element that reaches it.
    ids: Ids = (logits >= maxima[blocks - count]).nonzero()[0]
    return ids


class Drawer:
    """Has a chain of samplers choose among some tokens.

    The arrays are kept from token to token: after a pass over the weights nothing of Python's is
    in the processor's caches, and what is not touched need not come back.
    """

    def __init__(self) -> None:
        self._make_room(_ROOM)

    def _make_room(self, size: int) -> None:
        self._entries = np.zeros(size, _ENTRY)
        self._ids, self._logits = self._entries["id"], self._entries["logit"]
        self._data: Any = ctypes.cast(self._entries.ctypes.data, llama.llama_token_data_p)
        self._array = llama.llama_token_data_array(self._data, 0, -1, False)
        self._pointer = ctypes.pointer(self._array)

    def draw(self, chain: Any, logits: Logits, ids: Ids) -> int:
        """The chain's choice, of which it takes note."""
        count = len(ids)
        if count > len(self._entries):
            self._make_room(2 * count)
        self._ids[:count] = ids
        self._logits[:count] = logits[ids]
        array = self._array
        # Samplers may leave another array behind.
        array.data, array.size, array.selected, array.sorted = self._data, count, -1, False
        llama.llama_sampler_apply(chain, self._pointer)
        token = int(array.data[array.selected].id)
        llama.llama_sampler_accept(chain, token)
        return token
