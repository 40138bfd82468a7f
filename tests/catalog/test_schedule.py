"""When to look again, and where, on a clock that jumps."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from hybridd.catalog.schedule import MAX_REST_S, POLL_S, ROOTS_S, TRAILING_S, Schedule

pytestmark = pytest.mark.usefixtures("autojump_clock")


class World:
    """Looks that take no time, and what they were told."""

    def __init__(self) -> None:
        self.polling = False
        self.urgent = False
        self.changed = False
        self.takes_s = 0.0
        self.looks: list[tuple[float, Any]] = []
        self.schedule = Schedule(
            300.0, lambda: self.polling, lambda: self.urgent, self.roots_changed
        )

    async def roots_changed(self) -> bool:
        await trio.lowlevel.checkpoint()
        changed, self.changed = self.changed, False
        return changed

    async def look(self, due_s: float | None = None) -> None:
        """One look, and the rest that follows."""
        started = trio.current_time()
        touched = self.schedule.begin(everywhere=not self.looks)
        self.looks.append((started, None if touched is None else set(touched)))
        await trio.sleep(self.takes_s)
        self.schedule.end(due_s)
        await self.schedule.rest()


async def test_what_was_touched_first_and_everything_after_the_last_hint() -> None:
    world = World()

    async def hint() -> None:
        await trio.sleep(50)
        world.schedule.hint(frozenset({"/m/a"}))
        world.schedule.hint(frozenset({"/m/b"}))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hint)
        for _ in range(4):
            await world.look()
    assert [(round(at - start, 3), where) for at, where in world.looks] == [
        (0.0, None),
        (50.0, {"/m/a", "/m/b"}),
        (50.0 + TRAILING_S, None),
        (350.0 + TRAILING_S, None),
    ]


async def test_a_hint_that_may_be_anywhere() -> None:
    world = World()
    await_first = trio.current_time()

    async def hint() -> None:
        await trio.sleep(50)
        world.schedule.hint(frozenset({"/m/a"}))
        world.schedule.hint(None)
        world.schedule.hint(frozenset({"/m/b"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hint)
        await world.look()
        await world.look()
    assert world.looks[1] == (await_first + 50, None)


async def test_files_that_come_to_rest_are_looked_at_in_time() -> None:
    world = World()
    world.takes_s = 1.0
    start = trio.current_time()
    await world.look(due_s=0.5)
    await world.look()
    # Though a look of one second has to be followed by two of rest.
    assert world.looks[1] == (start + 1.5, set())


@pytest.mark.parametrize(("takes_s", "rest_s"), [(0.2, 0.4), (60.0, MAX_REST_S)])
async def test_looks_are_followed_by_rest(takes_s: float, rest_s: float) -> None:
    world = World()
    world.takes_s = takes_s

    async def hint() -> None:
        while True:
            world.schedule.hint(frozenset({"/m/a"}))
            await trio.sleep(0.1)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hint)
        for _ in range(10):
            await world.look()
        assert trio.current_time() - start == pytest.approx(10 * (takes_s + rest_s))
        world.urgent = True
        before = trio.current_time()
        await world.look()
        assert trio.current_time() - before == pytest.approx(takes_s)
        nursery.cancel_scope.cancel()


async def test_a_root_that_was_mounted_makes_no_event() -> None:
    world = World()

    async def mount() -> None:
        await trio.sleep(33)
        world.changed = True

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mount)
        await world.look()
        await world.look()
    assert world.looks[1] == (start + 4 * ROOTS_S, None)


async def test_polling() -> None:
    world = World()
    world.polling = True
    start = trio.current_time()
    for _ in range(4):
        await world.look()
    assert world.looks == [(start + n * POLL_S, None) for n in range(4)]


async def test_polling_takes_a_bounded_share_of_the_time() -> None:
    world = World()
    world.polling, world.takes_s = True, 1.0
    start = trio.current_time()
    for _ in range(4):
        await world.look()
    assert [at - start for at, _ in world.looks] == [0.0, 20.0, 40.0, 60.0]
