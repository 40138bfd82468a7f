"""Models at work share the cores."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.threads import fair_shares
from tests.core.world import World


@pytest.mark.parametrize(
    ("cores", "claims", "shares"),
    [
        (8, [], []),
        (8, [8], [8]),
        (8, [4], [4]),
        (8, [8, 8], [4, 4]),
        (8, [1, 8], [1, 7]),
        (8, [8, 2, 8], [3, 2, 3]),
        (2, [2, 2], [1, 1]),
        (2, [2, 2, 2], [1, 1, 1]),
        (0, [2], [1]),
        (-3, [2, 2], [1, 1]),
    ],
)
def test_fair_shares(cores: int, claims: list[int], shares: list[int]) -> None:
    assert fair_shares(cores, claims) == shares


@given(some.integers(-5, 300), some.lists(some.integers(1, 300), max_size=20))
def test_fair_shares_whatever_is_claimed(cores: int, claims: list[int]) -> None:
    shares = fair_shares(cores, claims)
    assert all(1 <= share <= claim for share, claim in zip(shares, claims, strict=True))
    if len(claims) <= cores:
        assert sum(shares) == min(cores, sum(claims)), "no core is idle, none has two"
    for share, claim in zip(shares, claims, strict=True):
        if share < claim:
            assert share >= max(shares) - 1, "who wants more has as much as anybody"


SMALL = {"a": 10, "b": 10, "c": 10}


def machine(cores: int = 8, parallel: int = 1, **threads: Any) -> World:
    """A world with these models loaded, which say how many threads they compute with."""
    world = World(SMALL)
    world.parallel = parallel
    for model, said in threads.items():
        world.load(model)
        world.ready(model, **({} if said is None else {"threads": said}))
    world.configure(cores=cores)
    return world


def test_one_at_work_has_them_all_and_is_told_nothing() -> None:
    world = machine(a=8, b=8)
    world.reply(world.ask("a"))
    world.reply(world.ask("b"))
    assert world.told == []


def test_two_at_work_share_and_the_one_that_stays_has_them_back() -> None:
    world = machine(a=8, b=8)
    first = world.ask("a")
    second = world.ask("b")
    assert world.told == [("a", 4), ("b", 4)]
    world.reply(second)
    assert world.told[2:] == [("a", 8)]
    world.ask("b")
    assert world.told[3:] == [("a", 4)], "b was told before, and has been idle since"
    world.reply(first)
    assert world.told[4:] == [("b", 8)]


def test_more_requests_of_one_model_change_nothing() -> None:
    world = machine(a=8, b=8, parallel=4)
    world.ask("a")
    world.ask("b")
    told = list(world.told)
    world.reply(world.ask("a"))
    assert world.told == told


def test_what_dies_or_leaves_gives_its_share_back() -> None:
    world = machine(a=8, b=8, c=8)
    for model in SMALL:
        world.ask(model)
    assert world.told[-3:] == [("a", 2), ("b", 3), ("c", 3)]
    world.die("c")
    assert world.told[-2:] == [("a", 4), ("b", 4)]
    world.unload("b", force=True)
    assert world.told[-1] == ("a", 8)


def test_what_was_asked_for_by_number_is_left_alone_and_counted() -> None:
    world = World(SMALL)
    world.load("a", load_options={"threads": 6})
    world.ready("a", threads=6)
    world.load("b")
    world.ready("b", threads=8)
    world.configure(cores=8)
    world.ask("b")
    world.ask("a")
    assert world.told == [("b", 2)]


@pytest.mark.parametrize("said", [None, "many", True, 0, -1, 2.0])
def test_an_engine_that_does_not_say_is_told_nothing_and_not_counted(said: Any) -> None:
    world = machine(a=said, b=8)
    world.ask("a")
    world.ask("b")
    assert world.told == []


def test_a_small_claim_leaves_the_rest_to_others() -> None:
    world = machine(a=1, b=8)
    world.ask("a")
    world.ask("b")
    assert world.told == [("b", 7)]


def test_without_a_number_of_cores_nobody_is_told() -> None:
    world = machine(cores=0, a=8, b=8)
    world.ask("a")
    world.ask("b")
    assert world.told == []
