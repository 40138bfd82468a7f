"""Which idle models make room."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.eviction import Victim, choose


def victim(name: str, size: int, last_used: float) -> Victim:
    return Victim(name, {"cpu": size}, last_used)


def needs(size: int) -> Callable[[Iterable[Victim]], bool]:
    def enough(gone: Iterable[Victim]) -> bool:
        return sum(v.frees["cpu"] for v in gone) >= size

    return enough


def names(chosen: list[Victim] | None) -> list[str] | None:
    return None if chosen is None else [v.model for v in chosen]


def test_the_least_recently_used_goes_first() -> None:
    models = [victim("new", 10, 3), victim("old", 10, 1), victim("middle", 10, 2)]
    assert names(choose(models, needs(10))) == ["old"]
    assert names(choose(models, needs(15))) == ["old", "middle"]


def test_nobody_goes_for_nothing() -> None:
    assert choose([victim("a", 10, 1)], needs(0)) == []
    assert choose([], needs(0)) == []


def test_none_when_even_all_are_not_enough() -> None:
    assert choose([victim("a", 10, 1)], needs(11)) is None
    assert choose([], needs(1)) is None


def test_a_small_one_stays_when_a_larger_alone_suffices() -> None:
    models = [victim("small", 1, 1), victim("large", 10, 2)]
    assert names(choose(models, needs(10))) == ["large"]


def test_equally_old_ones_go_by_name() -> None:
    models = [victim("b", 10, 1), victim("a", 10, 1)]
    assert names(choose(models, needs(5))) == ["a"]


@given(some.lists(some.tuples(some.integers(0, 20), some.integers(0, 5))), some.integers(0, 60))
def test_enough_and_not_one_too_many(sizes: list[tuple[int, int]], wanted: int) -> None:
    models = [victim(f"m{i}", size, used) for i, (size, used) in enumerate(sizes)]
    chosen = choose(models, needs(wanted))
    total = sum(size for size, _ in sizes)
    assert (chosen is None) == (total < wanted)
    if chosen is not None:
        assert needs(wanted)(chosen)
        for spared in chosen:
            assert not needs(wanted)([v for v in chosen if v is not spared])
