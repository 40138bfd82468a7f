"""What a worker and a template tell the kernel about themselves.

Linux only, through `prctl` and `/proc`; knows nothing of models. Everything here is called on the
main thread of a process that has no other thread yet.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_STAT_ARG_START, _STAT_ARG_END = 45, 46  # of the fields behind the name; 0 for who may not know
# Out of memory, the kernel takes the process with the highest score: a worker, which costs one
# model, rather than the daemon or the user's editor. 500 of 1000 adds half of the machine's memory
# to what it seems to use.
_OOM_SCORE_RAISE = 500
# How long an orphaned worker waits to be adopted; it takes microseconds, as its parent has
# nothing to do but to end.
_ADOPTION_S = 10.0
_ADOPTION_POLL_S = 0.0005
_THREAD_POLL_S = 0.0001
_LOWEST_PRIORITY = 19


def _prctl(option: int, argument: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    value: object = ctypes.c_char_p(argument) if isinstance(argument, bytes) else argument
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def set_name(name: str) -> None:
    """Set the name that `ps` and `top` show; the kernel keeps 15 bytes of it."""
    with contextlib.suppress(OSError):
        _prctl(_PR_SET_NAME, name.encode("utf-8", "replace")[:15])


def set_title(title: str) -> None:
    """Set the command line that `ps` shows, over the one that a fork has from its template.

    The kernel reads it from this process's own memory, between two addresses that it tells. What
    does not fit is cut; the last byte has to stay zero.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        start, end = int(fields[_STAT_ARG_START]), int(fields[_STAT_ARG_END])
        room = end - start
        if start > 0 and room > 1:
            data = title.encode("utf-8", "replace")[: room - 1]
            ctypes.memmove(start, data.ljust(room, b"\0"), room)


def raise_oom_score(daemon: int) -> None:
    """Let the kernel prefer this process to `daemon` when memory runs out.

    Counted from there, since a template of one model was raised before its workers are forked.
    Raising needs no privilege.
    """
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{daemon}/oom_score_adj") as file:
            score = int(file.read())
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(min(1000, score + _OOM_SCORE_RAISE)))


def die_with(parent: int) -> bool:
    """Let the kernel kill this process when the process `parent` ends.

    The signal goes by the *thread* of the parent that started or adopted this process: the caller
    has to know that this is the parent's main thread.

    Returns:
        False when the parent was gone before the signal was armed: the caller has to end.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def wait_for_adoption(parent: int, by: int) -> bool:
    """Wait until the process `parent` has ended and `by`, a subreaper, adopted this one.

    There is no event for it: the kernel hands children over after it closed the parent's
    descriptors, so a poll for some microseconds it is.

    Returns:
        False when another process adopted it: the daemon is gone.
    """
    deadline = time.monotonic() + _ADOPTION_S
    while (now := os.getppid()) == parent and time.monotonic() < deadline:
        time.sleep(_ADOPTION_POLL_S)
    return now == by


def reset_signals() -> None:
    """Give every signal its default again, but ignore what a terminal sends to everyone.

    Ctrl-C reaches the whole foreground group; a worker ends when the daemon says so.
    """
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def own_session() -> None:
    """Leave the terminal and its process group; a process that leads a group already stays."""
    with contextlib.suppress(PermissionError):
        os.setsid()


def log_to(fd: int) -> None:
    """Make `fd` the standard output and error, also of native code, and have no standard input."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    # Where a native crash happened goes to the log; the signal then ends the process as before.
    faulthandler.enable(file=2, all_threads=False)


def at_low_priority(work: Callable[[], None]) -> None:
    """Do something in a thread of the lowest priority, which is gone when this returns.

    Only a thread's own priority: raising this process's again would need privileges, and what is
    forked from it would keep it. What the work raises is raised here, as without the thread.
    Where the kernel allows no other priority, it is done at this one.
    """
    raised: list[BaseException] = []

    def lowered() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        try:
            work()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=lowered)
    thread.start()
    thread.join()
    # Python has joined it before the kernel is done with it, for some microseconds.
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        time.sleep(_THREAD_POLL_S)
    if raised:
        raise raised[0]


def thread_count() -> int:
    """How many threads the kernel sees in this process, those of native code included."""
    return len(os.listdir("/proc/self/task"))
