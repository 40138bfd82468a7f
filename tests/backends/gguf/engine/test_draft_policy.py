"""The policy of drafting: how much, for whom, and when not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.backends.gguf.draft_facts import MAX_DRAFT, draft_rows
from hybridd.backends.gguf.engine.drafting.draft_policy import (
    GPU_ROW_COST,
    ROW_COST,
    Pace,
    Wish,
    level,
    share,
    worth_reading,
)

COSTS = st.sampled_from([ROW_COST, GPU_ROW_COST])
WISHES = st.lists(
    st.builds(
        Wish, st.floats(0, 1, allow_nan=False), st.integers(0, MAX_DRAFT), st.integers(0, 100)
    ),
    max_size=12,
)


@given(WISHES, COSTS, st.integers(0, 40))
def test_nobody_drafts_more_than_there_is_to_draft_or_room_for(
    wishes: list[Wish], cost: float, rows: int
) -> None:
    lengths = share(wishes, cost, rows)
    assert sum(lengths) <= rows
    assert all(length <= wish.most for length, wish in zip(lengths, wishes, strict=True))
    common = level(wishes, cost, rows)
    assert common * len(wishes) <= rows
    assert all(common <= wish.room for wish in wishes)
    assert common <= max((wish.most for wish in wishes), default=0)


@pytest.mark.parametrize(
    ("rate", "cost", "drafted"),
    [
        (1.0, ROW_COST, MAX_DRAFT),
        (0.9, ROW_COST, 4),
        (0.8, ROW_COST, 2),
        (0.3, ROW_COST, 0),
        (1.0, GPU_ROW_COST, MAX_DRAFT),
        (0.8, GPU_ROW_COST, 5),
        (0.5, GPU_ROW_COST, 2),
    ],
)
def test_alone_the_better_the_more(rate: float, cost: float, drafted: int) -> None:
    wish = Wish(rate, MAX_DRAFT, 100)
    assert share([wish], cost, 100) == [drafted]
    assert level([wish], cost, 100) == drafted


@pytest.mark.parametrize("rate", [0.6, 0.8, 0.95])
def test_on_a_processor_company_makes_drafts_shorter(rate: float) -> None:
    def one_of(count: int, cost: float) -> int:
        return share([Wish(rate, MAX_DRAFT, 100)] * count, cost, 1000)[0]

    lengths = [one_of(count, ROW_COST) for count in (1, 2, 4, 8, 32)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 0
    assert lengths[-1] == (1 if rate > 0.94 else 0)
    assert one_of(8, GPU_ROW_COST) > one_of(8, ROW_COST)


def test_rows_go_to_those_whose_drafts_go_well() -> None:
    good, bad = Wish(0.99, MAX_DRAFT, 100), Wish(0.5, MAX_DRAFT, 100)
    lengths = share([bad, good, bad], ROW_COST, 100)
    assert lengths[1] > 0
    assert lengths[0] == lengths[2] == 0


def test_a_prompt_is_read_for_as_many_tokens_as_can_pay_for_it() -> None:
    assert worth_reading(50, 4, ROW_COST)
    assert not worth_reading(1500, 4, ROW_COST)
    assert worth_reading(1500, 200, ROW_COST)
    assert not worth_reading(100_000, 200, ROW_COST)
    assert worth_reading(800, 4, GPU_ROW_COST)
    assert not worth_reading(1, 0, GPU_ROW_COST)


def test_rows_that_nobody_wants_are_paid_for_too() -> None:
    good, none = Wish(0.95, MAX_DRAFT, 100), Wish(0.8, 0, 100)
    assert level([good], ROW_COST, 100) > 0
    assert level([good, none, none, none], ROW_COST, 100) == 0
    assert level([good] * 4, ROW_COST, 100) > 0
    full = Wish(0.8, 0, 0)
    assert level([good, good, good, full], GPU_ROW_COST, 100) == 0


def drafted_of(pace: Pace, accepts: float, tokens: int) -> int:
    """How many tokens a lone request drafts while it generates some."""
    made = drafted = 0
    while made < tokens:
        wish = Wish(pace.rate, 0 if pace.resting else MAX_DRAFT, 100)
        if pace.resting:
            pace.wait()
        (length,) = share([wish], ROW_COST, 100)
        right = round(length * accepts)
        if length:
            pace.learn(length, right)
        drafted += length
        made += right + 1
    return drafted


def test_what_is_always_refused_is_hardly_drafted_any_more() -> None:
    pace = Pace()
    assert drafted_of(pace, 0, 1000) < 40
    assert drafted_of(pace, 0, 1000) < 15


def test_what_is_always_right_is_drafted_at_full_length() -> None:
    pace = Pace()
    drafted_of(pace, 1, 100)
    assert pace.rate > 0.95
    assert drafted_of(pace, 1, 90) == 80


def test_it_comes_back_when_the_text_becomes_easy() -> None:
    pace = Pace()
    drafted_of(pace, 0, 1000)
    assert drafted_of(pace, 1, 1000) > 400


def test_a_first_token_that_is_wrong_says_nothing_of_the_others() -> None:
    one, eight = Pace(), Pace()
    one.learn(1, 0)
    eight.learn(8, 0)
    assert one.rate == eight.rate
    before = one.rate
    one.learn(0, 0)
    assert one.rate == before


def test_giving_up_is_for_good() -> None:
    pace = Pace()
    pace.give_up()
    for _ in range(1000):
        assert pace.resting
        pace.wait()


def test_logits_are_kept_for_a_bounded_number_of_rows() -> None:
    assert draft_rows(1) == MAX_DRAFT
    assert draft_rows(256) == draft_rows(4)
