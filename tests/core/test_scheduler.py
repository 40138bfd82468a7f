"""The scheduler's rules, one scene each; every effect goes through a world that knows the laws."""

from __future__ import annotations

import random
from math import inf

import pytest

from hybridd.core import scheduling
from hybridd.core.devices import Snapshot
from hybridd.core.model import Estimate
from hybridd.core.plan import Need
from tests.core.world import World

SMALL = {"a": 40, "b": 40, "c": 40}
SMALLS = ("s1", "s2", "s3")
BIG = {"a": 60, "b": 60, "c": 60}


# -------------------------------------------------------------------- loading


def test_a_request_loads_its_model_and_runs_once_it_is_ready() -> None:
    world = World(SMALL)
    key = world.ask("a")
    assert world.state("a") == "starting"
    assert world.running == {}
    world.ready("a")
    assert set(world.running) == {key}
    world.reply(key)
    assert world.loaded == {"a"}
    assert [s for s in world.said if s[0] == "requests"] == [
        ("requests", "queued", "a"),
        ("requests", "started", "a"),
        ("requests", "finished", "a"),
    ]
    assert [s[1] for s in world.said if s[0] == "models"] == ["queued", "loading", "loaded"]


def test_a_load_is_over_when_the_model_is_ready() -> None:
    world = World(SMALL)
    key = world.load("a")
    assert key not in world.ends
    world.ready("a")
    assert world.ends == {key: "ok"}
    assert world.jobs == {world.tickets[key]: ["queued", "loading", "done"]}
    again = world.load("a")
    assert world.ends[again] == "ok", "one that is loaded is over at once"


def test_loads_of_one_model_join() -> None:
    world = World(SMALL)
    first = world.load("a")
    world.up("a")
    second, request = world.load("a"), world.ask("a")
    assert len(world.workers) == 1
    assert world.tickets[first] == world.tickets[second]
    world.ready("a")
    assert world.ends == {first: "ok", second: "ok"}
    assert set(world.running) == {request}


def test_nothing_is_placed_without_a_reading_of_memory() -> None:
    world = World(SMALL)
    world.automatic = False
    world.load("a")
    world.load("b")
    assert world.samples == 1
    assert world.workers == {}
    world.sampled()
    assert {w.model for w in world.workers.values()} == {"a", "b"}


def test_a_reading_is_not_believed_when_a_worker_ended_meanwhile() -> None:
    world = World(BIG)
    world.ask("a")
    world.automatic = False
    world.load("b")
    assert world.samples == 1
    world.die("a")
    world.sampled()
    assert world.samples == 1, "it is read again"
    assert world.workers == {}
    world.sampled()
    assert world.state("b") == "starting"


# -------------------------------------------------------------------- options


def test_a_smaller_wish_never_reloads() -> None:
    world = World(SMALL)
    world.load("a", load_options={"context_length": 16384})
    world.ready("a")
    assert world.ends[world.load("a", load_options={"context_length": 4096})] == "ok"
    key = world.ask("a", load_options={"context_length": 16384})
    assert set(world.running) == {key}


def test_a_larger_wish_waits_behind_the_running_request_and_loads_anew() -> None:
    world = World(SMALL)
    running = world.ask("a")
    world.ready("a")
    wish = world.load("a", load_options={"context_length": 16384})
    later = world.ask("a")
    assert world.state("a") == "ready", "what runs is not disturbed"
    assert world.jobs[world.tickets[wish]] == ["queued"], "its job is there at once"
    world.reply(running)
    assert world.state("a") == "stopping"
    world.gone("a")
    assert world.worker("a").wanted["context_length"] == 16384
    world.ready("a")
    assert world.ends[wish] == "ok"
    assert set(world.running) == {later}
    assert world.jobs[world.tickets[wish]] == ["queued", "loading", "done"]


def test_a_wish_that_can_never_fit_is_refused_and_costs_nobody_the_model() -> None:
    world = World(SMALL)
    world.load("a")
    world.ready("a")
    wish = world.load("a", load_options={"context_length": 1024 * 1024})
    assert world.ends[wish] == "does_not_fit"
    assert world.jobs[world.tickets[wish]] == ["queued", "failed"]
    request = world.ask("a", load_options={"context_length": 1024 * 1024})
    assert world.ends[request] == "does_not_fit"
    assert world.state("a") == "ready"
    on = world.ask("a")
    assert set(world.running) == {on}, "it serves on"


