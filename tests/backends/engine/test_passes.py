"""A pass is given up for the greater part of it only."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.engine.passes import give_up_when

PROMPTS = st.lists(st.integers(1, 9), max_size=4)


@given(PROMPTS, st.integers(0, 9), st.sets(st.integers(0, 3)))
def test_a_pass_is_given_up_where_half_of_it_is_not_wanted(
    counts: list[int], generating: int, cancelled: set[int]
) -> None:
    rows = sum(counts) + generating
    given_up = give_up_when(list(enumerate(counts)), rows, cancelled.__contains__)
    if not counts:
        assert given_up is None, "single tokens are not worth a question"
        return
    assert given_up is not None
    unwanted = sum(count for id, count in enumerate(counts) if id in cancelled)
    assert given_up() is (unwanted >= rows / 2)


def test_it_is_asked_anew_each_time() -> None:
    cancelled: set[int] = set()
    given_up = give_up_when([(7, 4)], 4, cancelled.__contains__)
    assert given_up is not None
    assert not given_up()
    cancelled.add(7)
    assert given_up()
