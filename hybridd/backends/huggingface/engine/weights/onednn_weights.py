"""Weights in the order in which the processor multiplies them.

oneDNN reads a matrix of 16-bit floats in blocks. Left as a checkpoint has it, it is read at half
the speed in every step (measured: docs/huggingface.md); brought into that order once, at load, it
is no longer a mapped file but memory of the worker, of the same size. The table of embeddings stays
mapped, by itself: of a large vocabulary few rows are ever looked up.

`compat.onednn` has the products, `same_rows` says which layers are computed as one.
"""

from __future__ import annotations

import functools
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from hybridd.backends.api import Report
from hybridd.backends.cpu import usable_cores

from ..compat.imports import Tensor, torch
from ..compat.onednn import Products
from .lazy_weight import StandIn
from .memory import fresh, mapped_alone
from .same_rows import SameRows, groups_of

# Of the weights that are packed: float32 is read at full speed as it is.
DTYPE = torch.bfloat16
# Below this it would take longer than it is worth: such a model computes in no time.
_SMALL_BYTES = 32 * 1024 * 1024
# Each may take as much as the largest layers that are put together. More would wait for memory.
_MOST_THREADS = 16
# Seen of oneDNN's products on x86-64 alone; others have ways of their own for single rows.
_PADS = platform.machine() in ("x86_64", "AMD64")


def worthwhile(model: Any, device: str, weights_bytes: int) -> bool:
    """Whether packing is of use for a model, if there are products with packed weights."""
    large = device == "cpu" and weights_bytes >= _SMALL_BYTES
    return large and any(map(_is_packed, model.modules()))


def pack(model: Any, products: Products, report: Report) -> None:
    """Pack the model's linear layers, in place, and let go of the files but for embeddings.

    All cores take part, as in every load, however many threads the model will compute with.

    Args:
        products: Of `DTYPE`; layers of others are left as they are.

    Raises:
        LoadCancelled: `report` said so; the model is of no use then.
    """
    groups = groups_of(model, _is_packed)
    total, done = sum(map(len, groups)), 0
    with torch.inference_mode(), _packed(groups, products) as ready:
        for group, packed in zip(groups, ready, strict=True):
            report("packing", done, total)
            _replace(group, packed, products)
            done += len(group)
        table: Any = getattr(model.get_input_embeddings(), "weight", None)
        for parameter in model.parameters():
            if isinstance(parameter, StandIn):
                continue
            # The last ones that hold the mapped files open.
            alone = mapped_alone(parameter.data) if parameter is table else None
            parameter.data = parameter.data.clone() if alone is None else alone
    report("packing", total, total)


@contextmanager
def _packed(groups: list[list[Any]], products: Products) -> Iterator[Iterator[Tensor]]:
    """Their packed weights, in that order, as they get ready.

    A group is one thread's: most of the time goes into touching new memory, where threads that
    share a layer wait for each other.
    """
    numbers = max((_numbers(group) for group in groups if len(group) > 1), default=0)
    room = threading.local()  # each thread's, to put layers together in

    def packed(group: list[Any]) -> Tensor:
        with torch.inference_mode():
            weights = [module.weight for module in group]
            whole: Tensor = weights[0]
            if len(weights) > 1:
                if not hasattr(room, "numbers"):
                    room.numbers = fresh(numbers, whole.dtype)
                whole = room.numbers[: _numbers(group)].view(-1, whole.shape[1])
                torch.cat(weights, out=whole)
            return products.pack(whole)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    count = min(usable_cores(), _MOST_THREADS)
    # Each thread would have a team of its own, of as many threads as there are cores.
    pool = ThreadPoolExecutor(count, "packing", torch.set_num_threads, (1,))
    try:
        yield pool.map(packed, groups)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _numbers(group: list[Any]) -> int:
    return sum(module.weight.numel() for module in group)


def _replace(group: list[Any], packed: Tensor, products: Products) -> None:
    """Have layers compute by their packed weights, and forget the others."""
    biases = [module.bias for module in group if module.bias is not None]
    bias = torch.cat([one.detach() for one in biases]) if biases else None
    sizes = [module.out_features for module in group]
    product = functools.partial(_linear, products, packed, bias)
    if len(group) == 1:
        group[0].forward = product
    else:
        together = SameRows(product, sizes)
        for index, module in enumerate(group):
            module.forward = functools.partial(together.part, index)
    for index, module in enumerate(group):
        unpack = functools.partial(_unpacked, products, packed, sizes, index)
        module.weight = StandIn(module, unpack)


def _unpacked(products: Products, packed: Tensor, sizes: list[int], index: int) -> Tensor:
    """The weight of one of the layers that were packed together, as it was."""
    whole = products.unpack(packed)
    return whole if len(sizes) == 1 else torch.split(whole, sizes)[index].clone()


def _is_packed(module: Any) -> bool:
    return (
        type(module) is torch.nn.Linear
        and type(module.weight.data) is torch.Tensor
        and module.weight.dtype is DTYPE
    )


def _linear(products: Products, packed: Tensor, bias: Tensor | None, rows: Tensor) -> Tensor:
    """What a layer, or several as one, make of `(…, inputs)`: `(…, outputs)`."""
    count = rows.shape[:-1].numel()
    if count > 2 or not count or not _PADS:
        return products.multiply(rows, packed, bias)
    # oneDNN reads the weights faster for four rows than for one or two, and adds up the products of
    # a single one in another order than of several.
    flat = rows.reshape(count, -1)
    four = flat.expand(4, -1) if count == 1 else torch.cat((flat, flat))
    return products.multiply(four, packed, bias)[:count].view(*rows.shape[:-1], -1)
