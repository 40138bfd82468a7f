"""Models on several devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.devices import CPU
from hybridd.core.model import Estimate, Spread
from hybridd.core.plan import GPU_SLACK_BYTES, Need, place
from hybridd.core.spread import budgets, shares

# 40 layers of 10 and a cache of as much; a pass needs 7, the process 5.
MODEL = Estimate(400, 400, 7, 5, 0, 1, spread=Spread(10, 1.0))
A, B, C = "cuda:0", "cuda:1", "cuda:2"


def test_the_largest_gpus_are_taken_and_no_more_than_needed() -> None:
    made = shares(MODEL, {A: 100, B: 600, C: 500}, 0)
    # What may be left over: a part with its cache (20), on the first two of them.
    assert made == {B: 600, C: 800 + 7 + 5 + 7 + 40 + 20 - 600}
    assert list(shares(MODEL, {A: 350, B: 350, C: 350}, 0) or {}) == [A, B, C]


def test_the_rest_goes_to_main_memory_and_its_cache_to_the_first_gpu() -> None:
    made = shares(MODEL, {A: 550}, 1000)
    assert made is not None
    on_gpu = budgets(MODEL, made)
    assert on_gpu == {A: 550 - 7 - 5 - 400 - 20}
    assert made == {A: 550, CPU: 400 - (on_gpu[A] - 20)}
    assert shares(MODEL, {A: 550}, made[CPU] - 1) is None


def test_no_room() -> None:
    assert shares(MODEL, {}, 10_000) is None
    assert shares(MODEL, {A: 400}, 10_000) is None, "no room for the cache"
    assert shares(MODEL, {A: 300, B: 300}, 0) is None
    assert shares(replace(MODEL, spread=None), {A: 600, B: 600}, 1000) is None


ROOMS = some.lists(some.integers(0, 1500), max_size=4).map(
    lambda sizes: {f"cuda:{i}": size for i, size in enumerate(sizes)}
)


@given(
    ROOMS, some.integers(0, 1500), some.integers(1, 900), some.integers(0, 900),
    some.integers(1, 90), some.integers(0, 40),
)  # fmt: skip
def test_every_byte_has_a_place(
    rooms: dict[str, int], memory: int, weights: int, cache: int, largest: int, fixed: int
) -> None:
    rate = cache / max(1, weights - 2 * largest)
    estimate = Estimate(
        weights, cache, fixed, fixed, 0, 1, spread=Spread(min(largest, weights), rate)
    )
    made = shares(estimate, rooms, memory)
    if made is None:
        return
    available = {**rooms, CPU: memory}
    assert all(0 < size <= available[device] for device, size in made.items())
    assert list(made) == [device for device in available if device in made], "in the driver's order"
    assert sum(made.values()) >= weights
    most = budgets(estimate, made)
    assert estimate.spread is not None
    # Filled part by part, in order, each device up to a part (the first: two) below its budget.
    left = weights
    for i, (gpu, budget) in enumerate(most.items()):
        taken = min(left, budget - (2 if i == 0 else 1) * estimate.spread.largest_bytes)
        assert taken >= 0
        needed = taken + fixed + (taken * rate if CPU not in made or i else cache)
        assert needed <= made[gpu] + 1
        left -= taken
    assert left <= made.get(CPU, 0) + len(most)


def need(weights: int, **more: Any) -> Need:
    def estimate(options: Mapping[str, Any]) -> Estimate:
        return Estimate(weights, 0, 0, 0, 0, 1, spread=Spread(weights // 40, 0.0))

    return Need("m", estimate, **{"gpu": True, **more})


def test_a_plan_spreads_only_what_no_gpu_has_room_for() -> None:
    unit = 4 * GPU_SLACK_BYTES
    available = {CPU: 10 * unit, A: 2 * unit, B: 2 * unit}
    options = {"context_length": 8}
    assert list(place(need(unit), options, available).placement) == [A]
    two = place(need(3 * unit), options, available)
    assert list(two.placement) == [A, B]
    assert two.load_options["device"] == A
    assert two.on_gpu_alone
    three = place(need(4 * unit), options, available)
    assert list(three.placement) == [A, B, CPU]
    assert not three.on_gpu_alone
    assert list(place(need(3 * unit), {**options, "device": CPU}, available).placement) == [CPU]
    assert not place(need(3 * unit), {**options, "device": A}, available).fits
    assert list(place(need(3 * unit, gpu=False), options, available).placement) == [CPU]
