"""Main memory: what the kernel, or the control group we live in, has in all and has free."""

from __future__ import annotations

import os
from pathlib import Path


def read_meminfo(path: str = "/proc/meminfo") -> dict[str, int]:
    """`/proc/meminfo` in bytes."""
    made = {}
    with open(path) as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            parts = rest.split()
            if len(parts) == 2 and parts[1] == "kB":
                made[name] = int(parts[0]) * 1024
    return made


def cgroup_limit(
    root: Path = Path("/sys/fs/cgroup"), own: str = "/proc/self/cgroup"
) -> tuple[int, int] | None:
    """The tightest `memory.max` on our way to the root, with that group's free bytes.

    Inactive file pages count as free, as they do in MemAvailable. None where there is no limit or
    no control group v2.
    """
    try:
        with open(own) as lines:
            line = next((text for text in lines if text.startswith("0::")), None)
    except OSError:
        return None
    if line is None:
        return None
    tightest: tuple[int, int] | None = None
    group = root / line[3:].strip().lstrip("/")
    while True:
        try:
            limit = (group / "memory.max").read_text().strip()
            if limit != "max":
                used = int((group / "memory.current").read_text())
                stats = dict(
                    row.split(" ", 1) for row in (group / "memory.stat").read_text().splitlines()
                )
                used -= int(stats.get("inactive_file", 0))
                found = (int(limit), max(0, int(limit) - used))
                if tightest is None or found[0] < tightest[0]:
                    tightest = found
        except (OSError, ValueError):
            pass
        if group == root or root not in group.parents:
            return tightest
        group = group.parent


def main_memory() -> tuple[int, int]:
    """(total, free) bytes of what this process may use."""
    info = read_meminfo()
    total, free = info["MemTotal"], info["MemAvailable"]
    limit = cgroup_limit()
    if limit is not None and limit[0] < total:
        total, free = limit[0], min(free, limit[1])
    return total, free


def cpu_name() -> str:
    """The processor as people know it."""
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return os.uname().machine