def test_a_detached_wish_for_more_has_a_job_that_is_not_over_yet() -> None:
    world = World(SMALL)
    world.load("a")
    world.ready("a")
    wish = world.load("a", load_options={"context_length": 16384}, detached=True)
    assert world.jobs[world.tickets[wish]] == ["queued"]
    world.gone("a")
    world.ready("a")
    assert world.jobs[world.tickets[wish]] == ["queued", "loading", "done"]


def test_the_job_of_a_wish_for_more_ends_with_its_last_waiter() -> None:
    world = World(SMALL)
    running = world.ask("a")
    world.ready("a")
    wish = world.load("a", load_options={"context_length": 16384})
    world.leave(wish)
    assert world.jobs[world.tickets[wish]] == ["queued", "cancelled"]
    world.reply(running)
    assert world.state("a") == "ready", "nobody wants more any longer"


def test_the_job_of_a_wish_for_more_can_be_cancelled() -> None:
    world = World(SMALL)
    running = world.ask("a")
    world.ready("a")
    wish = world.load("a", load_options={"context_length": 16384}, detached=True)
    world.cancel_job(wish)
    assert world.ends[wish] == "cancelled"
    assert world.jobs[world.tickets[wish]] == ["queued", "cancelled"]
    world.reply(running)
    assert world.state("a") == "ready"


def test_a_load_that_waits_for_room_takes_the_larger_of_two_wishes() -> None:
    world = World(BIG)
    busy = world.ask("a")
    world.ready("a")
    small = world.load("b")
    large = world.load("b", load_options={"context_length": 16384})
    smaller = world.load("b", load_options={"context_length": 4096})
    world.reply(busy)
    world.gone("a")
    assert world.worker("b").wanted["context_length"] == 16384
    world.ready("b")
    assert {world.ends[key] for key in (small, large, smaller)} == {"ok"}


def test_auto_is_not_made_smaller_by_who_joins() -> None:
    world = World(BIG)
    busy = world.ask("a")
    world.ready("a")
    world.load("b")
    world.load("b", load_options={"context_length": 512})
    world.reply(busy)
    world.gone("a")
    assert world.worker("b").wanted["context_length"] == 8192


def test_a_wish_that_can_never_be_does_not_take_others_with_it() -> None:
    world = World(BIG)
    busy = world.ask("a")
    world.ready("a")
    huge = world.load("b", load_options={"context_length": 1024 * 1024})
    plain = world.ask("b")
    assert world.ends[huge] == "does_not_fit"
    assert plain not in world.ends
    world.reply(busy)
    world.gone("a")
    world.ready("b")
    assert set(world.running) == {plain}


def test_a_wish_that_can_never_be_costs_nobody_the_model_that_works() -> None:
    world = World(BIG)
    world.load("a")
    world.ready("a")
    huge = world.load("a", load_options={"context_length": 1024 * 1024})
    assert world.ends[huge] == "does_not_fit"
    assert world.jobs[world.tickets[huge]] == ["queued", "failed"]
    request = world.ask("a", load_options={"context_length": 1024 * 1024})
    assert world.ends[request] == "does_not_fit"
    key = world.ask("a")
    assert set(world.running) == {key}


def test_of_two_wishes_for_more_the_one_that_can_be_is_kept() -> None:
    world = World(BIG)
    running = world.ask("a")
    world.ready("a")
    huge = world.load("a", load_options={"context_length": 1024 * 1024})
    large = world.load("a", load_options={"context_length": 16384})
    world.reply(running)
    assert world.ends[huge] == "does_not_fit"
    world.gone("a")
    world.ready("a")
    assert world.ends[large] == "ok"
    assert [states[-1] for states in world.jobs.values()] == ["done", "failed", "done"]


# -------------------------------------------------------------------- leaving


def test_a_load_goes_on_when_one_of_two_leaves_and_stops_with_the_last() -> None:
    world = World(SMALL)
    first, second = world.load("a"), world.load("a")
    world.up("a")
    world.leave(first)
    assert world.state("a") == "loading"
    world.leave(second)
    assert world.state("a") == "stopping"
    assert world.jobs[world.tickets[first]] == ["queued", "loading", "cancelled"]
    world.gone("a")
    assert world.workers == {}


