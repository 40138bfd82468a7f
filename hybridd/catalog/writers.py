"""Whether a program has a file open for writing, as far as the kernel tells.

A lease for reading (`fcntl(2)`, `F_SETLEASE`) is granted only while no program has the file open
for writing, or mapped so. It is asked for and given back at once. Only a file's owner may ask, and
not every file system can tell: NFS and SMB answer for their server. There the open files of this
user's own processes are looked through; what other users and other machines write is not seen.

Blocks, and is used from a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# EAGAIN of these says that the server gave no delegation (or oplock), not that a program writes.
_REMOTE = ("nfs", "cifs", "smb")
# Write permission of a link in /proc/PID/fd: the descriptor is open for writing.
_WRITABLE = stat.S_IWUSR


class Writers:
    """Answers for one moment: one for each look at the disk, not kept."""

    def __init__(self) -> None:
        self._ours: frozenset[str] | None = None

    def has(self, path: str | os.PathLike[str]) -> bool:
        """Whether a regular file is open for writing; False where there is none."""
        try:
            # Neither waits for a FIFO's other end nor for the holder of another lease.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False  # gone, or not to be read: inspecting it will say so
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            with leased(descriptor):
                return False
        except OSError as error:
            if error.errno == errno.EAGAIN and not _remote(descriptor):
                return True
        finally:
            os.close(descriptor)
        if self._ours is None:
            self._ours = frozenset(_open_for_writing())
        return os.path.realpath(path) in self._ours


@contextmanager
def leased(descriptor: int) -> Iterator[None]:
    """Hold a lease for reading.

    A program that opens the file for writing meanwhile waits until it is given back, and the kernel
    tells us by a signal. That would be SIGIO, which ends a process; SIGURG does nothing unless it
    is handled.

    Raises:
        OSError: EAGAIN while the file is open for writing; others where there are no leases.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    try:
        yield
    finally:
        with suppress(OSError):  # the kernel takes it back where it is held too long
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _remote(descriptor: int) -> bool:
    """Whether a descriptor's file system is another machine's."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:
            mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            mounted = next(line for line in lines if line.split(" ", 1)[0] == mount)
    except (OSError, StopIteration):
        return True  # what cannot be told does not keep a model from being listed
    return mounted.partition(" - ")[2].startswith(_REMOTE)


def _open_for_writing() -> Iterator[str]:
    """Paths that processes of this user have open for writing.

    Only links are read: to ask for a file on a server that is gone would wait for ever.
    """
    user = os.geteuid()
    for process in os.scandir("/proc"):
        if not process.name.isdecimal():
            continue
        with suppress(OSError):  # it ended, or is closed to us
            if process.stat().st_uid != user:
                continue
            for entry in os.scandir(f"{process.path}/fd"):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mode & _WRITABLE:
                        yield os.readlink(entry.path)
