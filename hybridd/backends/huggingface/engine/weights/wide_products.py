"""Products with bfloat16 weights on processors that have none.

torch computes them number by number there: for a prompt at a sixth of float32's speed (measured:
docs/performance.md). Blocks of a weight are widened to float32, which loses nothing, in memory that
stays in the processor's caches, and multiplied there. Few rows are left to torch: they take as long
as it takes to read the weight, of which bfloat16 is half.
"""

from __future__ import annotations

import functools
import platform
from typing import Any

from ..compat.imports import Tensor, torch
from ..compat.onednn import has_bfloat16

# From so many rows for each thread on, and from the second number on in any case.
_ROWS, _MANY_ROWS = 8, 32
# Numbers of a weight that are widened at a time, for each thread: a megabyte.
_NUMBERS = 256 * 1024
# Where torch's own products were seen to be slow; other processors have other ways.
_SLOW = platform.machine() in ("x86_64", "AMD64")


def widen(model: Any, device: str) -> None:
    """Have linear layers of bfloat16 compute so, where the processor has no products of it."""
    if device != "cpu" or not _SLOW or has_bfloat16():
        return
    for layer in model.modules():
        if _is_bfloat16(layer):
            layer.forward = functools.partial(_linear, layer.weight, layer.bias)


def _is_bfloat16(layer: Any) -> bool:
    return type(layer) is torch.nn.Linear and layer.weight.dtype is torch.bfloat16


def _linear(weight: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """`torch.nn.functional.linear` of `(…, inputs)`: `(…, outputs)`."""
    threads = torch.get_num_threads()
    count = rows.shape[:-1].numel()
    if count < min(_ROWS * threads, _MANY_ROWS):
        return torch.nn.functional.linear(rows, weight, bias)
    outputs, inputs = weight.shape
    wide = rows.reshape(count, inputs).float()
    product = torch.empty(count, outputs, dtype=weight.dtype)
    size = max(1, min(outputs, _NUMBERS * threads // inputs))
    room = torch.empty(size, inputs, dtype=torch.float32)
    for begin in range(0, outputs, size):
        part = weight[begin : begin + size]
        block = room[: len(part)].copy_(part)
        sums = torch.mm(wide, block.t())
        if bias is not None:
            sums += bias[begin : begin + size]
        product[:, begin : begin + size] = sums
    return product.view(*rows.shape[:-1], outputs)
