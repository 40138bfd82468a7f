"""What the daemon says to a worker: read by a thread, so that it is heard during native code.

The thread puts every frame into a queue for the work loop, and at once notes what cannot wait for
the loop: a cancelled request, a cancelled load, a daemon that is gone.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from hybridd.wire.errors import HybriddError

from .channel import Channel

_log = logging.getLogger(__name__)
# With the channel closed this worker is not wanted any more: its memory is to be back at once. The
# grace lets the loop end by itself where it can; native code that goes on is ended with it.
_EXIT_GRACE_S = 0.5


def exit_hard() -> None:
    """End the process in spite of what its main thread is doing."""
    time.sleep(_EXIT_GRACE_S)
    sys.stderr.flush()
    os._exit(0)


class Mailbox:
    """The reading half of a worker; `start` begins the thread, which lives as long as the process.

    Args:
        channel: To read from; sending on it stays with the loop.
        on_lost: Called on the reader's thread once the channel has closed and the loop was told.
    """

    def __init__(self, channel: Channel, on_lost: Callable[[], None] = exit_hard) -> None:
        self._channel = channel
        self._on_lost = on_lost
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._load_cancelled = False
        self._ending = False

    def start(self) -> None:
        """Begin reading."""
        threading.Thread(target=self._read, name="mailbox", daemon=True).start()

    @property
    def empty(self) -> bool:
        """Whether `get` would wait, for the only one that calls it. Asked at each step."""
        return self._queue.empty()

    def get(self) -> dict[str, Any] | None:
        """Wait for the next frame for the loop; None when the channel closed."""
        return self._queue.get()

    def interrupted(self, request_id: int) -> bool:
        """Whether that request's outcome is not wanted any more. Cheap; for any thread."""
        return self._ending or request_id in self._cancelled

    def load_cancelled(self) -> bool:
        """Whether the load is not wanted any more. Cheap; for any thread."""
        return self._ending or self._load_cancelled

    def forget(self, request_id: int) -> None:
        """Drop the note of a cancelled request once the loop has dealt with it."""
        self._cancelled.discard(request_id)

    def _read(self) -> None:
        try:
            while True:
                self._sort(self._channel.receive())
        except (EOFError, OSError):
            pass
        except HybriddError as exc:
            _log.error("the daemon's frame is bad: %s", exc)
        self._ending = True
        self._queue.put(None)
        self._on_lost()

    def _sort(self, frame: dict[str, Any]) -> None:
        op = frame.get("op")
        if op == "cancel":
            self._cancelled.add(frame["id"])
        elif op == "cancel_load":
            self._load_cancelled = True
        elif op == "stop":
            self._ending = True
        self._queue.put(frame)
