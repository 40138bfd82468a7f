"""What a load takes beyond what it has to have: requests at a time, a host cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Estimate
from hybridd.core.plan import HOST_CACHE_SHARE, MIN_HOST_CACHE_BYTES, Need
from tests.core.world import World


class Roomy(World):
    """A world whose models take up to four requests at a time, of 10 each beside their size."""

    def need(self, model: str) -> Need:
        def estimate(options: Mapping[str, Any]) -> Estimate:
            parallel = options["parallel"]
            cache = 10 * options["kv_cells"] // 8192
            return Estimate(self.sizes[model], cache, 0, 0, options["context_length"], parallel)

        return Need(model, estimate, context_length=8192, auto_parallel=4)


MODELS = {"a": 30, "b": 30, "c": 30}


def test_as_many_as_have_room() -> None:
    for room, parallel in ((1000, 4), (70, 4), (69, 2), (50, 2), (49, 1), (40, 1)):
        world = Roomy(MODELS, room=room)
        world.load("a")
        assert world.worker("a").wanted["parallel"] == parallel


def test_a_loaded_model_stays_rather_than_make_room_for_more_at_a_time() -> None:
    world = Roomy(MODELS, room=100)
    world.load("a", load_options={"parallel": 1})
    world.ready("a")
    world.load("b")
    assert world.state("a") == "ready"
    assert world.worker("b").wanted["parallel"] == 2, "60 are left, and three is not tried"


def test_after_a_model_left_as_many_as_have_room_then() -> None:
    world = Roomy(MODELS, room=100)
    world.load("a")
    world.ready("a")
    assert world.worker("a").size == 70
    world.load("b")
    assert world.state("a") == "stopping", "not even one request of b has room beside it"
    world.gone("a")
    assert world.worker("b").wanted["parallel"] == 4


def test_no_more_leave_than_one_request_needs() -> None:
    world = Roomy(MODELS, room=100)
    for model in ("a", "b"):
        world.load(model, load_options={"parallel": 1})
        world.ready(model)
    world.load("c")
    assert (world.state("a"), world.state("b")) == ("stopping", "ready")
    world.gone("a")
    assert world.worker("c").wanted["parallel"] == 2


def test_a_wish_for_fewer_at_a_time_never_reloads() -> None:
    world = Roomy(MODELS, room=100)
    world.load("a")
    world.ready("a")
    for parallel in (1, 2, 3, 4, "auto"):
        assert world.ends[world.load("a", load_options={"parallel": parallel})] == "ok"
    world.load("a", load_options={"parallel": 5})
    assert world.state("a") == "stopping"


MIB = 1024 * 1024
# Of the models below one fits into it beside another, and both with their caches.
ROOM = 2000 * MIB


class Caching(World):
    """A world whose engines keep states in main memory."""

    def need(self, model: str) -> Need:
        def estimate(options: Mapping[str, Any]) -> Estimate:
            return Estimate(self.sizes[model], 0, 0, 0, options["context_length"], 1)

        return Need(model, estimate, context_length=8192, host_cache=200 * MIB)


SIZES = {"a": 400 * MIB, "b": 400 * MIB, "big": 1500 * MIB, "all": ROOM}


def test_a_host_cache_is_reserved_with_the_model() -> None:
    world = Caching(SIZES, room=ROOM)
    world.load("a")
    assert world.worker("a").size == 600 * MIB
    world.load("b")
    left = ROOM - 600 * MIB - 400 * MIB
    assert world.worker("b").size == 400 * MIB + min(200 * MIB, left // HOST_CACHE_SHARE)


def test_a_load_that_leaves_no_room_has_no_host_cache() -> None:
    world = Caching(SIZES, room=ROOM)
    world.load("all")
    assert world.worker("all").size == ROOM


def test_a_cache_does_not_take_the_place_that_another_load_waits_for() -> None:
    world = Caching(SIZES, room=ROOM)
    world.load("a")
    world.ready("a")
    running = world.ask("a")
    world.load("big")
    assert world.state("big") is None, "600 MiB are taken by a model that is busy"
    small = HOST_CACHE_SHARE * MIN_HOST_CACHE_BYTES + 300 * MIB
    world.sizes["small"] = small
    world.load("small")
    assert world.state("small") == "starting", "big takes 1500 of the 2000 MiB"
    left = ROOM - 1500 * MIB - small
    assert world.worker("small").size == small + left // HOST_CACHE_SHARE
    world.reply(running)
    world.gone("a")
    assert world.state("big") == "starting", "its place was kept"
