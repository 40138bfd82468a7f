"""Passes over a few tokens of a long text, filled up for attention's sake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.gguf.engine.cells.step_plan import Pass, compose
from hybridd.backends.gguf.engine.weights.attention_tiles import ROWS, Tiles
from tests.support_tiles import Always

# Qwen2's shape of 0.5 B with two threads. 40, 48 and 64 rows took 440, 522 and 502 ms at 1,000
# tokens, and 592, 699 and 631 at 2,000.
HALF = replace(Tiles.of(weights=357_900_000, layers=24, heads=14, width=896), threads=2)


def alone(tiles: Tiles, rows: int, length: int) -> int:
    return tiles.filling([rows], [length], shared=False)


@pytest.mark.parametrize(
    ("rows", "length", "filled"),
    [(8, 2000, False), (40, 2000, False), (48, 2000, True), (40, 1000, False), (56, 1000, True)],
)
def test_filling_agrees_with_what_was_measured(rows: int, length: int, filled: bool) -> None:
    assert alone(HALF, rows, length) == (ROWS - rows if filled else 0)


def test_full_tiles_and_nothing_are_not_filled() -> None:
    assert alone(HALF, ROWS, 10**6) == alone(HALF, ROWS + 1, 10**6) == 0
    assert alone(HALF, 0, 10**6) == 0


@given(
    st.integers(1, ROWS - 1),
    st.floats(1, 10**5),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 64),
)
def test_what_pays_for_a_text_pays_for_a_longer_one(
    rows: int, even: float, streams: int, heads: int, threads: int
) -> None:
    tiles = Tiles(even, heads, threads)
    paying = [
        tiles.filling([rows] * streams, [length] * streams, shared=False) > 0
        for length in range(0, 10**6, 50_000)
    ]
    assert all(later or not sooner for sooner, later in pairwise(paying))


@pytest.mark.parametrize(
    ("heads", "threads", "streams", "tiles"),
    [(14, 1, 1, 14), (14, 2, 1, 20), (14, 16, 1, 76), (16, 2, 1, 16), (2, 2, 1, 8), (2, 2, 4, 8)],
)
def test_threads_cut_tiles(heads: int, threads: int, streams: int, tiles: int) -> None:
    """The figures are counts of what llama.cpp's loop does."""
    made = Tiles(1.0, heads, threads).tiles(streams)
    assert made == tiles == _as_llama_cpp_does(heads * streams, threads)


@given(st.integers(1, 130), st.integers(1, 130))
def test_tiles_are_counted_as_they_are_made(heads: int, threads: int) -> None:
    assert Tiles(1.0, heads, threads).tiles(1) == _as_llama_cpp_does(heads, threads)


