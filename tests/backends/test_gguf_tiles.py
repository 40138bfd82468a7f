"""Passes over a few tokens of a long text, filled up for attention's sake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.gguf.passes import compose
from hybridd.backends.gguf.slots import NONE, Key
from hybridd.backends.gguf.tiles import ROWS, Tiles

# Qwen2's shape of 0.5 B; at 2,000 tokens 42 rows took 505 ms, 64 rows 480 and 48 rows 592.
HALF = Tiles.of(weights=357_900_000, layers=24, width=896)


@pytest.mark.parametrize(
    ("rows", "length", "filled"),
    [(8, 2000, False), (32, 2000, False), (48, 2000, True), (63, 2000, True), (48, 100, False)],
)
def test_filling_agrees_with_what_was_measured(rows: int, length: int, filled: bool) -> None:
    assert HALF.filling(rows, [length]) == (ROWS - rows if filled else 0)


def test_full_tiles_and_nothing_are_not_filled() -> None:
    assert HALF.filling(ROWS, [10**6]) == HALF.filling(ROWS + 1, [10**6]) == 0
    assert HALF.filling(0, [10**6]) == 0


@given(st.integers(1, ROWS - 1), st.floats(1, 10**5), st.integers(1, 4))
def test_what_pays_for_a_text_pays_for_a_longer_one(rows: int, even: float, streams: int) -> None:
    tiles = Tiles(even)
    paying = [tiles.filling(rows, [length] * streams) > 0 for length in range(0, 10**6, 50_000)]
    assert all(later or not sooner for sooner, later in pairwise(paying))


@dataclass
class Work:
    slot_index: int
    todo: int
    length: int
    generating: bool = False
    adapters: Key = NONE
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
    turn, talking = Work(0, 40, 1000), [Work(n, 1, 500, generating=True) for n in range(1, 9)]
    assert fillings([turn, *talking], unified=True) == [[*[0] * 8, 16]]
    assert fillings([turn, *talking], unified=True, micro_batch=63) == [[0] * 9]
    assert fillings(talking, unified=True) == [[0] * 8]
    assert fillings([turn], unified=True) == [[0]]
