"""What a load needs and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.core.model import Estimate
from hybridd.core.plan import (
    DEFAULT_CONTEXT,
    GPU_SLACK_BYTES,
    HOST_CACHE_SHARE,
    MIN_AUTO_CONTEXT,
    MIN_HOST_CACHE_BYTES,
    Need,
    fit,
    largest_context,
    place,
    settle,
    with_host_cache,
)

GPU = "cuda:0"
GIB = 1024**3


def need(weights: int = 100, per_token: int = 1, context: int | None = 32768, **more: Any) -> Need:
    def estimate(options: Mapping[str, Any]) -> Estimate:
        length = options["context_length"]
        parallel = options.get("parallel", 1)
        cells = options.get("kv_cells", length * parallel)
        return Estimate(weights, cells * per_token, 10, 5, length, parallel)

    return Need("m", estimate, context_length=context, **{"auto_context": 8192, **more})


def test_auto_takes_the_models_own_context_up_to_the_cap() -> None:
    assert fit(need(), {}, {CPU: 10**9}, {}).load_options["context_length"] == 8192
    small = fit(need(context=2048), {}, {CPU: 10**9}, {})
    assert small.load_options["context_length"] == 2048
    unknown = fit(need(context=None), {"context_length": "auto"}, {CPU: 10**9}, {})
    assert unknown.load_options["context_length"] == 8192


def test_what_was_asked_for_is_taken_as_it_is() -> None:
    made = fit(need(), {"context_length": 100, "parallel": 2, "threads": 3}, {CPU: 10**9}, {})
    assert made.load_options == {
        "context_length": 100, "parallel": 2, "threads": 3, "kv_cells": 200,
    }  # fmt: skip
    assert made.placement == {CPU: 100 + 200 + 15}
    fewer_cells = {"context_length": 100, "parallel": 2, "kv_cells": 150}
    made = fit(need(), fewer_cells, {CPU: 10**9}, {})
    assert made.load_options == fewer_cells
    assert made.placement == {CPU: 100 + 150 + 15}


def test_auto_shrinks_only_when_the_whole_machine_has_no_room() -> None:
    now, later = {CPU: 1000}, {CPU: 10**6}
    waits = fit(need(), {}, now, later)
    assert not waits.fits
    assert waits.load_options["context_length"] == 8192, "the others leave: it waits for all of it"
    shrunk = fit(need(), {}, now, now)
    assert shrunk.fits
    assert shrunk.load_options["context_length"] == 885
    assert sum(shrunk.placement.values()) == 1000


def test_auto_shrinks_to_what_will_fit_and_waits_for_that() -> None:
    made = fit(need(), {}, {CPU: 300}, {CPU: 1000})
    assert not made.fits
    assert made.load_options["context_length"] == 885
    assert made.max_context_length == 885


def test_auto_never_shrinks_below_use() -> None:
    room = 115 + MIN_AUTO_CONTEXT
    assert fit(need(), {}, {CPU: room}, {CPU: room}).fits
    assert not fit(need(), {}, {CPU: room - 1}, {CPU: room - 1}).fits


def test_an_explicit_context_never_shrinks() -> None:
    made = fit(need(), {"context_length": 2000}, {CPU: 1000}, {CPU: 1000})
    assert not made.fits
    assert made.load_options["context_length"] == 2000
    assert made.max_context_length == 885
    assert made.reason is not None
    assert "it needs 2.1 kB" in made.reason


def test_no_context_fits_where_the_weights_do_not() -> None:
    made = fit(need(weights=2000), {}, {CPU: 1000}, {CPU: 1000})
    assert (made.fits, made.max_context_length) == (False, 0)


@given(
    some.integers(0, 10**6), some.integers(0, 50), some.integers(1, 10**5), some.integers(0, 10**7)
)
def test_the_largest_context_fits_and_one_more_does_not(
    weights: int, per_token: int, context: int, room: int
) -> None:
    made = need(weights, per_token, context)
    most = largest_context(made, {}, {CPU: room})

    def fits(length: int) -> bool:
        return place(made, {"context_length": length}, {CPU: room}).fits

    assert 0 <= most <= context
    assert most == 0 or fits(most)
    assert most == context or not fits(most + 1)


@given(
    some.integers(0, 2000), some.integers(0, 3), some.integers(-100, 3000),
    some.integers(0, 3000), some.sampled_from(["auto", 100, 3000]),
)  # fmt: skip
def test_a_plan_that_fits_stays_within_what_is_available(
    weights: int, per_token: int, now: int, more: int, context: Any
) -> None:
    made = fit(need(weights, per_token), {"context_length": context}, {CPU: now}, {CPU: now + more})
    if made.fits:
        assert 0 <= sum(made.placement.values()) <= now
        assert sum(made.placement.values()) == made.estimate.reserved_bytes
    assert made.to_wire()["free"] == [{"device": CPU, "bytes": max(0, now)}]


# -------------------------------------------------------------------- requests at a time

# The weights and what goes with them take 115 bytes, a request of the full context 8192.
ONE = 115 + 8192
FOUR = 115 + 4 * 8192


def served(room: int, later: int | None = None, **wanted: Any) -> tuple[int, int, bool]:
    """Parallel and context length of a plan, and whether it fits now."""
    made = fit(need(auto_parallel=4), wanted, {CPU: room}, {CPU: room if later is None else later})
    options = made.load_options
    return options["parallel"], options["context_length"], made.fits


@pytest.mark.parametrize(
    ("room", "parallel"),
    [(10**6, 4), (FOUR, 4), (FOUR - 1, 2), (ONE + 8192, 2), (ONE + 8191, 1), (ONE, 1)],
)
def test_requests_at_a_time_go_before_the_context(room: int, parallel: int) -> None:
    assert served(room) == (parallel, 8192, True)
    assert served(room, parallel="auto") == (parallel, 8192, True)


def test_nobody_leaves_for_more_requests_at_a_time() -> None:
    assert served(ONE, later=10**6) == (1, 8192, True)
    # What has to leave is what one request needs; the plan after that takes what has room.
    assert served(ONE - 1, later=10**6) == (1, 8192, False)


def test_the_context_goes_only_when_one_request_has_no_room() -> None:
    assert served(ONE - 1) == (1, 8191, True)
    assert served(ONE - 1, context_length=8192) == (1, 8192, False)
    assert served(1000, parallel=2) == (2, 8192, False), "442 tokens each are of no use"
    assert served(2000, parallel=2) == (2, 942, True)


def test_requests_at_a_time_that_were_asked_for_stay() -> None:
    assert served(ONE, parallel=3) == (3, 2730, True)
    assert served(ONE, parallel=3, context_length=8192) == (3, 8192, False)
    assert served(10**6, parallel=9) == (9, 8192, True)


@pytest.mark.parametrize(("auto", "tried"), [(1, {1}), (3, {3, 1}), (8, {8, 4, 2, 1})])
def test_fewer_is_half_as_many(auto: int, tried: set[int]) -> None:
    rooms = range(ONE, 115 + auto * 8192 + 1, 1024)
    made = {fit(need(auto_parallel=auto), {}, {CPU: room}, {}).load_options["parallel"]
            for room in [*rooms, 10**6]}  # fmt: skip
    assert made == tried


def test_cells_that_were_given_bound_an_automatic_context() -> None:
    assert settle(need(auto_parallel=4), {"kv_cells": 1000}) == {
        "kv_cells": 1000, "context_length": 1000, "parallel": 4,
    }  # fmt: skip
    made = fit(need(auto_parallel=4), {"kv_cells": 1000}, {CPU: 10**6}, {})
    assert (made.estimate.kv_cache_bytes, made.max_context_length) == (1000, 1000)


def test_the_cap_of_an_automatic_context() -> None:
    assert settle(need(auto_context=500), {})["context_length"] == 500
    assert settle(need(auto_context=500), {"context_length": 600})["context_length"] == 600
    assert settle(need(auto_context=0), {})["context_length"] == 32768, "the model's own"
    unknown = need(auto_context=0, context=None)
    assert settle(unknown, {})["context_length"] == DEFAULT_CONTEXT
    made = fit(need(auto_context=0), {}, {CPU: 20_115}, {CPU: 20_115})
    assert (made.load_options["context_length"], made.fits) == (20_000, True)


@given(
    some.integers(0, 2000), some.integers(0, 3), some.integers(0, 200_000),
    some.integers(0, 200_000), some.integers(1, 9), some.sampled_from(["auto", 100, 3000]),
    some.sampled_from(["auto", 1, 3]),
)  # fmt: skip
def test_more_room_never_gives_less(
    weights: int, per_token: int, now: int, more: int, auto: int, context: Any, parallel: Any
) -> None:
    wanted = {"context_length": context, "parallel": parallel}
    made = need(weights, per_token, auto_parallel=auto)
    small = fit(made, wanted, {CPU: now}, {CPU: now})
    large = fit(made, wanted, {CPU: now + more}, {CPU: now + more})
    assert small.fits <= large.fits
    if small.fits:
        for name in ("context_length", "parallel", "kv_cells"):
            assert small.load_options[name] <= large.load_options[name]
    for plan in (small, large):
        for name, value in wanted.items():
            assert value in ("auto", plan.load_options[name])


# -------------------------------------------------------------------- the host cache


@pytest.mark.parametrize(
    ("wanted", "spare", "size"),
    [
        (GIB, 100 * GIB, GIB),
        (GIB, HOST_CACHE_SHARE * GIB, GIB),
        (GIB, 2 * GIB, 2 * GIB // HOST_CACHE_SHARE),
        (GIB, HOST_CACHE_SHARE * MIN_HOST_CACHE_BYTES, MIN_HOST_CACHE_BYTES),
        (GIB, HOST_CACHE_SHARE * MIN_HOST_CACHE_BYTES - 1, 0),
        (GIB, 0, 0),
        (GIB, -5, 0),
        (MIN_HOST_CACHE_BYTES - 1, 100 * GIB, 0),
        (0, 100 * GIB, 0),
    ],
)
def test_the_host_cache_has_a_part_of_what_is_left(wanted: int, spare: int, size: int) -> None:
    planned = place(need(), options(), {CPU: GIB})
    made = with_host_cache(need(host_cache=wanted), planned, spare)
    assert made.host_cache_bytes == size
    assert made.placement == {CPU: planned.placement[CPU] + size}, "it is reserved"
    assert made.estimate.reserved_bytes == sum(made.placement.values())
    assert made.load_options == planned.load_options


def test_no_host_cache_for_what_does_not_fit() -> None:
    made = place(need(), options(), {CPU: 0})
    assert with_host_cache(need(host_cache=GIB), made, 100 * GIB) == made


def test_a_host_cache_does_not_make_a_model_on_a_gpu_one_of_the_cpu() -> None:
    whole = place(gpu_need(), options(), ROOMY)
    cached = with_host_cache(gpu_need(host_cache=GIB), whole, 100 * GIB)
    assert cached.placement == {**whole.placement, CPU: GIB}
    assert whole.on_gpu_alone
    assert cached.on_gpu_alone
    assert cached.load_options["device"] == GPU
    split = place(gpu_need(), options(gpu_layers=5), ROOMY)
    assert not with_host_cache(gpu_need(host_cache=GIB), split, 100 * GIB).on_gpu_alone
    assert not place(need(), options(), {CPU: GIB}).on_gpu_alone


# -------------------------------------------------------------------- GPUs

ROOMY = {CPU: 10 * GIB, GPU: 4 * GIB}


def gpu_need(weights: int = GIB, **more: Any) -> Need:
    return need(weights, 1024, gpu=True, **{"layers": 10, **more})


def options(**more: Any) -> dict[str, Any]:
    return {"context_length": 1024, **more}


def test_a_model_goes_whole_to_the_first_gpu_with_room() -> None:
    available = {CPU: 10 * GIB, GPU: GIB, "cuda:1": 4 * GIB}
    made = place(gpu_need(layers=None), options(), available)
    assert list(made.placement) == ["cuda:1"]
    assert made.load_options["device"] == "cuda:1"
    made = place(gpu_need(), options(), ROOMY)
    assert (list(made.placement), made.gpu_layers) == ([GPU], 10)


def test_some_room_stays_free_on_a_gpu() -> None:
    made = gpu_need(layers=None)
    total = place(made, options(), ROOMY).estimate.reserved_bytes
    assert list(place(made, options(), {CPU: 0, GPU: total + GPU_SLACK_BYTES}).placement) == [GPU]
    assert not place(made, options(), {CPU: 0, GPU: total + GPU_SLACK_BYTES - 1}).fits


def test_as_many_layers_as_fit() -> None:
    made = place(gpu_need(), options(), {CPU: 10 * GIB, GPU: GPU_SLACK_BYTES + GIB // 2})
    assert set(made.placement) == {CPU, GPU}
    assert made.gpu_layers == 4
    assert made.load_options["gpu_layers"] == 4
    assert made.placement[GPU] <= GIB // 2
    assert sum(made.placement.values()) == made.estimate.reserved_bytes
    assert made.to_wire()["placement"][0]["layers"] == 4


def test_a_number_of_layers_is_taken_at_its_word() -> None:
    one = place(gpu_need(), options(gpu_layers=1), ROOMY)
    assert one.gpu_layers == 1, "one layer, though all of them had room"
    assert set(one.placement) == {CPU, GPU}
    assert place(gpu_need(), options(gpu_layers=1.0), ROOMY).gpu_layers == 10
    assert place(gpu_need(), options(gpu_layers=0.5), ROOMY).gpu_layers == 5
    assert place(gpu_need(), options(gpu_layers=99), ROOMY).gpu_layers == 10
    assert list(place(gpu_need(), options(gpu_layers=0), ROOMY).placement) == [CPU]
    tight = {CPU: 10 * GIB, GPU: GPU_SLACK_BYTES + GIB // 2}
    for layers in (8, 1.0, 0.8):
        assert not place(gpu_need(), options(gpu_layers=layers), tight).fits, layers
    # Without a GPU to use, there is nothing to be asked for.
    assert place(gpu_need(), options(gpu_layers=8), {CPU: 10 * GIB}).fits


@pytest.mark.parametrize(
    ("room", "parallel", "layers"), [(40, 4, 10), (13, 2, 10), (11, 1, 10), (6, 2, 5), (4.5, 1, 4)]
)
def test_no_layer_leaves_the_gpu_for_more_requests_at_a_time(
    room: float, parallel: int, layers: int
) -> None:
    # In tenths of a GiB: the weights take ten, a request's context one.
    tenth = GIB // 10
    made = need(10 * tenth, tenth // 1024, gpu=True, layers=10, auto_parallel=4)
    available = {CPU: 10 * GIB, GPU: GPU_SLACK_BYTES + int(room * tenth)}
    planned = fit(made, {"context_length": 1024}, available, available)
    assert (planned.load_options["parallel"], planned.gpu_layers) == (parallel, layers)


def test_an_engine_that_cannot_split_takes_all_or_nothing() -> None:
    made = gpu_need(layers=None)
    assert list(place(made, options(gpu_layers=8), ROOMY).placement) == [GPU]
    tight = {CPU: 10 * GIB, GPU: GPU_SLACK_BYTES + GIB // 2}
    assert list(place(made, options(), tight).placement) == [CPU]


def test_a_device_that_was_named() -> None:
    assert list(place(gpu_need(), options(device=CPU), ROOMY).placement) == [CPU]
    assert list(place(gpu_need(), options(device=GPU), ROOMY).placement) == [GPU]
    full = {CPU: 10 * GIB, GPU: 0}
    assert not place(gpu_need(), options(device=GPU), full).fits
    missing = place(gpu_need(), options(device="cuda:7"), ROOMY)
    assert missing.reason == "there is no device 'cuda:7'"
    assert missing.hint == "there are cpu, cuda:0"
    unable = place(need(gpu=False), options(device=GPU), ROOMY)
    assert unable.reason is not None
    assert "cannot use the device" in unable.reason


def test_without_a_gpu_the_options_say_nothing_of_one() -> None:
    made = place(need(), options(), {CPU: GIB})
    assert made.load_options == options()
    assert made.to_wire()["placement"] == [{"device": CPU, "bytes": made.estimate.reserved_bytes}]


def test_the_plan_on_the_wire() -> None:
    made = fit(need(), {"context_length": 1000}, {CPU: 5000}, {CPU: 5000}).to_wire()
    assert made["estimate"] == {
        "weights_bytes": 100,
        "kv_cache_bytes": 1000,
        "compute_bytes": 10,
        "overhead_bytes": 5,
        "reserved_bytes": 1115,
        "resident_bytes": 1105,
        "source": "formula",
    }
    assert (made["fits"], made["max_context_length"], made["evict"]) == (True, 4885, [])
    assert "reason" not in made


# -------------------------------------------------------------------- devices


def device(**more: int) -> Device:
    sizes = {"total_bytes": 100, "free_bytes": 50, "limit_bytes": 80, **more}
    return Device(CPU, "cpu", "CPU", **sizes)


@pytest.mark.parametrize(
    ("made", "capacity"),
    [
        (device(), 50),
        (device(hybridd_bytes=20), 70),
        (device(hybridd_bytes=90), 80),
        (device(free_bytes=0), 0),
        (device(limit_bytes=0), 0),
    ],
)
def test_the_capacity_of_a_device(made: Device, capacity: int) -> None:
    assert made.capacity_bytes == capacity


def test_what_is_available_beside_reservations() -> None:
    snapshot = Snapshot((device(), Device(GPU, "cuda", "x", 10, 10, 10)))
    assert snapshot.available([{CPU: 20}, {CPU: 40, GPU: 4}, {"gone": 5}]) == {CPU: -10, GPU: 6}
    assert [d.id for d in snapshot.gpus] == [GPU]
    assert "uuid" not in device().to_wire()
