"""Small facts about one process, read from /proc.

Every reader answers None or zeros for a process that is gone: it may be at any time.
"""

from __future__ import annotations

import os
from pathlib import Path

_STAT_PARENT, _STAT_SESSION = 1, 3
_STAT_UTIME, _STAT_STIME, _STAT_STARTED = 11, 12, 19


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may itself hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rfind(")") + 2 :].split()


def started(pid: int) -> int | None:
    """When it started, in clock ticks since boot; with the pid it names one process for ever."""
    fields = _stat(pid)
    return int(fields[_STAT_STARTED]) if fields else None


def session(pid: int) -> int | None:
    """Its session; a zombie has one still."""
    fields = _stat(pid)
    return int(fields[_STAT_SESSION]) if fields else None


def is_zombie(pid: int) -> bool:
    """Whether it has ended and waits to be reaped."""
    fields = _stat(pid)
    return bool(fields) and fields is not None and fields[0] in {"Z", "X"}


def state(pid: int) -> str | None:
    """The state's letter: R, S, D, T (stopped), Z, …"""
    fields = _stat(pid)
    return fields[0] if fields else None


def cpu_ticks(pid: int) -> int:
    """Clock ticks of processor time that all its threads have used."""
    fields = _stat(pid)
    return int(fields[_STAT_UTIME]) + int(fields[_STAT_STIME]) if fields else 0


def bytes_read(pid: int) -> int:
    """Bytes that it asked for by reading, and bytes that came from disks, mapped files included."""
    found = 0
    try:
        with open(f"/proc/{pid}/io") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("rchar", "read_bytes"):
                    found += int(value)
    except OSError:
        pass  # gone, or a kernel without such accounts
    return found


def memory(pid: int) -> dict[str, int]:
    """Bytes resident that this process alone maps: what a worker costs.

    `private_bytes` are its own (anonymous and written pages), `file_bytes` are pages of files that
    no other process maps: memory-mapped weights, not the libraries that a template shares. The
    kernel walks the page tables for it, some 10 ms for each resident GiB of small pages.
    """
    sizes = _rollup(pid)
    return {
        "private_bytes": sizes.get("Private_Dirty", 0),
        "file_bytes": sizes.get("Private_Clean", 0),
    }


def shared_memory(pid: int) -> dict[str, int]:
    """Bytes resident in this process, shared or not: what a template costs.

    Its pages are shared with the workers that it forked, which are not charged for them; what it
    alone maps would shrink with every worker that comes.
    """
    sizes = _rollup(pid)
    anonymous = sizes.get("Anonymous", 0)
    return {"private_bytes": anonymous, "file_bytes": max(0, sizes.get("Rss", 0) - anonymous)}


def _rollup(pid: int) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                name, _, rest = line.partition(":")
                if rest.endswith(" kB\n"):
                    found[name] = int(rest.split()[0]) * 1024
    except OSError:
        pass  # gone, or a zombie
    return found


def children() -> list[int]:
    """Pids of this process's children, zombies too, whichever of its threads is their parent."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            found.extend(map(int, path.read_text().split()))
        except OSError:
            continue
    return found if _HAS_CHILDREN else _children_by_scan()


def _children_by_scan() -> list[int]:
    """The same where the kernel was built without CONFIG_PROC_CHILDREN."""
    own = str(os.getpid())
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [pid for pid in pids if (fields := _stat(pid)) and fields[_STAT_PARENT] == own]


_HAS_CHILDREN = os.path.exists("/proc/thread-self/children")