def test_a_load_that_waits_for_room_goes_with_its_last_waiter() -> None:
    world = World(BIG)
    world.ask("a")
    world.ready("a")
    key = world.load("b")
    world.leave(key)
    assert world.jobs[world.tickets[key]] == ["queued", "cancelled"]
    assert world.scheduler.tickets == {}


def test_a_detached_load_goes_on_without_waiters() -> None:
    world = World(SMALL)
    detached, waiting = world.load("a", detached=True), world.load("a")
    world.leave(waiting)
    assert world.state("a") == "starting"
    world.ready("a")
    assert world.ends[detached] == "ok"


def test_a_load_is_cancelled_with_everything_that_waits_for_it() -> None:
    world = World(SMALL)
    load, detached, request = world.load("a"), world.load("a", detached=True), world.ask("a")
    world.up("a")
    world.cancel_job(load)
    assert {world.ends[k] for k in (load, detached, request)} == {"cancelled"}
    assert world.state("a") == "stopping"
    after = world.load("a")
    world.gone("a")
    world.ready("a")
    assert world.ends[after] == "ok", "who comes later gets a load of their own"


def test_a_queued_load_is_cancelled() -> None:
    world = World(BIG)
    world.ask("a")
    world.ready("a")
    key = world.load("b", detached=True)
    world.cancel_job(key)
    assert world.ends[key] == "cancelled"
    assert world.scheduler.tickets == {}


def test_a_request_that_is_left_while_it_runs_is_taken_back_from_its_worker() -> None:
    world = World(SMALL)
    first, second = world.ask("a"), world.ask("a")
    world.ready("a")
    world.leave(first)
    assert second not in world.running, "its slot is free only when the worker says so"
    world.reply(first)
    assert set(world.running) == {second}


def test_a_request_that_was_left_ends_no_second_time_with_its_worker() -> None:
    world = World(SMALL)
    key = world.ask("a")
    world.ready("a")
    world.leave(key)
    world.feed(scheduling.Abandon(key))
    world.die("a")
    assert world.ends == {key: "left"}
    assert world.said.count(("requests", "finished", "a")) == 1


# -------------------------------------------------------------------- unloading


def test_unload_waits_for_running_requests() -> None:
    world = World(SMALL)
    running, queued = world.ask("a"), world.ask("a")
    world.ready("a")
    key = world.unload("a")
    assert world.state("a") == "ready"
    world.reply(running)
    assert world.state("a") == "stopping"
    assert key not in world.ends
    world.gone("a")
    assert (world.ends[key], world.freed[key]) == ("ok", 40)
    world.ready("a")
    assert set(world.running) == {queued}, "queued requests stay and load it again"


def test_unload_by_force_cancels_running_requests() -> None:
    world = World(SMALL)
    running, queued = world.ask("a"), world.ask("a")
    world.ready("a")
    key = world.unload("a", force=True)
    assert world.ends[running] == "cancelled"
    assert world.worker("a").forced
    world.gone("a")
    assert world.ends[key] == "ok"
    world.ready("a")
    assert set(world.running) == {queued}
    assert world.said.count(("requests", "finished", "a")) == 1


def test_force_shortens_an_end_that_is_under_way() -> None:
    world = World(SMALL)
    world.load("a")
    world.ready("a")
    polite = world.unload("a")
    assert not world.worker("a").forced
    forced = world.unload("a", force=True)
    assert world.worker("a").forced
    world.gone("a")
    assert (world.ends[polite], world.ends[forced]) == ("ok", "ok")


def test_unload_stops_a_load_but_keeps_its_requests() -> None:
    world = World(SMALL)
    load, request = world.load("a"), world.ask("a")
    world.up("a")
    key = world.unload("a")
    assert world.ends == {load: "cancelled"}
    world.gone("a")
    assert world.ends[key] == "ok"
    world.ready("a")
    assert set(world.running) == {request}


def test_unload_of_what_is_not_loaded_is_over_at_once() -> None:
    world = World(SMALL)
    key = world.unload("a")
    assert (world.ends[key], world.freed[key]) == ("ok", 0)


def test_an_unload_that_nobody_waits_for_any_more_is_called_off() -> None:
    world = World(SMALL)
    running = world.ask("a")
    world.ready("a")
    first, second = world.unload("a"), world.unload("a")
    wish = world.load("a")
    assert wish not in world.ends
    world.leave(first)
    assert wish not in world.ends
    world.leave(second)
    assert world.ends[wish] == "ok"
    assert world.jobs[world.tickets[wish]] == ["queued", "done"]
    world.reply(running)
    assert world.state("a") == "ready"


