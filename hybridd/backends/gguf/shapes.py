"""The shape of one tensor in a GGUF header: what is checked once for all tensors that have it."""

from __future__ import annotations

import math
from struct import Struct

from ..bounded import invalid
from .types import TENSOR_TYPES

MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MAX_ELEMENTS = 2**56

_RANK = Struct("<I")
# What follows a tensor's rank: its dimensions and its type.
_SHAPES = tuple(Struct(f"<{n}QI") for n in range(MAX_DIMENSIONS + 1))
MAX_SHAPE_BYTES = _RANK.size + _SHAPES[-1].size
# Dimensions, elements, bytes, and the type's name.
Shape = tuple[tuple[int, ...], int, int, str]


def read_shape(raw: bytes, name: str) -> Shape:
    """A tensor's shape out of its rank, dimensions and type.

    Raises:
        ModelInvalid: It cannot be.
        struct.error: The bytes end before it does.
    """
    (rank,) = _RANK.unpack_from(raw)
    if rank > MAX_DIMENSIONS:
        raise invalid(f"the tensor {name[:80]!r} claims {rank} dimensions")
    *dimensions, kind = _SHAPES[rank].unpack_from(raw, 4)
    stored = TENSOR_TYPES.get(kind)
    if stored is None:
        raise invalid(f"the tensor {name[:80]!r} has the type {kind}, unknown or given up")
    elements = math.prod(dimensions)
    if elements > MAX_ELEMENTS or max(dimensions, default=0) > MAX_ELEMENTS:
        raise invalid(f"the tensor {name[:80]!r} claims {elements:.3g} elements")
    if rank and dimensions[0] % stored.block:
        raise invalid(f"the rows of tensor {name[:80]!r} are no whole blocks of {stored.name}")
    return tuple(dimensions), elements, elements // stored.block * stored.bytes, stored.name
