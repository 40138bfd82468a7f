"""Deltas on their way to a client: order, merging, waiting, failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.http.faces.api import Ask, Streamed
from hybridd.http.problems import Problem
from hybridd.http.server.body import Stalled
from hybridd.http.streaming import HEAD_GRACE_S, WAITING_S, Run, Streaming
from hybridd.serving.requests import Sink
from hybridd.wire.delta import Delta
from hybridd.wire.errors import ModelNotFound, WorkerDied
from tests.http.support import Lines, MemoryBody, ask


class World:
    """A streaming answer, its body, and models that do as a test tells them."""

    def __init__(self, run: Run, asks: int = 1, slow_bytes: int = 1_000_000) -> None:
        self.body = MemoryBody()
        self.begun_at: float | None = None
        answer = Streamed([ask(f"m{n}") for n in range(asks)], Lines())
        self.streaming = Streaming(answer, run, self.begin, lambda: "loading m", slow_bytes)

    async def begin(self) -> MemoryBody:
        self.begun_at = trio.current_time()
        return self.body

    @property
    def text(self) -> str:
        return b"".join(self.body.pieces).decode()


DONE: Mapping[str, Any] = {"finish_reason": "stop"}


def step(sink: Sink, *texts: str) -> None:
    """What a supervisor does with one frame: all sinks, then each flush once."""
    flushes = [sink(Delta(text, 1)) for text in texts]
    for flush in {flush for flush in flushes if flush}:
        flush()


async def test_each_step_is_an_event() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        await trio.testing.wait_all_tasks_blocked()
        for text in "abc":
            step(sink, text)
            await trio.testing.wait_all_tasks_blocked()
        return DONE

    world = World(run)
    await world.streaming.run()
    assert world.text == "begin\n0 a\n0 b\n0 c\n0 ended by stop\nfinish\n"


async def test_a_step_is_written_in_the_turn_that_brought_it() -> None:
    seen: list[str] = []

    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, "first")
        await trio.testing.wait_all_tasks_blocked()
        step(sink, "now")
        seen.append(world.text)
        return DONE

    world = World(run)
    await world.streaming.run()
    assert seen == ["begin\n0 first\n0 now\n"]


async def test_what_a_late_reader_has_not_taken_is_merged() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, "first")
        await trio.testing.wait_all_tasks_blocked()
        world.body.blocked = True
        for text in "abcdef":
            step(sink, text)
        await trio.testing.wait_all_tasks_blocked()
        assert world.text == "begin\n0 first\n"
        world.body.unblocked.set()
        await trio.testing.wait_all_tasks_blocked()
        step(sink, "g")
        return DONE

    world = World(run)
    await world.streaming.run()
    assert world.text == "begin\n0 first\n0 abcdef\n0 g\n0 ended by stop\nfinish\n"


async def test_several_asks_are_kept_apart(autojump_clock: trio.testing.MockClock) -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        for turn in range(3):
            await trio.sleep(int(ask.model[1:]) + 10 * turn)
            step(sink, f"{ask.model}.{turn}")
        return DONE

    world = World(run, asks=3)
    await world.streaming.run()
    lines = world.text.splitlines()
    assert lines[0] == "begin"
    assert lines[-1] == "finish"
    for n in range(3):
        mine = [line for line in lines if line.startswith(f"{n} ")]
        assert mine == [f"{n} m{n}.0", f"{n} m{n}.1", f"{n} m{n}.2", f"{n} ended by stop"]


async def test_the_head_goes_out_though_nothing_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        await trio.sleep(2.5 * WAITING_S)
        step(sink, "late")
        await trio.sleep(0.5 * WAITING_S)
        step(sink, "later")
        await trio.sleep(0.8 * WAITING_S)
        return DONE

    world = World(run)
    started = trio.current_time()
    await world.streaming.run()
    assert world.begun_at is not None
    assert world.begun_at - started == pytest.approx(HEAD_GRACE_S)
    waiting = "waiting: loading m\n"
    assert world.text == (f"begin\n{waiting}{waiting}0 late\n0 later\n0 ended by stop\nfinish\n")


async def test_an_error_at_once_is_no_stream() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        raise ModelNotFound("no m", model="m")

    world = World(run)
    with pytest.raises(Problem) as caught:
        await world.streaming.run()
    assert (caught.value.status, world.begun_at) == (404, None)


async def test_an_error_in_the_middle_is_the_last_event() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, "half")
        await trio.testing.wait_all_tasks_blocked()
        raise WorkerDied("it died")

    world = World(run)
    await world.streaming.run()
    assert world.text == "begin\n0 half\nerror worker_died\n"


async def test_an_error_of_one_ask_ends_the_others() -> None:
    cancelled: list[str] = []

    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, ask.model)
        await trio.testing.wait_all_tasks_blocked()
        if ask.model == "m1":
            raise WorkerDied("it died")
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(ask.model)
        return DONE

    world = World(run, asks=3)
    await world.streaming.run()
    assert world.text.endswith("error worker_died\n")
    assert sorted(cancelled) == ["m0", "m2"]


async def test_a_bug_before_the_head_is_raised() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await World(run).streaming.run()


async def test_a_bug_in_the_middle_is_told_and_raised() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, "half")
        await trio.testing.wait_all_tasks_blocked()
        raise RuntimeError("a bug")

    world = World(run)
    with pytest.raises(RuntimeError, match="a bug"):
        await world.streaming.run()
    assert world.text == "begin\n0 half\nerror internal_error\n"


async def test_a_client_that_lets_too_much_wait_is_given_up() -> None:
    async def run(ask: Ask, sink: Sink) -> Mapping[str, Any]:
        step(sink, "first")
        await trio.testing.wait_all_tasks_blocked()
        world.body.blocked = True
        for _ in range(100):
            step(sink, "x" * 100)
        world.body.unblocked.set()
        await trio.sleep_forever()
        return DONE

    world = World(run, slow_bytes=10_000)
    with pytest.raises(Stalled):
        await world.streaming.run()
