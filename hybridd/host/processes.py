"""Starts the processes that hold models, and lets none of them be lost or left behind.

`ProcessHost` owns the templates (one per backend, made when first needed) and the tasks of every
worker; the supervisor of each worker talks to it through its `WorkerProcess`. What a worker does
is not known here. Ends by cancellation, and kills what still lives then.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Literal, Protocol

import trio

from hybridd.wire.errors import LoadFailed

from .reaper import OomCounter, OrphanReaper, become_subreaper
from .template_process import ForkRefused, TemplateGone, TemplateProcess, spawn
from .worker_process import ExitStatus, LogPipe, WorkerProcess

__all__ = ["ExitStatus", "ProcessHost", "TemplatePolicy", "WorkerProcess", "become_subreaper"]

_LOG = logging.getLogger(__name__)
TemplatePolicy = Literal["auto", "always", "never"]
# A template that died between two forks is replaced once; one that dies again would for ever.
_ATTEMPTS = 2


class Startable(Protocol):
    """The part of a `Backend` that starting a process needs."""

    @property
    def name(self) -> str: ...
    @property
    def extra(self) -> str | None: ...
    @property
    def engine_factory(self) -> str: ...
    @property
    def preload(self) -> tuple[str, ...]: ...


class _Slot:
    """A backend's place for a template, from the first one who needs it until it leaves.

    Attributes:
        users: Who waits for it or is having it fork.
        last_used: When `users` fell to none, in trio's time.
    """

    def __init__(self) -> None:
        self.template: TemplateProcess | None = None
        self.error: LoadFailed | None = None
        self.settled = trio.Event()
        self.users = 0
        self.last_used = trio.current_time()
        self.changed = trio.Event()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the template from leaving meanwhile."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.last_used = trio.current_time()
            self.notice()

    def notice(self) -> None:
        """Have the task that waits for idleness look again."""
        self.changed.set()
        self.changed = trio.Event()


class _Ends:
    """A worker's channel and log before it is known who holds them."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        reading, self.writing = os.pipe()
        self.log = LogPipe(reading)
        self.taken = False

    def close(self) -> None:
        """Close the worker's ends, and ours too unless a `WorkerProcess` has them now."""
        self.theirs.close()
        os.close(self.writing)
        if not self.taken:
            self.ours.close()
            self.log.finish()


