"""NVIDIA GPUs through NVML. A machine without a driver simply has none.

NVML calls can block for milliseconds, and for seconds on a device that is waking up, so callers
run `Gpus.read` in a thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU's memory at one moment; `by_pid` are bytes by process."""

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    by_pid: dict[int, int]


class Gpus:
    """The driver's view. Every failure makes the list empty, with one log line."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._said = False

    def open(self) -> None:
        """Connect to the driver where there is one."""
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        except Exception as exc:  # no driver, no library, no permission: all mean no GPU
            self._say(exc)

    def read(self) -> list[Gpu]:
        """All GPUs now."""
        nvml = self._nvml
        if nvml is None:
            return []
        try:
            return [self._read_one(nvml, i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as exc:
            self._say(exc)
            return []

    def close(self) -> None:
        """Let go of the driver."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError as exc:
                self._say(exc)

    def _read_one(self, nvml: Any, index: int) -> Gpu:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        by_pid: dict[int, int] = {}
        for listing in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            try:
                for process in listing(handle):
                    by_pid[process.pid] = process.usedGpuMemory or 0
            except nvml.NVMLError:
                continue  # not every device reports both
        return Gpu(
            index,
            _text(nvml.nvmlDeviceGetName(handle)),
            _text(nvml.nvmlDeviceGetUUID(handle)),
            int(memory.total),
            int(memory.free),
            by_pid,
        )

    def _say(self, exc: Exception) -> None:
        if not self._said:
            self._said = True
            log.info("no NVIDIA GPU: %s", exc)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
