"""Weights in the order in which the processor multiplies them.

oneDNN reads a matrix of 16-bit floats in blocks. Left as a checkpoint has it, it is read at half
the speed in every step (measured: docs/huggingface.md); brought into that order once, at load, it
is no longer a mapped file but memory of the worker, of the same size. The table of embeddings stays
mapped, by itself: of a large vocabulary few rows are ever looked up.
"""

from __future__ import annotations

import functools
import inspect
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from hybridd.backends.api import Report
from hybridd.backends.cpu import usable_cores

from ..compat.library import torch
from .lazy_weight import StandIn
from .memory import fresh, mapped_alone

# Below this it would take longer than it is worth: such a model computes in no time.
_SMALL_BYTES = 32 * 1024 * 1024
# Layers that are given the same rows, wherever transformers calls them so: computed as one, a token
# of a small model takes a twentieth less. In a larger one the calls are nothing, and each thread
# that packs would need as much memory besides.
_SAME_ROWS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_FUSED_BYTES = 32 * 1024 * 1024
# Each may take as much as the largest layers that are put together. More would wait for memory.
_MOST_THREADS = 16
# Seen of oneDNN's products on x86-64 alone; others have ways of their own for single rows.
_PADS = platform.machine() in ("x86_64", "AMD64")
# With one of these an attention may look at something else than what it asks with.
_OTHER_ROWS = {"key_value_states", "encoder_hidden_states", "cross_attention_states"}


def packable(model: Any, device: str, weights_bytes: int) -> bool:
    """Whether packing is of use for a model."""
    onednn: Any = torch.backends.mkldnn
    return (
        device == "cpu"
        and weights_bytes >= _SMALL_BYTES
        and onednn.is_available()
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        and any(map(_is_packed, model.modules()))
    )


def pack(model: Any, report: Report) -> None:
    """Pack the model's linear layers, in place, and let go of the files but for embeddings.

    All cores take part, as in every load, however many threads the model will compute with.

    Raises:
        LoadCancelled: `report` said so; the model is of no use then.
    """
    groups = _groups(model)
    total, done = sum(map(len, groups)), 0
    with torch.inference_mode(), _packed(groups) as ready:
        for group, packed in zip(groups, ready, strict=True):
            report("packing", done, total)
            _replace(group, packed)
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
def _packed(groups: list[list[Any]]) -> Iterator[Iterator[Any]]:
    """Their packed weights, in that order, as they get ready.

    A group is one thread's: most of the time goes into touching new memory, where threads that
    share a layer wait for each other.
    """
    numbers = max((_numbers(group) for group in groups if len(group) > 1), default=0)
    room = threading.local()  # each thread's, to put layers together in

    def packed(group: list[Any]) -> Any:
        with torch.inference_mode():
            weights = [module.weight for module in group]
            whole = weights[0]
            if len(weights) > 1:
                if not hasattr(room, "numbers"):
                    room.numbers = fresh(numbers, whole.dtype)
                whole = room.numbers[: _numbers(group)].view(-1, whole.shape[1])
                torch.cat(weights, out=whole)
            return torch.ops.mkldnn._reorder_linear_weight(whole, None)

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


def _replace(group: list[Any], packed: Any) -> None:
    """Have layers compute by their packed weights, and forget the others."""
    biases = [module.bias for module in group if module.bias is not None]
    bias = torch.cat([one.detach() for one in biases]) if biases else None
    sizes = [module.out_features for module in group]
    if len(group) == 1:
        group[0].forward = functools.partial(_linear, packed, bias)
    else:
        fused = Fused(packed, bias, sizes)
        for place, module in enumerate(group):
            module.forward = functools.partial(fused.part, place)
    for place, module in enumerate(group):
        module.weight = StandIn(module, functools.partial(_unpacked, packed, sizes, place))


def _unpacked(packed: Any, sizes: list[int], place: int) -> Any:
    """The weight of one of the layers that were packed together, as it was."""
    whole = packed.to_dense()
    return whole if len(sizes) == 1 else whole.split(sizes)[place].clone()


class Fused:
    """Layers that are given the same rows one after the other, computed as one.

    A layer that is given other rows than the one before gets its part of them all the same.

    Args:
        packed: Their weights, one below the other.
        bias: Theirs.
        sizes: Of their outputs.
    """

    def __init__(self, packed: Any, bias: Any, sizes: list[int]) -> None:
        self._packed = packed
        self._bias = bias
        self._sizes = sizes
        self._rows: Any = None
        self._parts: dict[int, Any] = {}

    def part(self, place: int, rows: Any) -> Any:
        """What one of the layers makes of `rows`."""
        if rows is not self._rows or place not in self._parts:
            parts = _linear(self._packed, self._bias, rows).split(self._sizes, dim=-1)
            self._rows, self._parts = rows, dict(enumerate(parts))
        made = self._parts.pop(place)
        if not self._parts:
            self._rows = None
        return made


def _groups(model: Any) -> list[list[Any]]:
    """The layers to pack, those together that are computed as one."""
    groups: list[list[Any]] = []
    grouped: set[Any] = set()
    for parent in model.modules():
        for names in _SAME_ROWS:
            group = [child for name in names if _is_packed(child := getattr(parent, name, None))]
            whole = len(group) == len(names) and grouped.isdisjoint(group)
            if whole and _is_fused(parent, group):
                groups.append(group)
                grouped.update(group)
    return groups + [[one] for one in model.modules() if _is_packed(one) and one not in grouped]


def _is_packed(module: Any) -> bool:
    return (
        type(module) is torch.nn.Linear
        and type(module.weight.data) is torch.Tensor
        and module.weight.dtype is torch.bfloat16
    )


def _is_fused(parent: Any, group: list[Any]) -> bool:
    """Whether layers of a module of transformers' are worth computing as one."""
    return (
        type(parent).__module__.startswith("transformers.models.")
        and len({module.in_features for module in group}) == 1
        and len({module.bias is None for module in group}) == 1
        and sum(module.weight.nbytes for module in group) <= _FUSED_BYTES
        and _OTHER_ROWS.isdisjoint(inspect.signature(parent.forward).parameters)
    )


@functools.cache
def _product() -> Any:
    """oneDNN's product; the overload by its name, since finding it takes as long as a small one."""
    return torch.ops.mkldnn._linear_pointwise.default


def _linear(packed: Any, bias: Any, rows: Any) -> Any:
    product = _product()
    count = rows.shape[:-1].numel()
    if count > 2 or not count or not _PADS:
        return product(rows, packed, bias, "none", [], "")
    # oneDNN reads the weights faster for four rows than for one or two, and adds up the products of
    # a single one in another order than of several.
    flat = rows.reshape(count, -1)
    four = flat.expand(4, -1) if count == 1 else torch.cat((flat, flat))
    made = product(four, packed, bias, "none", [], "")
    return made[:count].view(*rows.shape[:-1], -1)
