"""The tokens that can be drawn at all: a few out of a vocabulary of many thousand.

llama.cpp's samplers begin by writing the whole vocabulary out and sorting its head, half a
millisecond for 152k tokens. With a top-k the rest cannot matter: a bound that at least k logits
reach is found from block maxima in a few passes of NumPy, and only what reaches it goes in.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np  # noqa: TID253 - worker side, where it may be imported

from .library import llama

_ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# Elements of a block. Blocks are columns, so that their maxima are taken row by row.
_BLOCK = 64

Logits = np.ndarray[Any, np.dtype[np.float32]]
Ids = np.ndarray[Any, np.dtype[np.intp]]


def likeliest(logits: Logits, count: int) -> Ids:
    """Ids of at least the `count` largest logits, in the order of ids; some more as it comes."""
    blocks = len(logits) // _BLOCK
    if blocks <= count:
        return np.arange(len(logits))
    maxima = logits[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
    # As many blocks have an element that reaches it.
    bound = np.partition(maxima, blocks - count)[blocks - count]
    found = np.flatnonzero(logits >= bound)
    return found if len(found) >= count else np.arange(len(logits))  # not so with NaN among them


def draw(chain: Any, logits: Logits, ids: Ids) -> int:
    """Have a chain of samplers choose among some tokens, and take note of the choice."""
    entries = np.empty(len(ids), _ENTRY)
    entries["id"] = ids
    entries["logit"] = logits[ids]
    entries["p"] = 0
    data = ctypes.cast(entries.ctypes.data, llama.llama_token_data_p)
    array = llama.llama_token_data_array(data, len(ids), -1, False)
    llama.llama_sampler_apply(chain, ctypes.byref(array))
    token = int(array.data[array.selected].id)
    llama.llama_sampler_accept(chain, token)
    return token
