"""When formats' templates start by themselves: no process, no disk, no clock."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.backends.registry import FormatInfo
from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.core.lifecycle import State
from hybridd.core.model import ModelRecord
from hybridd.serving.memory import Reading
from hybridd.serving.warm_templates import RETRY_S, ROOM_BYTES, WarmTemplates
from hybridd.wire.errors import LoadFailed
from tests.serving.support import record

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Scene:
    """Two formats, a catalog, a scheduler and the machine's memory, as the test says."""

    def __init__(self) -> None:
        self.backends = {
            name: SimpleNamespace(name=name, preload=(name,)) for name in ("fake", "x")
        }
        self.formats = {
            name: FormatInfo(name, available=True, engine=name) for name in self.backends
        }
        self.complete = trio.Event()
        self.models: dict[str, ModelRecord] = {}
        self.free = 2 * ROOM_BYTES
        self.tickets: dict[str, object] = {}
        self.instances: dict[str, Any] = {}
        self.warmed: list[tuple[str, bool]] = []
        self.measured = 0
        self.error: LoadFailed | None = None
        fakes: Any = (
            SimpleNamespace(
                snapshot=SimpleNamespace(models=self.models), wait_complete=self.complete.wait
            ),
            SimpleNamespace(
                scheduler=SimpleNamespace(tickets=self.tickets, instances=self.instances),
                measure=self._measure,
            ),
            SimpleNamespace(warm=self._warm),
            self.backends,
        )
        library, residency, templates, backends = fakes
        self.warm = WarmTemplates(
            lambda: backends,
            self.formats,
            library,
            lambda record: record.available,
            residency,
            templates,
        )

    async def _measure(self) -> Reading:
        await trio.lowlevel.checkpoint()
        self.measured += 1
        device = Device(CPU, "cpu", "CPU", self.free, self.free, self.free)
        return Reading(Snapshot((device,)), {}, {})

    async def _warm(self, backend: Any, *, low_priority: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.warmed.append((backend.name, low_priority))
        if self.error is not None:
            raise self.error

    def add(self, id: str, **more: Any) -> None:
        self.models[id] = record(id, **more)
        self.warm.look()


@asynccontextmanager
async def running(*, complete: bool = True) -> AsyncIterator[Scene]:
    scene = Scene()
    if complete:
        scene.complete.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.warm.run)
        yield scene
        nursery.cancel_scope.cancel()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def instance(state: State, size: int = 0) -> Any:
    placement = SimpleNamespace(placement={CPU: size})
    return SimpleNamespace(state=state, plan=placement, coming_up=state is not State.READY)


async def test_a_format_with_models_has_its_template_once_all_was_looked_at() -> None:
    async with running(complete=False) as scene:
        scene.add("a")
        await settled()
        assert scene.warmed == []
        scene.complete.set()
        await settled()
        assert scene.warmed == [("fake", True)]
        scene.add("b")
        await settled()
        assert scene.warmed == [("fake", True)], "once is enough"


async def test_a_first_model_may_come_later() -> None:
    async with running() as scene:
        scene.add("demo", store="demo")
        scene.add("broken", status="invalid")
        await settled()
        assert scene.warmed == []
        assert scene.measured == 0
        scene.add("a")
        await settled()
        assert scene.warmed == [("fake", True)]


@pytest.mark.parametrize("why", ["not enabled", "not installed", "nothing to import"])
async def test_what_cannot_be_started_is_not(why: str) -> None:
    async with running() as scene:
        if why == "not enabled":
            del scene.backends["fake"]
        elif why == "not installed":
            scene.formats["fake"] = FormatInfo("fake", available=False, engine="fake")
        else:
            scene.backends["fake"].preload = ()
        scene.add("a")
        await settled()
        assert scene.warmed == []


async def test_it_waits_for_memory() -> None:
    async with running() as scene:
        scene.free = ROOM_BYTES + 5
        scene.instances["b"] = instance(State.READY, size=6)
        scene.add("a")
        await settled()
        assert scene.warmed == []
        scene.instances["b"] = instance(State.READY, size=5)
        await trio.sleep(RETRY_S + 1)
        assert scene.warmed == [("fake", True)]


@pytest.mark.parametrize("state", [State.STARTING, State.LOADING, None])
async def test_it_waits_for_loads(state: State | None) -> None:
    async with running() as scene:
        if state is None:
            scene.tickets["b"] = object()
        else:
            scene.instances["b"] = instance(state)
        scene.add("a")
        await trio.sleep(2.5 * RETRY_S)
        assert scene.warmed == []
        assert scene.measured == 0, "a load's own reading has precedence"
        scene.tickets.clear()
        scene.instances.clear()
        await trio.sleep(RETRY_S)
        assert scene.warmed == [("fake", True)]


async def test_one_that_cannot_start_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as scene:
        scene.error = LoadFailed("torch is not installed")
        for model in ("a", "b"):
            scene.add(model)
            await settled()
        assert scene.warmed == [("fake", True)]
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert line == "the template of fake cannot start: torch is not installed"


async def test_always_is_at_once_whatever_there_is() -> None:
    scene = Scene()
    scene.free = 0
    await scene.warm.start_all()
    assert scene.warmed == [("fake", False), ("x", False)]
