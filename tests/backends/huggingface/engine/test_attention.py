"""Each row sees its own tokens, as far back as its layer looks, whoever is beside it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.forward.attention import RowsPass, Work
from hybridd.backends.huggingface.engine.forward.kv_cache import KVCache, LayerShape, Row

HEADS, QUERIES, DIM, CELLS = 2, 6, 8, 80
SHAPE = LayerShape(HEADS, DIM, DIM, torch.float32, torch.device("cpu"))

# How many tokens a row has, often nearly as many as a lot of cells, and how many it computes.
LENGTHS = st.one_of(st.integers(0, 60), st.sampled_from([15, 31, 47]))
ROWS = st.lists(st.tuples(LENGTHS, st.sampled_from([1, 1, 1, 2, 17])), min_size=1, max_size=5)


def seen(query: Any, keys: Any, values: Any, window: int | None) -> Any:
    """Attention of one token, `[queries, dim]`, to all that lies before it, `[heads, n, dim]`."""
    back = slice(0 if window is None else max(0, keys.shape[1] - window), None)
    keys, values = (
        part[:, back].repeat_interleave(QUERIES // HEADS, 0).double() for part in (keys, values)
    )
    scores = (keys @ query.double()[:, :, None])[..., 0] * DIM**-0.5
    return (torch.softmax(scores, -1)[:, None] @ values)[:, 0]


@given(ROWS, st.sampled_from([None, 1, 5, 16, 24, 33, 100]))
def test_each_token_attends_to_what_lies_before_it(
    sizes: list[tuple[int, int]], window: int | None
) -> None:
    torch.manual_seed(1)
    cache = KVCache([SHAPE], len(sizes), CELLS * len(sizes))
    cache._rebuild(len(sizes), CELLS)
    for stored in (cache.keys[0], cache.values[0]):
        stored[:] = torch.randn(stored.shape)  # all cells hold something
    works = [
        Work(Row(slot, list(range(length))), [7] * count)
        for slot, (length, count) in enumerate(sizes)
    ]
    works.sort(key=lambda work: (len(work.tokens) > 1 or not work.row.length, work.row.slot))
    total = sum(len(work.tokens) for work in works)
    new = torch.randn(1, total, QUERIES + 2 * HEADS, DIM)
    queries, keys, values = (
        part.transpose(1, 2) for part in new.split([QUERIES, HEADS, HEADS], dim=2)
    )
    rows = RowsPass(cache, works, [window], "cpu")
    rows.update(keys, values, 0)
    made = rows.attend(queries, keys, values, None, None, None)
    assert made.shape == (1, total, QUERIES, DIM)
    at = 0
    for row, tokens in works:
        for number in range(row.length, row.length + len(tokens)):
            assert torch.equal(cache.keys[0][row.slot, :, number], keys[0, :, at])
            assert torch.equal(cache.values[0][row.slot, :, number], values[0, :, at])
            before = slice(0, number + 1)
            own = cache.keys[0][row.slot, :, before], cache.values[0][row.slot, :, before]
            expected = seen(queries[0, :, at], *own, window)
            torch.testing.assert_close(made[0, at].double(), expected, rtol=1e-4, atol=1e-5)
            at += 1
