"""Thins out a load's progress reports to what a person can see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from hybridd.backends.api import LoadCancelled

# Twenty frames a second look smooth; a loader that reports per tensor makes thousands.
_INTERVAL_S = 0.05


class Progress:
    """The `report` that an engine's `load` gets; safe to call from a loader's threads.

    Sends the first report of each stage, then at most twenty a second, and each stage's last one
    always.

    Args:
        send: Takes one frame.
        cancelled: Whether the load is to stop.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], None],
        cancelled: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._cancelled = cancelled
        self._clock = clock
        self._lock = threading.Lock()
        self._stage: str | None = None
        self._pending: dict[str, Any] | None = None
        self._sent_at = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` of a stage is done.

        Raises:
            LoadCancelled: The load is to stop.
        """
        if self._cancelled():
            raise LoadCancelled
        frame = {"op": "progress", "stage": stage, "done": int(done), "total": int(total)}
        with self._lock:
            now = self._clock()
            if stage != self._stage:
                self._flush()
                self._stage = stage
            elif done < total and now - self._sent_at < _INTERVAL_S:
                self._pending = frame
                return
            self._pending = None
            self._sent_at = now
            self._send(frame)

    def flush(self) -> None:
        """Send the last report that was held back."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            frame, self._pending = self._pending, None
            self._send(frame)
