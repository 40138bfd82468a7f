"""At once, by ending idle models, by waiting for busy ones, or not at all; and whose turn it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.core.instance import Instance
from hybridd.core.lifecycle import State
from hybridd.core.model import Estimate
from hybridd.core.placing import Decision, Turns, decide, why_not
from hybridd.core.plan import Need, Plan

NUMBERS = iter(range(10_000))


def need(size: int) -> Need:
    def estimate(options: Mapping[str, Any]) -> Estimate:
        return Estimate(size, options["context_length"] // 1000, 0, 0, 0, 1)

    return Need("new", estimate, context_length=50_000, auto_context=999)


def instance(model: str, size: int, last_used: float = 0.0, **more: Any) -> Instance:
    estimate = Estimate(size, 0, 0, 0, 0, 1)
    made = Instance(
        next(NUMBERS), model, 0, Plan(model, {}, estimate, {CPU: size}, {}), {}, 300.0,
        state=State.READY, last_used=last_used,
    )  # fmt: skip
    for name, value in more.items():
        setattr(made, name, value)
    return made


def decision(
    size: int, others: list[Instance], idle: str = "", max_loaded: int = 0, **more: Any
) -> Decision:
    held = sum(i.plan.placement[CPU] for i in others)
    snapshot = Snapshot((Device(CPU, "cpu", "CPU", 100, 100 - held, 100, held),))
    return decide(
        need(size), more.pop("wanted", {}), snapshot, others,
        idle=set(idle.split()), max_loaded=max_loaded, now=10.0, **more,
    )  # fmt: skip


def test_at_once() -> None:
    made = decision(40, [instance("a", 60)])
    assert (made.victims, made.hopeless, made.plan.placement) == ([], False, {CPU: 40})
    assert made.left == {CPU: 0}


def test_by_ending_idle_ones() -> None:
    made = decision(50, [instance("a", 60, 2.0), instance("b", 30, 1.0)], idle="a b")
    assert made.victims == ["a"], "b alone is not enough, and a alone is"
    assert made.plan.evict == [{"id": "a", "frees_bytes": 60, "idle_s": 8.0}]
    assert made.left == {CPU: 20}


def test_one_that_is_on_its_way_out_counts_as_gone() -> None:
    others = [instance("a", 60, 5.0, state=State.STOPPING), instance("b", 40, 9.0)]
    assert decision(50, others, idle="b").victims == ["a"]


def test_by_waiting_for_busy_ones() -> None:
    made = decision(50, [instance("a", 60), instance("b", 40)], idle="b")
    assert made.victims is None
    assert made.wait_for == ["a"]
    assert made.left == {CPU: 10}


def test_the_ones_that_yield_already_are_chosen_again() -> None:
    others = [instance("a", 50, 9.0), instance("b", 50, 1.0)]
    assert decision(40, others).wait_for == ["b"]
    assert decision(40, others, yielding={"a"}).wait_for == ["a"]


def test_not_at_all() -> None:
    assert decision(101, []).hopeless
    assert decision(50, [instance("a", 60, pinned=True)], idle="").hopeless
    assert decision(50, [instance("a", 60, pinned=True)], idle="a").hopeless


@pytest.mark.parametrize("state", [State.DRAINING, State.STOPPING])
def test_a_pinned_one_that_leaves_does_make_room(state: State) -> None:
    made = decision(50, [instance("a", 60, pinned=True, state=state)])
    assert not made.hopeless
    assert made.leaving == ["a"]


def test_the_number_of_models_counts_as_memory_does() -> None:
    others = [instance("a", 1, 2.0), instance("b", 1, 1.0)]
    assert decision(1, others, idle="a b", max_loaded=2).victims == ["b"]
    assert decision(1, others, idle="a b", max_loaded=1).victims == ["b", "a"]
    assert decision(1, others, max_loaded=2).wait_for == ["b"]
    assert decision(1, others, max_loaded=3).victims == []
    pinned = [instance("a", 1, pinned=True)]
    assert decision(1, pinned, max_loaded=1).hopeless


def test_does_not_fit_says_what_would() -> None:
    made = decision(80, [], wanted={"context_length": 40_000})
    assert made.hopeless
    text = why_not(made.plan)
    assert "new does not fit: it needs 120 B; free: 100 B on cpu" in text
    assert "a context length of 20999 would fit" in text
    assert "no context length would fit" in why_not(decision(101, []).plan)


# -------------------------------------------------------------------- turns


def starts(size: int) -> Decision:
    estimate = Estimate(size, 0, 0, 0, 0, 1)
    return Decision(Plan("x", {}, estimate, {CPU: size}, {}), [])


def waits(left: int) -> Decision:
    return Decision(starts(1).plan, None, ["busy"], {CPU: left})


def test_without_anybody_waiting_whoever_fits_may_start() -> None:
    turns = Turns(0)
    assert turns.may_start(starts(10**6))
    assert not turns.may_start(waits(0))
    assert not turns.someone_waits


def test_beside_a_promised_place_only_what_is_left_may_be_taken() -> None:
    turns = Turns(0)
    turns.promise(waits(30), 1)
    assert turns.someone_waits
    assert not turns.may_start(starts(31))
    assert turns.may_start(starts(20))
    assert not turns.may_start(starts(11)), "the first took some of it"
    assert turns.may_start(starts(10))


def test_a_promised_place_is_one_of_the_number_too() -> None:
    turns = Turns(2)
    turns.promise(waits(1000), 1)
    assert turns.may_start(starts(1))
    assert not turns.may_start(starts(1))


def test_what_a_load_takes_beyond_its_need_is_nobody_elses() -> None:
    turns = Turns(0)
    assert turns.spare(CPU, 50) == 50, "nobody waits"
    turns.take(CPU, 1000)
    turns.promise(waits(30), 1)
    assert turns.spare(CPU, 50) == 30
    assert turns.spare(CPU, 20) == 20
    assert turns.spare("cuda:0", 20) == 0
    turns.take(CPU, 10)
    assert turns.spare(CPU, 50) == 20
    assert not turns.may_start(starts(21))
