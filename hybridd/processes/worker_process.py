"""One worker as the daemon sees it: a process, a framed channel and a log.

Knows nothing of what the frames mean. `ProcessHost` makes it, runs its tasks in its own nursery
and so owns its lifetime; others send, receive, wait and kill.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import deque
from dataclasses import dataclass
from typing import Any

import trio

from hybridd.wire.errors import HybriddError
from hybridd.wire.framing import LineDecoder, decode_line, encode_line

from . import procfs
from .child_log import LogPipe
from .reaper import OomCounter

# The same as `worker.channel` has, which says why.
MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_FRAME_VALUES = MAX_FRAME_BYTES // 2
_RECEIVE_BYTES = 64 * 1024
# A sender waits while this much lies unsent: the worker's reader takes frames at once, whatever
# its engine does, so only a stopped worker comes here.
_MAX_UNSENT_BYTES = 32 * 1024 * 1024
# A frame costs some 50 µs to deal with; other tasks get their turn after so many in a row.
_FRAMES_IN_A_ROW = 16


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by an exit code or by a signal.

    Attributes:
        oom: The kernel killed it because memory ran out.
    """

    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False


class WorkerProcess:
    """A running worker; made by `ProcessHost.start_worker`.

    Args:
        pid: A child of this process.
        sock: The daemon's end of the channel, non-blocking or not; owned from now on.
        log: What reads the worker's output.
        oom: Shared by all workers of a host.

    Attributes:
        pid: The process's id.
        started: Its start in clock ticks since boot; with the pid it names the process for ever.
    """

    def __init__(self, pid: int, sock: socket.socket, log: LogPipe, oom: OomCounter) -> None:
        self.pid = pid
        self.started = procfs.started(pid) or 0
        self._pidfd = os.pidfd_open(pid)
        sock.setblocking(False)
        self._sock = sock
        self._decoder = LineDecoder(MAX_FRAME_BYTES)
        self._log = log
        self._oom = oom
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._changed = trio.Event()
        self._closed = False  # nothing can be sent any more
        self._at_end = False  # nothing more comes than what the decoder holds
        self._in_a_row = 0  # frames given out without letting others run
        self._killed_by_us = False
        self._status: ExitStatus | None = None
        self._exited = trio.Event()

    # ------------------------------------------------------------------ frames

    async def send(self, frame: dict[str, Any]) -> None:
        """Queue a frame, whole and in order; being cancelled never leaves half a frame behind.

        Raises:
            trio.BrokenResourceError: The worker is gone or has closed the channel.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.BrokenResourceError("the worker has closed its channel")
        data = encode_line(frame)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._wake()
        while self._unsent_bytes > _MAX_UNSENT_BYTES and not self._closed:
            await self._changed.wait()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive(self) -> dict[str, Any]:
        """Wait for the worker's next frame; for one task. Being cancelled loses no frame.

        A frame that is here already is given out without a checkpoint, but for one now and then:
        a turn of the event loop costs more than all else that a token needs.

        Raises:
            EOFError: The worker closed the channel, or sent what is no frame and was killed.
        """
        if self._in_a_row >= _FRAMES_IN_A_ROW:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()
        while (frame := self._next_frame()) is None:
            if self._at_end:
                raise EOFError("the worker has closed its channel")
            self._in_a_row = 0
            try:
                await trio.lowlevel.wait_readable(self._sock)
            except trio.ClosedResourceError:
                continue
            self._fill()
        self._in_a_row += 1
        return frame

    def _next_frame(self) -> dict[str, Any] | None:
        try:
            line = self._decoder.next_line()
            return None if line is None else dict(decode_line(line, MAX_FRAME_VALUES))
        except (HybriddError, TypeError, ValueError) as exc:
            self._log.say(f"a frame of the worker is bad: {exc}")
            self.kill(signal.SIGKILL)
            self._decoder = LineDecoder(MAX_FRAME_BYTES)
            self._at_end = True
            return None

    def _fill(self) -> bool:
        """Read once; whether there was something to read."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data and not self._at_end:
            self._decoder.feed(data)
        else:
            self._at_end = True
        return bool(data)

    # ------------------------------------------------------------------ the process

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it lives."""
        return self._status

    async def wait(self) -> ExitStatus:
        """Wait until the process has ended and was reaped; its log is complete then."""
        await self._exited.wait()
        assert self._status is not None
        return self._status

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Send a signal; never hits a stranger that got the pid later. Gone is no error."""
        if self._status is None:
            self._killed_by_us = self._killed_by_us or sig == signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, sig)

    def log_tail(self, count: int = 20) -> list[str]:
        """The last lines that the worker and its native libraries wrote."""
        return self._log.tail.last(count)

    def memory(self) -> dict[str, int]:
        """`private_bytes` and `file_bytes`, as `procfs.memory` says; zeros when gone.

        Takes some 10 ms for each resident GiB: for a big worker, call it in a thread.
        """
        return procfs.memory(self.pid) if self._status is None else procfs.memory(-1)

    def work_done(self) -> tuple[int, int]:
        """Clock ticks of processor time used, and bytes read; zeros when gone."""
        if self._status is not None:
            return 0, 0
        return procfs.cpu_ticks(self.pid), procfs.bytes_read(self.pid)

    def stopped(self) -> bool:
        """Whether it is in state T: stopped by a signal or a debugger."""
        return self._status is None and procfs.state(self.pid) in {"T", "t"}

    # ------------------------------------------------------------------ its tasks

    async def run(self) -> None:
        """Write, read the log and reap. Ends when the process has; cancelled, it kills first."""
        ended = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log.run)
                nursery.start_soon(self._write)
                await trio.lowlevel.wait_readable(self._pidfd)
                ended = True
                nursery.cancel_scope.cancel()
        finally:
            if not ended:
                self.kill(signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(self._pidfd)
            self._bury()

    def _bury(self) -> None:
        self._status = self._reap()
        os.close(self._pidfd)
        self._log.finish()
        # What the worker had sent before it ended can still be received.
        for _ in range(MAX_FRAME_BYTES // _RECEIVE_BYTES):
            if not self._fill():
                break
        self._at_end = self._closed = True
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._unsent.clear()
        self._wake()
        self._exited.set()

    def _reap(self) -> ExitStatus:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return ExitStatus(exit_code=-1)  # somebody else reaped it
        assert result is not None
        if result.si_code == os.CLD_EXITED:
            return ExitStatus(exit_code=result.si_status)
        killed = result.si_status == signal.SIGKILL and not self._killed_by_us
        return ExitStatus(signal=result.si_status, oom=killed and self._oom.take())

    async def _write(self) -> None:
        while not self._closed:
            while self._unsent:
                data = memoryview(self._unsent[0])
                try:
                    while data:
                        await trio.lowlevel.wait_writable(self._sock)
                        with contextlib.suppress(BlockingIOError):
                            data = data[self._sock.send(data) :]
                except OSError:
                    self._closed = True
                    self._wake()
                    return
                self._unsent_bytes -= len(self._unsent.popleft())
                self._wake()
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
