"""Adopting orphans, burying them, and telling a death by lack of memory from others.

A subreaper gets every orphan below it as its own child. Ours are the workers (registered with
`worker_process`, which reaps each by its pidfd) and whatever a worker leaves behind; the children
that trio or `subprocess` started in this process are somebody else's to wait for. The two differ
by their session: workers, templates and all below them live in sessions of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from . import procfs

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Make this process the one that adopts its descendants' orphans.

    Called once, before the first template starts. Not inherited by children.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")


def is_child(pid: int) -> bool:
    """Whether a process is this one's child by birth or adoption, dead or alive, and not reaped."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):
        return False
    return True


class OrphanReaper:
    """Reaps dead children of another session that nobody here waits for.

    Args:
        spared: Whether a pid is waited for by somebody, or may be in a moment.
    """

    def __init__(self, spared: Callable[[int], bool]) -> None:
        self._spared = spared
        self._session = os.getsid(0)

    def reap(self) -> list[int]:
        """Reap what is dead now; returns the pids."""
        buried: list[int] = []
        for pid in procfs.children():
            if self._spared(pid) or not procfs.is_zombie(pid):
                continue
            if procfs.session(pid) == self._session:
                continue
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
                buried.append(pid)
        return buried

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reap whenever a child ends. Needs the main thread; ends by cancellation."""
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            task_status.started()
            self.reap()
            async for _ in signals:
                self.reap()


class OomCounter:
    """Counts the kernel's out-of-memory kills around us.

    Reads the control group's own counter where there is one, else the machine's. Each kill is
    attributed to at most one death.
    """

    def __init__(self) -> None:
        self._path = _oom_file()
        self._seen = self._read()

    def take(self) -> bool:
        """Whether a kill happened that no earlier call was told of; it is attributed now."""
        if self._read() <= self._seen:
            return False
        self._seen += 1
        return True

    def _read(self) -> int:
        try:
            for line in self._path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            pass
        return 0


def _oom_file() -> Path:
    """The file with an `oom_kill` line that is nearest to this process."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _number, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        below = path.lstrip("/")
        if "memory" in controllers.split(","):
            candidate = root / "memory" / below / "memory.oom_control"
        elif not controllers:
            candidate = root / below / "memory.events"
        else:
            continue
        if candidate.is_file():
            return candidate
    return Path("/proc/vmstat")