# -------------------------------------------------------------------- keepalive


def test_the_clock_starts_at_the_end_of_the_last_request() -> None:
    world = World(SMALL, keepalive=100.0)
    key = world.ask("a")
    world.ready("a")
    assert world.scheduler.next_deadline() == inf, "busy: nothing runs out"
    world.now += 500
    world.reply(key)
    assert world.scheduler.next_deadline() == world.now + 100
    world.tick(99)
    assert world.state("a") == "ready"
    world.tick(1)
    assert world.state("a") == "stopping"


def test_the_clock_starts_at_ready_without_a_request() -> None:
    world = World(SMALL, keepalive=100.0)
    world.load("a")
    world.now += 500
    world.ready("a")
    assert world.scheduler.next_deadline() == world.now + 100


def test_a_keepalive_of_zero_unloads_at_once_but_not_before_the_request() -> None:
    world = World(SMALL)
    key = world.ask("a", keepalive=0.0)
    world.ready("a")
    assert set(world.running) == {key}
    world.reply(key)
    assert world.state("a") == "stopping"


def test_for_ever_and_pinned_never_run_out() -> None:
    world = World(SMALL)
    world.load("a", keepalive=inf)
    world.load("b", keepalive=5.0, pin=True)
    world.ready("a")
    world.ready("b")
    assert world.scheduler.next_deadline() == inf
    world.tick(1e9)
    assert world.loaded == {"a", "b"}
    world.load("b", pin=False)
    world.tick(6)
    assert world.loaded == {"a"}


def test_the_last_keepalive_that_was_named_counts() -> None:
    world = World(SMALL)
    world.load("a", keepalive=10.0)
    world.ready("a")
    key = world.ask("a", keepalive=50.0)
    world.reply(key)
    assert world.scheduler.next_deadline() == world.now + 50
    world.reply(world.ask("a"))
    assert world.scheduler.next_deadline() == world.now + 50, "naming none keeps it"


def test_the_last_named_counts_also_when_a_load_is_answered_first() -> None:
    world = World(SMALL)
    request = world.ask("a", keepalive=10.0)
    world.load("a", keepalive=50.0)
    world.ready("a")
    world.reply(request)
    assert world.scheduler.next_deadline() == world.now + 50


def test_a_changed_default_applies_to_who_named_none() -> None:
    world = World(SMALL)
    world.load("a")
    world.load("b", keepalive=70.0)
    world.ready("a")
    world.ready("b")
    world.configure(keepalive=30.0)
    assert world.scheduler.next_deadline() == world.now + 30
    world.tick(30)
    assert world.loaded == {"b"}


# -------------------------------------------------------------------- smart switching


def test_without_smart_switching_a_request_finds_its_model_or_fails() -> None:
    world = World(SMALL)
    assert world.ends[world.ask("a", switch=False)] == "not_loaded"
    world.load("a")
    joined = world.ask("a", switch=False)
    world.ready("a")
    assert set(world.running) == {joined}
    queued = world.ask("a", switch=False)
    world.unload("a", force=True)
    world.gone("a")
    assert world.ends[queued] == "not_loaded", "it may not cause a load later either"
    assert world.workers == {}


# -------------------------------------------------------------------- failures


def test_a_refused_load_ends_everybody_with_its_reason() -> None:
    world = World(SMALL)
    load, request = world.load("a"), world.ask("a")
    world.up("a")
    world.refuse("a")
    assert world.ends == {}, "its memory is not back yet"
    world.gone("a")
    assert world.ends == {load: "load_failed", request: "load_failed"}
    assert world.jobs[world.tickets[load]] == ["queued", "loading", "failed"]


def test_a_refusal_after_the_load_was_cancelled_changes_nothing() -> None:
    world = World(SMALL)
    load = world.load("a")
    world.up("a")
    world.cancel_job(load)
    world.refuse("a")
    after = world.load("a")
    world.gone("a")
    assert world.jobs[world.tickets[load]] == ["queued", "loading", "cancelled"]
    world.ready("a")
    assert world.ends[after] == "ok"


