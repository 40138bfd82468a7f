"""Readings of the machine's memory: what of it counts as whose."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hybridd.serving.memory import MemoryMeter

GPUS: Any = SimpleNamespace(read=list)


async def test_what_templates_of_models_hold_is_free_or_their_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model takes as much room with a vocabulary that its template keeps as with its own."""
    monkeypatch.setattr("hybridd.host.memory.main_memory", lambda: (1000, 500))
    worker: Any = SimpleNamespace(pid=7, memory=lambda: {"private_bytes": 100, "file_bytes": 0})
    templates = {
        label: {"private_bytes": size, "file_bytes": 0}
        for label, size in {"gguf": 20, "gguf:loaded": 30, "gguf:left": 40}.items()
    }
    meter = MemoryMeter(
        GPUS,
        {"limits.ram_max": "100%"}.__getitem__,
        lambda: [worker],
        lambda: templates,
        lambda: 40,
        lambda: 30,
    )
    reading = await meter.read()
    (cpu,) = reading.snapshot.devices
    assert (cpu.free_bytes, cpu.hybridd_bytes, cpu.templates_bytes) == (540, 130, 60)
    assert cpu.capacity_bytes == 670
    assert dict(reading.templates) == templates
