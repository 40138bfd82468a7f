"""Work that outlasts a request."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from hybridd.daemon.events import EventHub
from hybridd.daemon.jobs import KEPT, PROGRESS_INTERVAL_S, Job, Jobs
from hybridd.wire.errors import InvalidParams, LoadFailed


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.hub = EventHub(clock=lambda: self.now)
        self.jobs = Jobs(self.hub, clock=lambda: self.now)
        self.subscription = self.hub.subscribe(["jobs"], lambda: None)

    def events(self) -> list[dict[str, Any]]:
        found = []
        while (event := self.subscription.take()[0]) is not None:
            found.append(event)
        return found


async def test_a_life() -> None:
    world = World()
    job = world.jobs.create("load", "m")
    assert job.to_wire() == {
        "job": "load-1", "kind": "load", "model": "m", "state": "queued", "stage": "", "done": 0,
        "total": 0, "fraction": 0.0, "started_at": 100.0, "finished_at": None,
    }  # fmt: skip
    world.jobs.update(job, state="running", stage="weights", done=1, total=4)
    assert (job.state, job.fraction) == ("running", 0.25)
    world.now = 105.0
    world.jobs.finish(job, "done", result={"id": "m"})
    assert (job.over, job.fraction, job.finished_at) == (True, 1.0, 105.0)
    assert [e["type"] for e in world.events()] == ["started", "progress", "done"]
    assert world.jobs.get("load-1") is job
    assert world.jobs.all() == [job]


async def test_it_ends_once() -> None:
    world = World()
    job = world.jobs.create("load", "m")
    world.jobs.finish(job, "failed", error=LoadFailed("no", reason="x"))
    world.jobs.finish(job, "done", result={})
    world.jobs.update(job, state="running", stage="late")
    wire = job.to_wire()
    assert (wire["state"], wire["error"]["data"]["kind"]) == ("failed", "load_failed")
    assert "result" not in wire
    (event,) = world.events()
    assert event["error"]["data"] == {"kind": "load_failed", "reason": "x"}


async def test_progress_is_published_ten_times_a_second_at_most() -> None:
    world = World()
    job = world.jobs.create("load", "m")
    for done in range(1000):
        world.now = 100 + done / 1000
        world.jobs.update(job, state="running", stage="weights", done=done, total=1000)
    for _ in range(100):
        world.jobs.update(job, stage="import")  # 0 of 0
        world.jobs.update(job, stage="weights", done=9, total=9)
    assert job.done == 9, "whoever asks gets the newest"
    events = [e for e in world.events() if e["type"] == "progress"]
    assert 8 <= len(events) <= 1 / PROGRESS_INTERVAL_S + 1


async def test_a_fraction_is_never_more_than_one() -> None:
    job = Job("x", "load", None, done=7, total=5)
    assert job.fraction == 1.0
    assert job.progress()["fraction"] == 1.0


async def test_whoever_waits_and_watches_hears_every_change() -> None:
    world, seen, watched = World(), [], []
    job = world.jobs.create("load", "m")
    job.watchers.add(lambda changed: watched.append(changed.stage))

    async def wait() -> None:
        while not job.over:
            await job.changed()
            seen.append(job.stage or job.state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        for stage in ("a", "b"):
            await trio.testing.wait_all_tasks_blocked()
            world.jobs.update(job, state="running", stage=stage)
        await trio.testing.wait_all_tasks_blocked()
        world.jobs.finish(job, "done")
    assert seen == watched == ["a", "b", "b"]


async def test_a_watcher_may_leave_while_it_is_told() -> None:
    world = World()
    job = world.jobs.create("load", "m")
    job.watchers.add(lambda changed: job.watchers.clear())
    world.jobs.update(job, state="running")
    world.jobs.update(job, stage="x")


async def test_finished_jobs_are_kept_for_a_while_and_running_ones_always() -> None:
    world = World()
    running = world.jobs.create("load", "m")
    first = world.jobs.create("load", "m")
    world.jobs.finish(first, "done")
    for _ in range(KEPT):
        world.jobs.finish(world.jobs.create("load", "m"), "done")
    assert world.jobs.get(first.job) is first
    world.jobs.create("load", "m")
    with pytest.raises(InvalidParams, match=first.job):
        world.jobs.get(first.job)
    assert world.jobs.get(running.job) is running
    assert len(world.jobs.all()) == KEPT + 2


async def test_an_unknown_job() -> None:
    with pytest.raises(InvalidParams) as caught:
        World().jobs.get("load-9")
    assert caught.value.data["field"] == "job"
