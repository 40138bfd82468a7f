"""Rows come, grow, go and are kept; the cache never has more cells than it was given."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.huggingface.engine.compat.imports import torch
from hybridd.backends.huggingface.engine.forward import kv_cache
from hybridd.backends.huggingface.engine.forward.kv_cache import (
    KVCache,
    LayerShape,
    Row,
)
from hybridd.backends.huggingface.engine.weights import memory

CPU = torch.device("cpu")
SHAPES = [LayerShape(2, 3, 1, torch.float32, CPU), LayerShape(1, 2, 2, torch.float32, CPU)]


def fill(cache: KVCache, row: Row, tokens: list[int]) -> None:
    """As a forward pass does: each token's cells hold its number."""
    cache.ensure(row.length + len(tokens))
    for tensor in [*cache.keys, *cache.values]:
        for i, token in enumerate(tokens, row.length):
            tensor[row.slot, :, i] = float(token)
    row.tokens += tokens


def check(cache: KVCache, row: Row) -> None:
    expected = torch.tensor(row.tokens, dtype=torch.float32)
    for tensor in [*cache.keys, *cache.values]:
        cells = tensor[row.slot, :, : row.length]
        assert torch.equal(cells, expected[None, :, None].expand_as(cells))


# How much of a common beginning a prompt has, tokens of its own, tokens to generate.
PROMPTS = st.tuples(st.integers(0, 40), st.integers(1, 300), st.integers(1, 60))
STEPS = st.lists(st.one_of(PROMPTS, st.integers(0, 3)), max_size=25)


@given(STEPS, st.integers(1, 4), st.sampled_from([400, 700, 1600]))
def test_rows_keep_what_they_have_and_the_limit_holds(
    steps: list[Any], parallel: int, cells: int
) -> None:
    cache = KVCache(SHAPES, parallel, cells)
    running: list[Row] = []
    number = 1000
    for step in steps:
        if isinstance(step, int):
            if running:
                cache.give_back(running.pop(step % len(running)))
            continue
        shared, own, more = step
        prompt = [*range(shared), *range(number, number + own)]
        number += own
        row = cache.take(prompt, len(prompt) + more)
        assert cache.slots * cache.cells <= cells
        if row is None:
            most = max([len(prompt) + more, *(one.reserved for one in running)])
            assert len(running) == parallel or (len(running) + 1) * most > cells
            continue
        running.append(row)
        assert row.tokens == prompt[: row.length]
        assert row.length < len(prompt)
        check(cache, row)
        fill(cache, row, prompt[row.length :])
        fill(cache, row, list(range(5, 5 + more)))
        assert cache.slots * cache.cells <= cells
        assert len({one.slot for one in running}) == len(running)
        for one in running:
            assert one.slot < cache.slots
            check(cache, one)


def test_a_conversation_goes_on_in_its_row() -> None:
    cache = KVCache(SHAPES, 2, 1024)
    row = cache.take(list(range(50)), 60)
    assert row is not None
    fill(cache, row, list(range(50)))
    cache.give_back(row)
    assert cache.take(list(range(70)), 80) is row
    assert row.length == 50


def test_the_longest_unused_row_goes_first() -> None:
    cache = KVCache(SHAPES, 2, 512)
    for begin in (0, 1000, 2000):
        row = cache.take(list(range(begin, begin + 200)), 201)
        assert row is not None
        fill(cache, row, list(range(begin, begin + 200)))
        cache.give_back(row)
    assert cache.kept == 2
    kept = cache.take(list(range(1000, 1150)), 151)
    assert kept is not None
    assert kept.length == 149
    gone = cache.take(list(range(150)), 151)
    assert gone is not None
    assert gone.length == 0


def test_rows_are_lost_rather_than_mixed_up_when_memory_runs_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = KVCache(SHAPES, 2, 2048)
    gone, row = cache.take([1] * 20, 400), cache.take([2] * 20, 400)
    assert gone is not None
    assert row is not None
    fill(cache, gone, [1] * 20)
    fill(cache, row, [2] * 20)
    cache.give_back(gone)
    zeros, left = kv_cache._zeros, [1, 1]

    def failing(*arguments: Any, **named: Any) -> Any:
        if not left:
            raise MemoryError
        left.pop()
        return zeros(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(kv_cache, "_zeros", failing)
        with pytest.raises(MemoryError):
            cache.ensure(1000)
    # Some layers are of the new size and order, the others are not.
    with pytest.raises(MemoryError):
        cache.ensure(21)
    cache.give_back(row)
    anew = cache.take([2] * 30, 400)
    assert anew is not None
    assert anew.length == 0
    fill(cache, anew, [2] * 300)
    check(cache, anew)


def private_bytes() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(rollup.split("Private_Dirty:")[1].split()[0]) * 1024


def test_cells_take_no_memory_before_they_are_used() -> None:
    cache = KVCache([LayerShape(8, 64, 64, torch.float32, CPU)] * 4, 16, 16 * 4096)
    rows = [cache.take([i] * 5, 4096) for i in range(16)]
    before = private_bytes()
    cache.ensure(4096)
    assert sum(tensor.nbytes for tensor in [*cache.keys, *cache.values]) == 1 << 30
    assert private_bytes() - before < 1 << 26
    for i, row in enumerate(rows):
        assert row is not None
        fill(cache, row, [i] * 5)
        check(cache, row)
        assert not cache.values[3][row.slot, :, 5:1000].any()
    assert private_bytes() - before < 1 << 26


def test_memory_that_the_system_refuses_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache(SHAPES, 1, 2048)
    row = cache.take([1] * 5, 1000)
    assert row is not None

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch:
        patch.setattr(memory.mmap, "mmap", refused)
        with pytest.raises(MemoryError):
            cache.ensure(1000)
    cache.give_back(row)
    assert cache.take([1] * 5, 1000) is not None
