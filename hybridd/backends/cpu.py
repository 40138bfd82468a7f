"""How many threads an engine should compute with on this machine's processors."""

from __future__ import annotations

import os
from pathlib import Path

# Below this a token's work is so short that handing it to a second thread takes longer than it
# saves, above all beside other processes.
_SMALL_MODEL_BYTES = 32 * 1024 * 1024


def threads_for(weights_bytes: int) -> int:
    """What computes a model of that size best: one thread for a tiny one, else all cores."""
    return 1 if weights_bytes < _SMALL_MODEL_BYTES else usable_cores()


def usable_cores() -> int:
    """The physical cores that this process may use: more threads would wait for each other."""
    allowed = os.sched_getaffinity(0)
    cores = len({_core(cpu) for cpu in allowed})
    quota = _quota()
    return max(1, cores if quota is None else min(cores, quota))


def _core(cpu: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package = (topology / "physical_package_id").read_text().strip()
        return package, (topology / "core_id").read_text().strip()
    except OSError:
        return "", str(cpu)


def _quota() -> int | None:
    """The processors that a container's limit amounts to; None without one."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(limit) / int(period)))
    except (OSError, ValueError):
        return None