def test_a_death_during_the_load_ends_everybody_who_waits() -> None:
    world = World(SMALL)
    load, request = world.load("a"), world.ask("a")
    world.up("a")
    world.die("a")
    assert world.ends == {load: "worker_died", request: "worker_died"}
    assert world.workers == {}, "nobody wants it any more"


def test_a_death_ends_the_running_request_and_the_queued_ones_load_it_again() -> None:
    world = World(SMALL)
    running, queued = world.ask("a"), world.ask("a")
    world.ready("a")
    world.die("a")
    assert world.ends == {running: "worker_died"}
    assert world.said.count(("requests", "finished", "a")) == 1
    world.ready("a")
    assert set(world.running) == {queued}


def test_a_reply_and_a_gone_of_a_worker_that_is_no_more_are_ignored() -> None:
    world = World(SMALL)
    key = world.ask("a")
    world.ready("a")
    number = world.worker("a").number
    world.die("a")
    for event in (
        scheduling.RequestEnded(number, key),
        scheduling.WorkerGone(number),
        scheduling.WorkerReady(number, {}),
        scheduling.WorkerUp(number),
    ):
        world.feed(event)
    assert world.ends == {key: "worker_died"}
    assert world.workers == {}


def test_what_keeps_dying_is_left_alone_for_a_while() -> None:
    world = World(SMALL)
    for _ in range(3):
        world.ask("a")
        world.die("a")
    assert world.ends[world.ask("a")] == "quarantined"
    assert world.ends[world.load("a")] == "quarantined"
    world.tick(1.0)
    key = world.load("a")
    assert key not in world.ends
    world.die("a")
    assert world.ends[world.load("a")] == "quarantined"
    world.tick(1.5)
    assert world.ends[world.load("a")] == "quarantined", "each time longer"
    world.feed(scheduling.FilesChanged("a"))
    world.load("a")
    assert world.state("a") == "starting", "other files are another matter"


def test_queued_requests_do_not_go_on_killing_a_quarantined_model() -> None:
    world = World(SMALL)
    keys = [world.ask("a") for _ in range(6)]
    for _ in range(3):
        world.ready("a")
        world.die("a")
    ends = [world.ends[key] for key in keys]
    assert ends == ["worker_died"] * 3 + ["quarantined"] * 3
    found = {id(world.errors[key]) for key in keys[3:]}
    assert len(found) == 3, "each has an error of its own"


def test_a_death_of_what_has_worked_does_not_count_nor_one_from_outside() -> None:
    world = World(SMALL)
    for _ in range(5):
        key = world.ask("a")
        world.ready("a")
        world.reply(key)
        world.die("a")
    for _ in range(5):
        world.ask("a")
        world.die("a", counts=False)
    world.ask("a")
    assert world.state("a") == "starting"


def test_an_estimate_that_fails_refuses_the_load_and_nothing_else() -> None:
    world = World(SMALL)

    def estimate(options: object) -> Estimate:
        raise ZeroDivisionError

    world.items[99] = scheduling.Item(99, "odd", load=True)
    world.feed(scheduling.Enqueue(world.items[99], Need("odd", estimate)))
    assert world.ends[99] == "load_failed"
    world.load("a")
    assert world.state("a") == "starting"


# -------------------------------------------------------------------- room


def test_the_least_recently_used_idle_model_makes_room() -> None:
    world = World(SMALL)
    for model in ("a", "b"):
        world.load(model)
        world.ready(model)
        world.now += 1
    world.reply(world.ask("a"))
    world.load("c")
    assert world.state("b") == "stopping"
    assert world.state("c") is None, "nothing starts before the memory is back"
    world.gone("b")
    assert world.state("c") == "starting"
    assert world.state("a") == "ready"


def test_a_busy_model_is_waited_for() -> None:
    world = World(BIG)
    key = world.ask("a")
    world.ready("a")
    world.load("b")
    assert world.state("a") == "ready"
    world.tick(10_000)
    assert world.state("a") == "ready"
    world.reply(key)
    world.gone("a")
    assert world.state("b") == "starting"


def test_a_model_that_was_only_loaded_makes_room_for_one_that_came_meanwhile() -> None:
    world = World(BIG)
    world.load("a")
    world.up("a")
    world.load("b")
    assert world.state("a") == "loading", "whoever waits for it is served first"
    world.ready("a")
    assert world.state("a") == "stopping"
    world.gone("a")
    assert world.state("b") == "starting"


