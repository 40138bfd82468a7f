"""Work that outlasts a request, that anyone can watch, join and cancel.

A job's life is told by what does the work (`update`, `finish`); this module keeps the records,
wakes the calls that wait and publishes the events. Finished jobs are kept for a while so that a
late `jobs.get` learns how it ended.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from hybridd.daemon.events import EventHub
from hybridd.wire.errors import HybriddError, InvalidParams

# How many finished jobs stay readable.
KEPT = 256
# docs/protocol.md: at most ten progress events a second.
PROGRESS_INTERVAL_S = 0.1

FINISHED = frozenset({"done", "failed", "cancelled"})


@dataclass
class Job:
    """One job; the fields are docs/protocol.md's."""

    job: str
    kind: str
    model: str | None
    state: str = "queued"
    stage: str = ""
    done: int = 0
    total: int = 0
    started_at: float = 0.0
    finished_at: float | None = None
    result: dict[str, Any] | None = None
    error: HybriddError | None = None
    cancel: Callable[[], None] | None = None
    watchers: set[Callable[[Job], None]] = field(default_factory=set)
    _changed: trio.Event = field(default_factory=trio.Event)
    _published: float = 0.0

    @property
    def over(self) -> bool:
        """Whether it ended, in whatever way."""
        return self.state in FINISHED

    @property
    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.done / self.total) if self.total else 0.0

    def to_wire(self) -> dict[str, Any]:
        """docs/protocol.md's `Job`."""
        fields: dict[str, Any] = {
            "job": self.job,
            "kind": self.kind,
            "model": self.model,
            "state": self.state,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "fraction": round(self.fraction, 4),
            "started_at": self.started_at,
            "finished_at": self.finished_at,
        }
        if self.result is not None:
            fields["result"] = self.result
        if self.error is not None:
            fields["error"] = self.error.to_wire()
        return fields

    def progress(self) -> dict[str, Any]:
        """The fields of `$/progress` beside the request's id."""
        return {
            "job": self.job,
            "stage": self.stage or self.state,
            "done": self.done,
            "total": self.total,
            "fraction": round(self.fraction, 4),
            "message": f"{self.stage or self.state} {self.model or ''}".strip(),
        }

    async def changed(self) -> None:
        """Return after the next change."""
        await self._changed.wait()

    def wake(self) -> None:
        """Let everyone in `changed` look again."""
        event, self._changed = self._changed, trio.Event()
        event.set()
        for watcher in list(self.watchers):
            watcher(self)


class Jobs:
    """The registry of jobs."""

    def __init__(self, events: EventHub, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._numbers = itertools.count(1)

    def create(self, kind: str, model: str | None, cancel: Callable[[], None] | None = None) -> Job:
        """Begin a job in state `queued`."""
        job = Job(f"{kind}-{next(self._numbers)}", kind, model, cancel=cancel)
        job.started_at = self._clock()
        self._jobs[job.job] = job
        self._forget_old()
        return job

    def update(
        self, job: Job, *, state: str | None = None, stage: str = "", done: int = 0, total: int = 0
    ) -> None:
        """Move a job on; its first move to `running` publishes `started`."""
        if job.over:
            return
        if state == "running" and job.state != "running":
            job.state = "running"
            self._events.publish("jobs", "started", job=job.job, kind=job.kind, model=job.model)
        if stage:
            job.stage, job.done, job.total = stage, done, total
            now = self._clock()
            if now - job._published >= PROGRESS_INTERVAL_S:
                job._published = now
                self._events.publish("jobs", "progress", kind=job.kind, **job.progress())
        job.wake()

    def finish(
        self,
        job: Job,
        state: str,
        *,
        result: dict[str, Any] | None = None,
        error: HybriddError | None = None,
    ) -> None:
        """End a job as `done`, `failed` or `cancelled`; a second end is ignored."""
        if job.over:
            return
        job.state, job.result, job.error = state, result, error
        job.finished_at = self._clock()
        data: dict[str, Any] = {"job": job.job, "kind": job.kind, "model": job.model}
        if error is not None:
            data["error"] = error.to_wire()
        self._events.publish("jobs", state, **data)
        job.wake()

    def get(self, name: str) -> Job:
        """Look a job up.

        Raises:
            InvalidParams: There is no such job, or it ended too long ago.
        """
        job = self._jobs.get(name)
        if job is None:
            raise InvalidParams(
                f"there is no job {name!r}; jobs.list shows those there are",
                field="job",
                reason="no such job",
            )
        return job

    def all(self) -> list[Job]:
        """All jobs, the oldest first."""
        return list(self._jobs.values())

    def _forget_old(self) -> None:
        over = [name for name, job in self._jobs.items() if job.over]
        for name in over[: max(0, len(over) - KEPT)]:
            del self._jobs[name]