class ProcessHost:
    """Owns templates and workers' tasks; `run` has to be running before anything is started.

    Args:
        templates: `auto`: a backend's template starts with its first worker and leaves after the
            keepalive without a fork. `always`: it stays. `never`: workers import for themselves.
        template_keepalive_s: Seconds; negative is for ever.
    """

    def __init__(
        self, templates: TemplatePolicy = "auto", template_keepalive_s: float = 300.0
    ) -> None:
        self._policy = templates
        self._keepalive_s = template_keepalive_s
        self._oom = OomCounter()
        self._known: dict[int, WorkerProcess] = {}
        self._slots: dict[str, _Slot] = {}
        self._templates: set[TemplateProcess] = set()
        self._reaper = OrphanReaper(self._is_spared)
        self._nursery: trio.Nursery | None = None

    def configure(self, templates: TemplatePolicy, template_keepalive_s: float) -> None:
        """Change both settings; templates that are up follow at once."""
        self._policy = templates
        self._keepalive_s = template_keepalive_s
        for slot in self._slots.values():
            slot.notice()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Adopt, reap and keep; on cancellation every template and worker is killed and reaped."""
        become_subreaper()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._reaper.run)
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._reaper.reap()

    # ------------------------------------------------------------------ workers

    async def start_worker(self, backend: Startable) -> WorkerProcess:
        """Start a worker for a backend; its first frame will be `hello`.

        Raises:
            LoadFailed: The engine cannot be imported, or no process can be made.
        """
        nursery = self._running()
        try:
            worker = await self._fork_worker(backend) or self._spawn_worker()
        except OSError as exc:
            raise _no_process(exc) from exc
        self._known[worker.pid] = worker
        nursery.start_soon(self._keep_worker, worker)
        # While a fork was under way nothing was reaped.
        self._reaper.reap()
        return worker

    async def _fork_worker(self, backend: Startable) -> WorkerProcess | None:
        """A worker out of the backend's template; None where there is to be none."""
        for _ in range(_ATTEMPTS if self._policy != "never" else 0):
            slot = self._slot(backend)
            with slot.in_use():
                template = await self._ready_template(slot)
                # Descriptors anew for each attempt: a template that died may have forked before.
                ends = _Ends()
                try:
                    pid = await template.fork([ends.theirs.fileno(), ends.writing])
                    return self._adopt(pid, ends)
                except TemplateGone:
                    self._forget(backend.name, slot)
                except ForkRefused as exc:
                    _LOG.warning("the template of %s refused to fork: %s", backend.name, exc)
                    return None
                finally:
                    ends.close()
        return None

    def _spawn_worker(self) -> WorkerProcess:
        ends = _Ends()
        try:
            return self._adopt(spawn("hybridd.worker", ends.theirs, ends.writing), ends)
        finally:
            ends.close()

    def _adopt(self, pid: int, ends: _Ends) -> WorkerProcess:
        worker = WorkerProcess(pid, ends.ours, ends.log, self._oom)
        ends.taken = True
        return worker

    async def _keep_worker(self, worker: WorkerProcess) -> None:
        try:
            await worker.run()
        finally:
            del self._known[worker.pid]

    # ------------------------------------------------------------------ templates

    async def warm(self, backend: Startable) -> None:
        """Have the backend's template up, before it is needed. No-op under `never`.

        Raises:
            LoadFailed: The engine cannot be imported.
        """
        if self._policy != "never":
            slot = self._slot(backend)
            with slot.in_use():
                await self._ready_template(slot)

    def template_memory(self) -> Mapping[str, dict[str, int]]:
        """What each living template holds, by its backend's name; see `procfs.shared_memory`."""
        return {t.name: t.memory() for t in self._templates}

    def template_pids(self) -> dict[str, int]:
        """The living templates' pids, by their backend's name."""
        return {t.name: t.pid for t in self._templates}

    def _slot(self, backend: Startable) -> _Slot:
        """The backend's slot; without one, a template is started in a new one."""
        slot = self._slots.get(backend.name)
        if slot is None:
            slot = self._slots[backend.name] = _Slot()
            self._running().start_soon(self._keep_template, backend, slot)
        return slot

    async def _ready_template(self, slot: _Slot) -> TemplateProcess:
        await slot.settled.wait()
        if slot.template is None:
            assert slot.error is not None
            # A fresh one for each: an exception that is raised twice grows its traceback.
            raise LoadFailed(slot.error.message, **slot.error.data)
        return slot.template

    async def _keep_template(self, backend: Startable, slot: _Slot) -> None:
        """A template's whole life, from its start to its reaping."""
        module = backend.engine_factory.partition(":")[0]
        try:
            template = TemplateProcess(backend.name, [*backend.preload, module], backend.extra)
        except OSError as exc:
            slot.error = _no_process(exc)
            self._settle(backend.name, slot)
            return
        self._templates.add(template)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(template.run)
                try:
                    await template.until_ready()
                    slot.template = template
                except LoadFailed as exc:
                    slot.error = exc
                self._settle(backend.name, slot)
                nursery.start_soon(self._leave_when_idle, backend.name, slot, template)
                await template.gone()
                nursery.cancel_scope.cancel()
        finally:
            self._templates.discard(template)
            self._forget(backend.name, slot)

    def _settle(self, name: str, slot: _Slot) -> None:
        if slot.template is None:
            # The next caller tries again: the missing package may be installed by then.
            self._forget(name, slot)
        slot.settled.set()

    async def _leave_when_idle(self, name: str, slot: _Slot, template: TemplateProcess) -> None:
        while (left_s := self._idle_left(slot)) > 0:
            with trio.move_on_after(left_s):
                await slot.changed.wait()
        self._forget(name, slot)
        template.leave()

    def _idle_left(self, slot: _Slot) -> float:
        """Seconds until its template leaves, if nothing changes."""
        if slot.users:
            return inf
        if self._policy == "never":
            return 0.0
        if self._policy == "always" or self._keepalive_s < 0:
            return inf
        return slot.last_used + self._keepalive_s - trio.current_time()

    def _forget(self, name: str, slot: _Slot) -> None:
        if self._slots.get(name) is slot:
            del self._slots[name]

    # ------------------------------------------------------------------ helpers

    def _is_spared(self, pid: int) -> bool:
        """Whether a dead child is somebody's: it is known, or a fork's answer is under way."""
        if pid in self._known or any(t.pid == pid for t in self._templates):
            return True
        return any(t.forking for t in self._templates)

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("ProcessHost.run is not running")
        return self._nursery


def _no_process(exc: OSError) -> LoadFailed:
    reason = os.strerror(exc.errno or 0)
    return LoadFailed(f"no process could be started: {reason}", reason="no_process")
