"""What two sequences have in common, and what becomes of the one that is there already."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.engine.prefix import (
    common_prefix,
    keeps_most,
    shared_tokens,
    worth_copying,
)

TOKENS = st.lists(st.integers(0, 2), max_size=40)


@given(TOKENS, TOKENS)
def test_a_common_prefix_is_as_long_as_it_is(one: list[int], other: list[int]) -> None:
    length = common_prefix(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]
    assert common_prefix(array("i", one), array("i", other)) == length


@given(TOKENS, TOKENS)
def test_one_token_of_a_prompt_is_left_to_compute(held: list[int], prompt: list[int]) -> None:
    shared = shared_tokens(held, prompt)
    assert shared == min(common_prefix(held, prompt), max(0, len(prompt) - 1))
    assert shared_tokens(prompt, prompt) == max(0, len(prompt) - 1)


@pytest.mark.parametrize(
    ("shared", "held", "most"), [(0, 0, False), (1, 1, True), (1, 2, True), (1, 3, False)]
)
def test_most_is_half(shared: int, held: int, most: bool) -> None:
    assert keeps_most(shared, held) is most


def test_a_copy_has_to_save_so_many_more_than_there_are() -> None:
    assert worth_copying(40, 8, 32)
    assert not worth_copying(39, 8, 32)
