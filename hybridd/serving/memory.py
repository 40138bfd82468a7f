"""Readings of the machine's memory for the planner and for `system.info`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import trio

from hybridd.core.devices import CPU, Device, Snapshot
from hybridd.host import memory as host_memory
from hybridd.host.gpu import Gpus
from hybridd.processes.worker_process import WorkerProcess
from hybridd.wire import units


@dataclass(frozen=True)
class Reading:
    """One reading: the devices, and what each worker holds, by pid."""

    snapshot: Snapshot
    workers: Mapping[int, Mapping[str, int]]
    templates: Mapping[str, Mapping[str, int]]


class MemoryMeter:
    """Reads in a thread, since smaps takes 10 ms for a resident GiB and NVML may block.

    Args:
        limit: `limits.ram_max` or `limits.vram_max` by name.
        workers: The workers alive now.
        templates: What the templates hold, by their labels.
        spare: Bytes of theirs that are given back where memory is needed; they count as free.
        lived_on: Bytes of theirs that models' workers share. They count as those workers': each
            model's reservation has them.
    """

    def __init__(
        self,
        gpus: Gpus,
        limit: Callable[[str], Any],
        workers: Callable[[], list[WorkerProcess]],
        templates: Callable[[], Mapping[str, dict[str, int]]],
        spare: Callable[[], int],
        lived_on: Callable[[], int],
    ) -> None:
        self._gpus = gpus
        self._limit = limit
        self._workers = workers
        self._templates = templates
        self._spare = spare
        self._lived_on = lived_on
        self._cpu_name = host_memory.cpu_name()

    async def read(self) -> Reading:
        """Read everything now."""
        return await trio.to_thread.run_sync(
            self._read, self._workers(), self._templates(), self._spare(), self._lived_on()
        )

    def _read(
        self,
        workers: list[WorkerProcess],
        templates: Mapping[str, Mapping[str, int]],
        spare: int,
        lived_on: int,
    ) -> Reading:
        held = {w.pid: w.memory() for w in workers}
        total, free = host_memory.main_memory()
        devices = [
            Device(
                CPU,
                "cpu",
                self._cpu_name,
                total,
                min(total, free + spare),
                units.parse_size(self._limit("limits.ram_max"), total),
                sum(m["private_bytes"] for m in held.values()) + lived_on,
                sum(m["private_bytes"] for m in templates.values()) - lived_on,
            )
        ]
        for gpu in self._gpus.read():
            ours = sum(size for pid, size in gpu.by_pid.items() if pid in held)
            limit = units.parse_size(self._limit("limits.vram_max"), gpu.total_bytes)
            devices.append(
                Device(
                    f"cuda:{gpu.index}",
                    "cuda",
                    gpu.name,
                    gpu.total_bytes,
                    gpu.free_bytes,
                    limit,
                    ours,
                    uuid=gpu.uuid,
                )
            )
        return Reading(Snapshot(tuple(devices)), held, templates)

    def holds_gpu(self, pid: int) -> bool:
        """Whether the driver still shows memory of this process. Blocks: call it in a thread."""
        return any(gpu.by_pid.get(pid) for gpu in self._gpus.read())