def _as_llama_cpp_does(heads: int, threads: int) -> int:
    rows = heads * ROWS
    chunk = -(-rows // (threads * 4))
    chunks = -(-rows // chunk)
    if threads == 1 or chunks < threads:
        chunks = threads
    each, count = -(-rows // chunks), 0
    for number in range(chunks):
        at, end = each * number, min(each * (number + 1), rows)
        while at < end:
            at += min(ROWS - at % ROWS, end - at)
            count += 1
    return count


def test_few_heads_gain_nothing_with_many_threads() -> None:
    assert alone(replace(HALF, threads=1), 48, 10**6)
    assert not alone(replace(HALF, threads=32), 48, 10**6)
    assert alone(replace(HALF, threads=32, heads=128), 48, 10**6)


@dataclass
class Work:
    slot_index: int
    todo: int
    length: int
    generating: bool = False
    adapters: AdapterChoice = NO_ADAPTERS
    draft: Sequence[int] = ()


def fillings(works: list[Work], *, unified: bool, micro_batch: int = 512) -> list[list[int]]:
    passes = compose(works, micro_batch, unified=unified, fill_to=4096, tiles=HALF)
    return [[row.filling for row in each.rows] for each in passes]


def test_streams_are_filled_up_to_a_tile_each() -> None:
    turn = Work(0, 48, 2048)
    assert fillings([turn], unified=False) == [[16]]
    assert fillings([turn, Work(1, 46, 2046)], unified=False) == [[16, 18]]
    assert fillings([turn, Work(1, 1, 2046, generating=True)], unified=False) == [[0], [16]]
    assert fillings([turn], unified=False, micro_batch=63) == [[0]]
    assert fillings([Work(0, 48, 4096 - 15)], unified=False) == [[0]]
    assert fillings([Work(0, 48, 48)], unified=False) == [[0]]
    assert fillings([Work(0, 600, 2600)], unified=False) == [[0]]


def test_of_shared_cells_all_rows_count() -> None:
    turn, talking = Work(0, 46, 2000), [Work(n, 1, 20, generating=True) for n in range(1, 9)]
    assert fillings([turn, *talking], unified=True) == [[*[0] * 8, 10]]
    assert fillings([turn, *talking], unified=True, micro_batch=63) == [[0] * 9]
    assert fillings(talking, unified=True) == [[0] * 8]
    assert fillings([turn], unified=True) == [[18]]
    assert fillings([Work(0, 20, 2000)], unified=True) == [[0]]


def test_of_shared_cells_a_tile_takes_all_that_any_of_its_rows_needs() -> None:
    talking = [Work(n, 1, 2000, generating=True) for n in range(1, 9)]
    assert HALF.filling([1] * 8 + [48], [2000] * 8 + [4000], shared=True) == 0
    # Those who generate go first, and what is not in the pass is in no tile.
    assert fillings([Work(0, 48, 4000), *talking], unified=True) == [[0] * 8, [16]]
    assert fillings([Work(0, 500, 4000), *talking], unified=True) == [[0] * 8, [0]]
    few = [Work(n, 1, 20, generating=True) for n in range(1, 9)]
    assert fillings([Work(0, 500, 4000), *few], unified=True) == [[0] * 9]


@pytest.mark.parametrize(
    ("rows", "length", "others", "apart"),
    # Milliseconds of one pass and of two, 0.1 B with two threads and eight others.
    [
        (64, 1000, 1000, True),
        (248, 1000, 1000, True),
        (500, 0, 500, True),
        (200, 2000, 100, True),
        (40, 2000, 100, True),
        (40, 200, 20, False),
    ],
    ids=["289, 22+76", "608, 22+419", "736, 19+624", "367, 12+288", "113, 12+90", "27, 6+24"],
)
def test_passes_of_shared_cells_are_two_where_that_was_faster(
    rows: int, length: int, others: int, apart: bool
) -> None:
    tiles = replace(Tiles.of(weights=36_200_000, layers=12, heads=8, width=512), threads=2)
    assert tiles.apart([1] * 8, [others] * 8, [rows], [length + rows]) is apart


@st.composite
def _works(draw: st.DrawFn) -> list[Work]:
    made = []
    for index in draw(st.permutations(range(8)))[: draw(st.integers(1, 8))]:
        generating = draw(st.booleans())
        todo = 1 if generating else draw(st.integers(1, 150))
        key: AdapterChoice = draw(st.sampled_from([NO_ADAPTERS, (("one", 1.0),)]))
        drafts = draw(st.integers(0, 3)) if generating else 0
        held = draw(st.integers(0, 200 - todo - drafts))
        made.append(Work(index, todo, held + todo, generating, key, [7] * drafts))
    return made


@given(_works(), st.integers(32, 200), st.booleans(), st.sampled_from([0, 200]))
def test_filling_adds_no_more_than_there_is_room_for(
    works: list[Work], micro_batch: int, unified: bool, fill_to: int
) -> None:
    options = {"unified": unified, "fill_to": fill_to}
    plain = compose(works, micro_batch, **options)  # type: ignore[arg-type]
    filled = compose(works, micro_batch, tiles=Always(1.0), **options)  # type: ignore[arg-type]
    assert [_wanted(each) for each in filled] == [_wanted(each) for each in plain]
    for each, before in zip(filled, plain, strict=True):
        widths = [row.count + len(row.sequence.draft) + row.filling for row in each.rows]
        added = [row.filling - b.filling for row, b in zip(each.rows, before.rows, strict=True)]
        assert min(added) >= 0
        for row, more in zip(each.rows, added, strict=True):
            done = row.sequence.length - row.sequence.todo + row.count
            assert not more or done + row.filling <= fill_to
        if any(added):
            assert sum(widths) <= micro_batch
            assert unified or set(widths) == {ROWS}
            assert not unified or (sum(widths) == ROWS and not any(added[:-1]))


def _wanted(each: Pass[Work]) -> tuple[object, ...]:
    rows = [(row.sequence.slot_index, row.count) for row in each.rows]
    return rows, each.gaps, each.adapters
