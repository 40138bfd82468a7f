"""The daemon with an instrument in it that notes how long each step of a task holds the loop.

    BENCH_STEPS=FILE python -m tests.bench.steps

runs hybridd as `python -m hybridd` does. Of every step of at least `NOTED_S` it writes a line: when
it ended (Unix seconds), how long it held the loop and how much of that was the loop's own processor
time (the rest went to other threads and other programs), in seconds, and the task's name.
"""

from __future__ import annotations

import functools
import os
import runpy
import time
from pathlib import Path
from typing import NamedTuple

import trio

NOTED_S = 0.002


class Step(NamedTuple):
    """One step of a task; times in seconds."""

    ended: float
    held_s: float
    own_s: float
    task: str


class Steps(trio.abc.Instrument):
    """Notes long steps in a file."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  the process's
        self._began = (0.0, 0.0)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._began = time.perf_counter(), time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        held = time.perf_counter() - self._began[0]
        if held >= NOTED_S:
            own = time.thread_time() - self._began[1]
            self._file.write(f"{time.time():.6f} {held:.6f} {own:.6f} {task.name}\n")


def read(path: Path, since: float) -> list[Step]:
    """The steps that ended after `since`."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        ended, held, own, task = line.split(" ", 3)
        if float(ended) >= since:
            found.append(Step(float(ended), float(held), float(own), task))
    return found


def main() -> None:
    """Run the daemon."""
    trio.run = functools.partial(trio.run, instruments=[Steps(os.environ["BENCH_STEPS"])])
    runpy.run_module("hybridd", run_name="__main__")


if __name__ == "__main__":
    main()