def test_two_models_that_do_not_fit_together_take_turns() -> None:
    world = World(BIG)
    first = world.ask("a")
    world.ready("a")
    other = world.ask("b")
    more = [world.ask("a") for _ in range(3)]
    world.reply(first)
    assert world.state("a") == "stopping", "what came after b's request waits"
    world.gone("a")
    world.ready("b")
    assert set(world.running) == {other}
    world.reply(other)
    world.gone("b")
    world.ready("a")
    for key in more:
        world.reply(key)
    assert world.waiting() == set()


def test_requests_that_came_before_are_served_first() -> None:
    world = World(BIG)
    before = [world.ask("a") for _ in range(3)]
    world.ready("a")
    world.ask("b")
    for key in before:
        assert world.state("a") == "ready"
        world.reply(key)
    assert world.state("a") == "stopping"


def test_nobody_yields_any_longer_to_who_left() -> None:
    world = World(BIG)
    first = world.ask("a")
    world.ready("a")
    other = world.ask("b")
    second = world.ask("a")
    world.leave(other)
    world.reply(first)
    assert set(world.running) == {second}


def test_among_several_busy_ones_the_same_yield_until_the_load_has_its_place() -> None:
    world = World({"a": 40, "b": 40, "c": 40})
    world.parallel = 2
    running = {model: [world.ask(model), world.ask(model)] for model in ("a", "b")}
    world.ready("a")
    world.ready("b")
    world.ask("c")
    # Requests keep coming and going at both: one of them has to run empty all the same.
    for _ in range(20):
        if "stopping" in (world.state("a"), world.state("b")):
            break
        for model in ("a", "b"):
            running[model].append(world.ask(model))
            world.now += 1
            at_work = [key for key in running[model] if key in world.running]
            if at_work:
                world.reply(at_work[0])
    assert "stopping" in (world.state("a"), world.state("b"))


def test_small_loads_do_not_keep_a_large_one_out() -> None:
    world = World({"busy": 50, "large": 100, "s1": 50, "s2": 50})
    running = world.ask("busy")
    world.ready("busy")
    large = world.ask("large")
    small = world.ask("s1")
    assert world.state("s1") is None, "its place is promised"
    world.reply(running)
    world.ask("s2")
    world.gone("busy")
    assert world.state("large") == "starting"
    world.ready("large")
    world.reply(large)
    world.gone("large")
    world.ready("s1")
    assert small in world.running


def test_a_later_load_starts_before_where_it_takes_nothing_away() -> None:
    world = World({"busy": 50, "large": 80, "tiny": 20})
    running = world.ask("busy")
    world.ready("busy")
    world.ask("large")
    tiny = world.ask("tiny")
    world.ready("tiny")
    assert tiny in world.running
    world.reply(running)
    world.gone("busy")
    assert world.state("large") == "starting"
    assert world.state("tiny") == "ready"


def test_max_loaded() -> None:
    world = World(SMALL, max_loaded=1)
    world.load("a")
    world.ready("a")
    world.load("b")
    assert world.state("a") == "stopping"
    world.gone("a")
    world.ready("b")
    world.configure(max_loaded=2)
    world.load("a")
    assert world.state("b") == "ready"


def test_a_wait_for_a_place_ends_when_there_may_be_more() -> None:
    world = World(SMALL, max_loaded=1)
    world.ask("a")
    world.ready("a")
    world.load("b")
    world.configure(max_loaded=2)
    assert world.state("b") == "starting"


def test_what_can_never_fit_is_refused_with_its_plan() -> None:
    world = World({"a": 101})
    key = world.load("a")
    assert world.ends[key] == "does_not_fit"
    error = world.errors[key]
    assert error is not None
    assert error.data["plan"]["max_context_length"] == 0
    assert error.data["plan"]["fits"] is False
    assert world.jobs[max(world.jobs)] == ["queued", "failed"]


def test_beside_a_pinned_model_it_does_not_fit() -> None:
    world = World(BIG)
    world.load("a", pin=True)
    world.ready("a")
    assert world.ends[world.load("b")] == "does_not_fit"
    assert world.state("a") == "ready"


