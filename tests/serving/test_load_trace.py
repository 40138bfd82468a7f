"""docs/architecture.md follows one load step by step: it is the load that the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hybridd.core.scheduling import Effect, Event, LoadState, Notify
from tests.serving.support import World, record, running

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d+) \| (.*?) \| (.*?) ?\| ", re.MULTILINE)
_COMMENT = re.compile(r"# trace ([\d, ]+)")


def documented() -> dict[int, tuple[str, list[str]]]:
    """Number -> the event, and the effects that come out."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("### One load, step by step") :]
    return {
        int(number): (event.strip(), [e for e in effects.split(", ") if e])
        for number, event, effects in _ROW.findall(table)
    }


class Recorder:
    """Writes down what the scheduler is told and what it says, as the table does."""

    def __init__(self, world: World) -> None:
        self.steps: list[tuple[str, list[str]]] = []
        self._scheduler = world.residency.scheduler
        self._handle = self._scheduler.handle
        self._scheduler.handle = self.handle  # type: ignore[method-assign]

    def handle(self, event: Event, now: float) -> list[Effect]:
        described = self._described(event)
        effects = self._handle(event, now)
        told = [self._described(effect) for effect in effects if not isinstance(effect, Notify)]
        self.steps.append((described, told))
        return effects

    def _described(self, message: Any) -> str:
        name = type(message).__name__
        if isinstance(message, LoadState):
            return f"{name} {message.state}"
        if hasattr(message, "item"):
            return f"{name} {message.item.model}"
        instance = self._scheduler.instance(getattr(message, "instance", 0))
        return f"{name} {instance.model}" if instance else name


@pytest.mark.usefixtures("autojump_clock")
async def test_the_load_in_the_docs_is_the_load_that_is_done(tmp_path: Path) -> None:
    async with running(tmp_path, record("a"), record("b"), room=50) as (world, begin):
        await world.load("a")
        recorder = Recorder(world)
        asked = begin(world.manager.infer, "generate", "b", {"prompt": "x"})
        worker = await world.host.worker(1)
        worker.ready()
        await worker.reply("y")
        await asked.over.wait()
        assert asked.value["text"] == "y"
        steps = dict(enumerate(recorder.steps, 1))
    assert documented() == steps


def test_every_step_stands_in_the_code() -> None:
    files = [
        *(ROOT / "hybridd" / "core").glob("*.py"),
        *(ROOT / "hybridd" / "serving").glob("*.py"),
    ]
    named = {
        int(number)
        for path in files
        for numbers in _COMMENT.findall(path.read_text())
        for number in numbers.replace(",", " ").split()
    }
    assert named == set(documented())
