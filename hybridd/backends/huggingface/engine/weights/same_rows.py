"""Layers that are given the same rows one after the other, computed as one product.

Queries, keys and values of a small model, and the two halves of its feed-forward layer: as one
product each, a token takes a twentieth less. In a larger model the calls are nothing, and each
thread that packs would need as much memory besides.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..compat.imports import Tensor, torch

# Wherever transformers calls them so.
_NAMES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_MOST_BYTES = 32 * 1024 * 1024
# With one of these an attention may look at something else than what it asks with.
_OTHER_ROWS = {"key_value_states", "encoder_hidden_states", "cross_attention_states"}


class SameRows:
    """The layers of one group.

    A layer that is given other rows than the one before gets its part of them all the same.

    Args:
        product: What all of them make of rows, `(…, inputs)` to `(…, outputs)`, behind each other.
        sizes: Of their outputs.
    """

    def __init__(self, product: Callable[[Tensor], Tensor], sizes: list[int]) -> None:
        self._product = product
        self._sizes = sizes
        self._rows: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def part(self, index: int, rows: Tensor) -> Tensor:
        """What one of the layers makes of `rows`."""
        if rows is not self._rows or index not in self._parts:
            parts = torch.split(self._product(rows), self._sizes, dim=-1)
            self._rows, self._parts = rows, dict(enumerate(parts))
        output = self._parts.pop(index)
        if not self._parts:
            self._rows = None
        return output


def groups_of(model: Any, is_packed: Callable[[Any], bool]) -> list[list[Any]]:
    """The layers to pack, those together that are computed as one."""
    groups: list[list[Any]] = []
    grouped: set[Any] = set()
    for parent in model.modules():
        for names in _NAMES:
            layers = [getattr(parent, name, None) for name in names]
            group = [layer for layer in layers if is_packed(layer)]
            whole = len(group) == len(names) and grouped.isdisjoint(group)
            if whole and _are_one(parent, group):
                groups.append(group)
                grouped.update(group)
    return groups + [[one] for one in model.modules() if is_packed(one) and one not in grouped]


def _are_one(parent: Any, group: list[Any]) -> bool:
    """Whether layers of a module of transformers' are worth computing as one."""
    return (
        type(parent).__module__.startswith("transformers.models.")
        and len({module.in_features for module in group}) == 1
        and len({module.bias is None for module in group}) == 1
        and sum(module.weight.nbytes for module in group) <= _MOST_BYTES
        and _OTHER_ROWS.isdisjoint(inspect.signature(parent.forward).parameters)
    )
