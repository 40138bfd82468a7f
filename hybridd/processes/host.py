"""Starts the processes that hold models, and lets none of them be lost or left behind.

`ProcessHost` owns the templates (`Templates` says which there are) and the tasks of every worker;
the supervisor of each worker talks to it through its `WorkerProcess`. What a worker does is not
known here. Ends by cancellation, and kills what still lives then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from .child_io import Ends
from .reaper import OomCounter, OrphanReaper, become_subreaper, is_child
from .template_process import Preparation, TemplateGone, spawn
from .template_slot import Startable
from .templates import TemplatePolicy, Templates, no_process
from .worker_process import ExitStatus, WorkerProcess

__all__ = [
    "ExitStatus",
    "Preparation",
    "ProcessHost",
    "TemplatePolicy",
    "WorkerProcess",
    "become_subreaper",
]


class ProcessHost:
    """Owns templates and workers' tasks; `run` has to be running before anything is started.

    Args:
        templates: See `Templates`, as for the other two.
        template_keepalive_s: Seconds; negative is for ever.
        most_spare_templates: How many models' templates stay without a worker.

    Attributes:
        templates: All of them.
    """

    def __init__(
        self,
        templates: TemplatePolicy = "auto",
        template_keepalive_s: float = 300.0,
        most_spare_templates: int = 0,
    ) -> None:
        self._oom = OomCounter()
        self._known: dict[int, WorkerProcess] = {}
        self._nursery: trio.Nursery | None = None
        self.templates = Templates(
            templates, template_keepalive_s, most_spare_templates, self._running
        )
        self._reaper = OrphanReaper(self._is_spared)

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

    async def start_worker(
        self, backend: Startable, model: str, preparation: Preparation | None = None
    ) -> WorkerProcess:
        """Start a worker for a backend; its first frame will be `hello`.

        Args:
            model: The id under which its lines are logged.
            preparation: What workers of this model can share, where there is such a thing.

        Raises:
            LoadFailed: The engine cannot be imported, or no process can be made.
        """
        nursery = self._running()
        try:
            forked = await self.templates.fork(backend, model, preparation, self._adopt)
            worker, at_end = forked or (self._spawn_worker(model), None)
        except OSError as exc:
            raise no_process(exc) from exc
        self._known[worker.pid] = worker
        nursery.start_soon(self._keep_worker, worker, at_end)
        # While a fork was under way nothing was reaped.
        self._reaper.reap()
        return worker

    def _spawn_worker(self, model: str) -> WorkerProcess:
        with Ends(model) as ends:
            return self._adopt(spawn("hybridd.worker", ends.theirs, ends.writing), ends)

    def _adopt(self, pid: int, ends: Ends) -> WorkerProcess:
        # Who says so may have read a hostile file: a stranger would be waited for and killed.
        if pid in self._known or pid in self.template_pids().values() or not is_child(pid):
            raise TemplateGone(f"{pid} is no new worker")
        worker = WorkerProcess(pid, ends.ours, ends.log, self._oom)
        ends.taken = True  # only now: it may fail for want of descriptors
        return worker

    async def _keep_worker(self, worker: WorkerProcess, at_end: Callable[[], None] | None) -> None:
        try:
            await worker.run()
        finally:
            del self._known[worker.pid]
            if at_end is not None:
                at_end()

    # ------------------------------------------------------------------ templates

    def make_room(self, wanted: int, model: str, backend: str) -> None:
        """Have this many bytes free for a model, as far as idle templates hold it."""
        self.templates.make_room(wanted, model, backend)

    def template_memory(self) -> Mapping[str, dict[str, int]]:
        """What each living template holds, by its label; see `TemplateProcess.memory`."""
        return {label: t.memory() for label, t in self.templates.alive.items()}

    def template_pids(self) -> dict[str, int]:
        """The living templates' pids, by their labels."""
        return {label: t.pid for label, t in self.templates.alive.items()}

    # ------------------------------------------------------------------ helpers

    def _is_spared(self, pid: int) -> bool:
        """Whether a dead child is somebody's: it is known, or a fork's answer is under way."""
        templates = self.templates.alive.values()
        return pid in self._known or any(t.pid == pid or t.forking for t in templates)

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("ProcessHost.run is not running")
        return self._nursery
