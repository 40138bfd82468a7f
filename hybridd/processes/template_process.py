"""One template as the daemon sees it: started once, asked for forks, left alone at its end.

`Templates` decides when one starts and how long it stays. A template is a child of this process's
main thread, because the signal that ends it with its parent goes by that thread.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import trio

import hybridd
from hybridd.wire.errors import HybriddError, LoadFailed, from_wire
from hybridd.wire.framing import LineDecoder, decode_line, encode_line

from . import procfs
from .child_io import Ends

_LOG = logging.getLogger(__name__)
_RECEIVE_BYTES = 64 * 1024
# A fork takes milliseconds, seconds on a machine that swaps; past this the template hangs.
_FORK_TIMEOUT_S = 10.0
# Reading torch from a cold, slow disk took a minute; past this the import hangs.
_IMPORT_TIMEOUT_S = 300.0
# A model's template reads some megabytes of one file, and a load waits for what would only make it
# faster: it hangs, as a worker does, when it gains neither processor time nor bytes for so long.
_HUNG_AFTER_S = 10.0

# What every engine's process gets; each says why it is there.
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # NumPy's import would make a second thread, and forbid the fork
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch counts GPUs without initialising CUDA
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # NVML's devices are torch's
    "HF_HUB_OFFLINE": "1",  # models are files here; nothing is fetched
    "TOKENIZERS_PARALLELISM": "false",  # threads that a fork would lose
    "GGML_NO_BACKTRACE": "1",  # an aborting worker does not start gdb
}
# The service manager talks to the daemon alone; a child that inherits these would answer for it.
_NOT_FOR_CHILDREN = (
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "PYTHONHASHSEED",  # a worker's hashes are as random as anyone's
)
_SITES = ("site-packages", "dist-packages")  # where an installed package needs no help


def child_environment() -> dict[str, str]:
    """The environment of templates and workers."""
    kept = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_CHILDREN}
    home = str(Path(hybridd.__file__).parent.parent)
    if Path(home).name not in _SITES:
        # Run out of a checkout: the child has neither our directory nor our import path.
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, [kept.get("PYTHONPATH"), home]))
    return {**kept, **ENVIRONMENT}


def spawn(module: str, sock: socket.socket, log_fd: int, *arguments: str) -> int:
    """Start `python -m module --fd N --daemon PID …` as a child of this thread; returns the pid.

    Call it on the main thread. The child gets the socket and the log and no other descriptor.
    -P keeps the current directory out of the child's import path. The child is waited for by its
    pidfd, not by the `Popen` object, which is let go at once.
    """
    command = [sys.executable, "-P", "-m", module, "--fd", str(sock.fileno())]
    child = subprocess.Popen(
        [*command, "--daemon", str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=log_fd,
        env=child_environment(),
        cwd="/",
        close_fds=True,
        pass_fds=(sock.fileno(),),
        start_new_session=True,
    )
    child.returncode = 0  # or it would warn of a running child, and reap it in our stead
    return child.pid


def load_failed(error: HybriddError) -> LoadFailed:
    """A fresh one that says the same: an exception that is raised twice grows its traceback.

    What is in it is not trusted, for a hostile file may have been read where it comes from.
    """
    made = LoadFailed(error.message)
    made.data = dict(error.data)
    return made


class TemplateGone(Exception):
    """The template ended, or hangs; start another."""


class ForkRefused(Exception):
    """The template lives but must not fork; start the worker without it."""


class Preparation(NamedTuple):
    """What a template of one model readies, beside the imports, for all workers of that model.

    Attributes:
        model: Its id, for people.
        factory: `package.module:callable`, called with `path` in the template.
        path: Where the model lies.
        state: Tells this state of its files from any other.
    """

    model: str
    factory: str
    path: str
    state: str


class TemplateProcess:
    """A template and the conversation with it; made by `start` or by another template's `prepare`.

    Args:
        name: The backend's.
        pid: A child of this process.
        ends: Its channel and log, taken over.
        model: Whose template it is; None for a backend's.
        extra: The optional dependency group that brings what it imports, for the message when
            something is missing.
    """

    def __init__(
        self, name: str, pid: int, ends: Ends, *, model: str | None = None, extra: str | None = None
    ) -> None:
        self.name = name
        self.pid = pid
        self.model = model
        self._extra = extra
        self._decoder = LineDecoder()
        self._turn = trio.Lock()
        self._forks = 0
        self._gone = trio.Event()
        self.forking = False
        self._own_bytes = 0
        self._pidfd = os.pidfd_open(pid)
        self._sock, self._log = trio.socket.from_stdlib_socket(ends.ours), ends.log
        ends.taken = True

    @classmethod
    def start(
        cls, name: str, modules: Sequence[str], extra: str | None, *, low_priority: bool = False
    ) -> TemplateProcess:
        """Start a backend's template, which imports `modules` before it forks.

        Args:
            low_priority: The imports give way to whatever else wants the processor.
        """
        arguments = ["--name", name, "--preload", ",".join(modules)]
        if low_priority:
            arguments.append("--low-priority")
        with Ends(f"template:{name}") as ends:
            pid = spawn("hybridd.worker.template", ends.theirs, ends.writing, *arguments)
            return cls(name, pid, ends, extra=extra)

    async def prepare(self, preparation: Preparation) -> TemplateProcess:
        """Have it fork a template of one model, which has yet to get ready.

        Raises:
            As `fork`.
        """
        asked = preparation._asdict()
        del asked["state"]
        with Ends(f"template:{self.name}:{preparation.model}") as ends:
            pid = await self.fork(ends, asked)
            return TemplateProcess(self.name, pid, ends, model=preparation.model)

    @property
    def label(self) -> str:
        """What people know it by: the backend, and the model where it is one's."""
        return self.name if self.model is None else f"{self.name}:{self.model}"

    async def until_ready(self, patience_s: float = _IMPORT_TIMEOUT_S) -> None:
        """Wait for the imports, or for what one model's workers share.

        Args:
            patience_s: Seconds after which it is taken to hang.

        Raises:
            LoadFailed: They failed, or the process ended; says what to install.
        """
        with trio.move_on_after(patience_s):
            try:
                frame = await self._first_frame()
            except TemplateGone:
                raise self._failure() from None
            if frame.get("op") == "ready":
                # What it has beyond the template that it was forked from; workers come to share it.
                self._own_bytes = procfs.memory(self.pid)["private_bytes"]
                return
            error = from_wire(frame.get("error"))
            missing = error.data.get("module")
            if missing is not None and self._extra is not None:
                error.message = (
                    f"the {self.name} engine needs the Python module {missing}, which is not "
                    f"installed; install it with: pip install 'hybridd[{self._extra}]'"
                )
            raise load_failed(error)
        self.kill()
        raise self._failure()

    async def _first_frame(self) -> dict[str, Any]:
        if self.model is None:
            return await self._receive()
        done = None
        while (now := (procfs.cpu_ticks(self.pid), procfs.bytes_read(self.pid))) != done:
            done = now
            with trio.move_on_after(_HUNG_AFTER_S):
                return await self._receive()
        self.kill()
        raise TemplateGone(self.label)

    async def fork(self, ends: Ends, prepare: Mapping[str, str] | None = None) -> int:
        """Have it fork a worker that gets its ends; returns the pid, our child.

        Args:
            prepare: Make it a template of one model, as `worker.template` says.

        Raises:
            TemplateGone: It ended or hangs.
            ForkRefused: It must not fork.
        """
        async with self._turn:
            self._forks += 1
            frame = {"op": "fork", "n": self._forks, "prepare": prepare}
            rights = array.array("i", [ends.theirs.fileno(), ends.writing]).tobytes()
            # Shielded: half a conversation would leave a worker that is not known here.
            with trio.CancelScope(shield=True), trio.move_on_after(_FORK_TIMEOUT_S):
                self.forking = True
                try:
                    await self._sock.sendmsg(
                        [encode_line(frame)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                    )
                    reply = await self._receive()
                except OSError as exc:
                    raise TemplateGone(self.name) from exc
                finally:
                    self.forking = False
                if reply.get("op") == "forked" and isinstance(reply.get("pid"), int):
                    return int(reply["pid"])
                raise ForkRefused(str(reply.get("reason")))
            self.kill()
            raise TemplateGone(self.name)

    async def run(self) -> None:
        """Keep its log and reap it. Ends when the process has; cancelled, it ends it first."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log.run)
                await trio.lowlevel.wait_readable(self._pidfd)
                nursery.cancel_scope.cancel()
        finally:
            self.kill()
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(self._pidfd)
            self._bury()

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        self._log.finish()
        self._sock.close()
        self._gone.set()

    @property
    def alive(self) -> bool:
        """Whether it was not reaped yet."""
        return not self._gone.is_set()

    def kill(self) -> None:
        """End it at once; its workers go on."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def gone(self) -> None:
        """Wait until it has ended and was reaped."""
        await self._gone.wait()

    def leave(self) -> None:
        """Close the channel, at which it ends by itself."""
        if self.alive:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def log_tail(self, count: int = 20) -> list[str]:
        """The last lines of its output."""
        return self._log.tail.last(count)

    def memory(self) -> dict[str, int]:
        """`private_bytes` and `file_bytes`, as `procfs.shared_memory` says; zeros when gone.

        Of a model's template only what it has beyond the backend's, which is charged already.
        """
        if self.model is not None and self.alive:
            return {"private_bytes": self._own_bytes, "file_bytes": 0}
        return procfs.shared_memory(self.pid if self.alive else -1)

    async def _receive(self) -> dict[str, Any]:
        try:
            while (line := self._decoder.next_line()) is None:
                data = await self._sock.recv(_RECEIVE_BYTES)
                if not data:
                    raise TemplateGone(self.name)
                self._decoder.feed(data)
            return dict(decode_line(line))
        except (OSError, trio.ClosedResourceError, HybriddError, TypeError, ValueError) as exc:
            self.kill()
            raise TemplateGone(self.name) from exc

    def _failure(self) -> LoadFailed:
        lines = self.log_tail(1)
        _LOG.error("the template of %s ended before it was ready: %s", self.label, lines)
        while_it = "imported its libraries" if self.model is None else f"read {self.model}"
        return LoadFailed(
            f"the {self.name} engine's process ended while it {while_it}",
            reason="engine_unavailable",
            detail=lines[-1] if lines else None,
        )
