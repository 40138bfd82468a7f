"""The parts of an estimate that every format shares: how many cells, how many heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hybridd.core.model import Facts

# "auto" takes the model's own context up to this many tokens: enough for a chat with a few pages
# of text, while 128k of many recent models would reserve more than the weights do.
AUTO_CONTEXT_LENGTH = 8192


class Context(NamedTuple):
    """The context that a load asks for: of one request, how many at a time, cells for all."""

    length: int
    parallel: int
    cells: int


def context(facts: Facts, load_options: Mapping[str, Any]) -> Context:
    """Settle context length, parallel and cells of (possibly partial, possibly "auto") options."""
    length = _number(load_options.get("context_length"))
    if length is None:
        length = min(facts.context_length or AUTO_CONTEXT_LENGTH, AUTO_CONTEXT_LENGTH)
    parallel = _number(load_options.get("parallel")) or 1
    cells = _number(load_options.get("kv_cells")) or length * parallel
    return Context(length, parallel, cells)


def kv_heads_total(facts: Facts) -> int | None:
    """KV heads of all layers together, or None where the files do not say."""
    if facts.kv_heads is None or facts.head_dim_k is None:
        return 0 if facts.kv_heads == (0,) else None
    if len(facts.kv_heads) == 1:
        return facts.kv_heads[0] * (facts.layers or 0)
    return sum(facts.kv_heads[: facts.layers])


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