def test_a_pinned_model_that_is_being_unloaded_is_waited_for() -> None:
    world = World(BIG)
    running = world.ask("a")
    world.load("a", pin=True)
    world.ready("a")
    world.unload("a")
    key = world.load("b")
    assert key not in world.ends
    world.reply(running)
    other = world.load("b")
    assert other not in world.ends
    world.gone("a")
    world.ready("b")
    assert (world.ends[key], world.ends[other]) == ("ok", "ok")


def test_without_a_reading_nothing_starts() -> None:
    world = World(SMALL)
    world.automatic = False
    key = world.load("a")
    world.samples = 0
    world.feed(scheduling.Sampled(Snapshot()))
    assert world.ends[key] == "does_not_fit"
    assert world.workers == {}


# -------------------------------------------------------------------- limits, the end


def test_a_queue_has_a_limit() -> None:
    world = World(SMALL, max_queue=3)
    keys = [world.ask("a") for _ in range(5)]
    assert [world.ends.get(key) for key in keys] == [None, None, None, "busy", "busy"]
    error = world.errors[keys[4]]
    assert error is not None
    assert error.data["queue_length"] == 3
    assert world.said.count(("requests", "finished", "a")) == 0, "it never began to wait"


def test_close_ends_everything() -> None:
    world = World(BIG)
    running, queued = world.ask("a"), world.ask("a")
    world.ready("a")
    waiting = world.load("b")
    polite = world.unload("a")
    wish = world.load("a", load_options={"context_length": 16384}, detached=True)
    world.close()
    for key in (running, queued, waiting, wish):
        assert world.ends[key] == "shutting_down"
    assert world.worker("a").forced
    assert world.ends[world.load("c")] == "shutting_down"
    world.gone("a")
    assert world.ends[polite] == "ok"
    assert world.workers == {}
    assert all(states[-1] in ("done", "cancelled") for states in world.jobs.values())


def test_close_forces_what_was_stopping_politely() -> None:
    world = World(SMALL)
    world.load("a")
    world.ready("a")
    world.unload("a")
    world.close()
    assert world.worker("a").forced


@pytest.mark.parametrize("moment", ["starting", "loading"])
def test_close_stops_a_load(moment: str) -> None:
    world = World(SMALL)
    key = world.load("a")
    if moment == "loading":
        world.up("a")
    world.close()
    assert world.ends[key] == "shutting_down"
    assert world.state("a") == "stopping"
    world.gone("a")


def test_what_is_shown() -> None:
    world = World(SMALL, keepalive=100.0)
    key = world.ask("a")
    world.ask("a")
    world.ready("a")
    instance = world.scheduler.instances["a"]
    assert world.scheduler.queued_requests("a") == 1
    assert world.scheduler.expires_in(instance, world.now) == 100.0, "busy: all of it is left"
    world.reply(key)
    world.reply(key + 1)
    assert world.scheduler.expires_in(instance, world.now + 30) == 70.0
    world.load("a", pin=True)
    assert world.scheduler.expires_in(instance, world.now) is None


@pytest.mark.parametrize("seed", range(4))
def test_nobody_starves_while_others_keep_coming(seed: int) -> None:
    chance = random.Random(seed)
    world = World({"a": 50, "b": 60, "large": 100, "s1": 30, "s2": 30, "s3": 30})
    world.parallel = 1 + seed % 2
    born: dict[int, int] = {}
    for step in range(1000):
        world.now += 0.01
        if len(world.waiting()) < 12:
            # The large one is wanted rarely, the others all the time.
            model = "large" if chance.random() < 0.05 else chance.choice(["a", "b", *SMALLS])
            born[world.ask(model)] = step
        worker = chance.choice([*world.workers.values()]) if world.workers else None
        if worker is not None and worker.state in ("starting", "loading"):
            world.ready(worker.model)
        elif worker is not None and worker.state == "stopping":
            world.gone(worker.model)
        if world.running and chance.random() < 0.5:
            world.reply(chance.choice(sorted(world.running)))
        oldest = min((born[key] for key in world.waiting()), default=step)
        assert step - oldest < 600, f"{world.waiting()} wait since {oldest}"
    assert sum(end == "reply" for end in world.ends.values()) > 100


def test_a_raised_limit_lets_a_waiting_load_start() -> None:
    world = World({"a": 60, "b": 60})
    world.ask("a")
    world.ready("a")
    world.load("b")
    assert world.state("b") is None, "it waits for the busy one"
    world.room = 200
    world.configure()
    assert world.state("b") == "starting"
