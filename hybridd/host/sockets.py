"""Unix sockets: each bound once, for one daemon, readable by its owner alone; and systemd's.

A lock file beside the socket is held for the daemon's life; the kernel lets go of it however the
daemon ends, so a socket file without a held lock is stale and is replaced. `Endpoint` owns both.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import trio

log = logging.getLogger(__name__)

# A client that connects while 4,096 others wait for accept is told to try again by the kernel.
BACKLOG = 4096
_FIRST_ACTIVATION_FD = 3  # sd_listen_fds(3)
# FileDescriptorName= of the gateway's socket unit; sockets of any other name are the daemon's own.
_HTTP = "http"


class AlreadyRunning(Exception):
    """Another daemon has the socket.

    Attributes:
        pid: Its process id, None when it could not be learned.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"a hybridd already runs on {path}" + (f" (pid {pid})" if pid else ""))
        self.pid = pid


@dataclass
class Endpoint:
    """A listening socket with its lock."""

    path: str
    socket: socket.socket
    lock_fd: int
    activated: bool
    inode: tuple[int, int] | None

    def close(self) -> None:
        """Stop listening; remove the socket file if it is still ours and not systemd's."""
        self.socket.close()
        if not self.activated and self.inode is not None:
            with contextlib.suppress(OSError):
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self.inode:
                    os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.unlink(self.path + ".lock")
        os.close(self.lock_fd)


def open_endpoint(path: str, activated: socket.socket | None = None) -> Endpoint:
    """Take over systemd's socket or bind our own.

    Args:
        path: Of the socket; beside it lies the lock.
        activated: What `activated_sockets` found for it; the endpoint owns it from here on.

    Raises:
        AlreadyRunning: Another daemon holds the lock or answers on the socket.
        OSError: The directory or the socket cannot be made.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    lock_fd = _lock(path)
    try:
        if activated is not None:
            return Endpoint(_bound_path(activated) or path, activated, lock_fd, True, None)
        _remove_stale(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # chmod after bind would leave a moment in which others may connect.
            before = os.umask(0o177)
            try:
                made.bind(path)
            finally:
                os.umask(before)
            made.listen(BACKLOG)
            made.setblocking(False)
            found = os.stat(path)
        except OSError:
            made.close()
            raise
        return Endpoint(path, made, lock_fd, False, (found.st_dev, found.st_ino))
    except BaseException:
        os.close(lock_fd)
        raise


def _lock(path: str) -> int:
    """Take the lock file's lock; the file names our pid for whoever comes second."""
    while True:
        fd = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 32, 0).strip()
            os.close(fd)
            raise AlreadyRunning(path, int(text) if text.isdigit() else None) from None
        # The one before us may have removed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            ours, there = os.fstat(fd), os.stat(path + ".lock")
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
                return fd
        os.close(fd)


def _remove_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(f"{path} exists and is no socket; remove it or set HYBRIDD_SOCKET")
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except TimeoutError:
            raise AlreadyRunning(path, None) from None
        raise AlreadyRunning(path, peer_of(probe)[0])


def activated_sockets(environment: Mapping[str, str]) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd passed (sd_listen_fds_with_names(3)), not inheritable.

    Returns:
        "rpc" and "http", each with its sockets, which the caller owns.
    """
    found: dict[str, list[socket.socket]] = {"rpc": [], "http": []}
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return found
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for index in range(int(count)):
        fd = _FIRST_ACTIVATION_FD + index
        try:
            made = socket.socket(fileno=fd)
        except OSError as exc:
            log.warning("descriptor %d of systemd is no socket: %s", fd, exc)
            continue
        made.set_inheritable(False)
        made.setblocking(False)
        named = names[index] if index < len(names) else ""
        found["http" if named == _HTTP else "rpc"].append(made)
    return found


def _bound_path(listening: socket.socket) -> str | None:
    name = listening.getsockname()
    return name if isinstance(name, str) and name else None


def peer_of(connected: socket.socket | trio.socket.SocketType) -> tuple[int, int, int]:
    """The peer's (pid, uid, gid) as the kernel took them at connect."""
    packed = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", packed)
    return pid, uid, gid


def may_connect(connected: trio.socket.SocketType, workers: Callable[[], Collection[int]]) -> bool:
    """Whether a Unix socket's client may be served: one of the daemon's user, or root.

    Args:
        workers: Pids of our own workers, which are no clients: a model's code must not drive the
            daemon that runs it.
    """
    with contextlib.suppress(OSError):
        pid, uid, _ = peer_of(connected)
        if uid not in (os.getuid(), 0):
            log.warning("refused a client of uid %d (pid %d)", uid, pid)
        elif pid in workers():
            log.warning("refused a worker (pid %d) as a client", pid)
        else:
            return True
    return False
