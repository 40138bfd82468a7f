"""What `system.info` tells: the daemon, its formats, the machine's devices, the catalog's state."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from hybridd import __version__
from hybridd.backends.registry import FormatInfo
from hybridd.catalog.library import Library
from hybridd.serving.manager import Manager
from hybridd.wire import protocol

# What this daemon does beyond the methods themselves, for clients that want to know beforehand.
FEATURES = ("streaming", "progress", "cancel", "events", "jobs", "smart_switching", "batches")


class Information:
    """Gathers; owns nothing."""

    def __init__(
        self,
        socket: str,
        formats: Callable[[], Iterable[FormatInfo]],
        manager: Manager,
        library: Library,
    ) -> None:
        self._socket = socket
        self._formats = formats
        self._manager = manager
        self._library = library
        self._started_at = time.time()
        self._started = time.monotonic()

    async def read(self) -> dict[str, Any]:
        """docs/protocol.md's `system.info`."""
        reading = await self._manager.measure()
        snapshot, remedy = self._library.snapshot, self._library.polling_remedy
        return {
            "name": "hybridd",
            "version": __version__,
            "protocol": {"major": protocol.PROTOCOL_MAJOR, "minor": protocol.PROTOCOL_MINOR},
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "socket": self._socket,
            "formats": [info.to_wire() for info in self._formats()],
            "devices": [device.to_wire() for device in reading.snapshot.devices],
            "catalog": {
                "complete": snapshot.complete,
                "scanned_at": snapshot.scanned_at,
                "models": sum(record.available for record in snapshot.models.values()),
                "revision": snapshot.revision,
                "watching": self._library.watching,
                **({"polling_remedy": remedy} if remedy else {}),
                "places": [root._asdict() for root in self._library.roots],
                "problems": list(snapshot.problems),
            },
            "features": list(FEATURES),
        }

    def status_line(self) -> str:
        """One line for `systemctl status`."""
        snapshot = self._library.snapshot
        usable = sum(record.available for record in snapshot.models.values())
        loaded = self._manager.loaded_models
        listed = f"{usable} models" + ("" if snapshot.complete else " so far, scanning")
        return f"{listed}; loaded: {', '.join(loaded) or 'none'}"
