"""The clients that wait for a look which begins after they asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from hybridd.core.catalog import ADDED, CHANGED, REMOVED, compare
from hybridd.core.model import ModelRecord

Progress = Callable[[str, int, int], None]


class ScanWaiter:
    """One client that waits.

    Args:
        before: The models that are listed at the time of the call.
        progress: Told `(stage, done, total)`.
    """

    def __init__(self, before: Mapping[str, ModelRecord], progress: Progress | None) -> None:
        self.before = before
        self.progress = progress
        self.done = trio.Event()
        self.deadline: float | None = None  # set once a look begun after the call is in

    def result(self, after: Mapping[str, ModelRecord]) -> dict[str, int]:
        """What changed since the call, by docs/protocol.md's names."""
        changes = compare(self.before, after)
        counts = {
            kind: sum(change.type == kind for change in changes)
            for kind in (ADDED, CHANGED, REMOVED)
        }
        return {**counts, "total": sum(record.available for record in after.values())}


class ScanWaiters:
    """All of them; a look answers those that were there when it began."""

    def __init__(self) -> None:
        self._waiting: list[ScanWaiter] = []
        self._looking: list[ScanWaiter] = []

    @property
    def urgent(self) -> bool:
        """Whether a client waits for which no look was begun yet."""
        return any(waiter.deadline is None for waiter in self._waiting)

    def add(self, waiter: ScanWaiter) -> None:
        """A client asks."""
        self._waiting.append(waiter)

    def remove(self, waiter: ScanWaiter) -> None:
        """A client was answered or does not wait any more."""
        for waiters in (self._waiting, self._looking):
            if waiter in waiters:
                waiters.remove(waiter)

    def begin(self) -> bool:
        """A look begins: a client that asks from now on has to wait for the next one.

        Returns:
            Whether a client waits for this one.
        """
        self._looking, self._waiting = self._waiting, []
        return bool(self._looking)

    def progress(self, done: int, total: int) -> None:
        """The look that was begun has inspected so many."""
        for waiter in self._looking:
            if waiter.progress is not None:
                waiter.progress("inspect", done, total)

    def fail(self) -> None:
        """The look did not come to an end."""
        self._looking, self._waiting = [], self._looking + self._waiting

    def finish(self, sorted_at: float, patience_s: float, *, written: bool) -> None:
        """The look is in the catalog; while files are being written, clients wait for a while.

        Args:
            sorted_at: When the look told files at rest from others. Not when it ended: one that
                took long has not seen what came to rest meanwhile.
            patience_s: How long after that of their first look clients wait.
            written: Whether some files were not at rest.
        """
        for waiter in self._looking:
            if waiter.deadline is None:
                waiter.deadline = sorted_at + patience_s
            if not written or sorted_at >= waiter.deadline:
                waiter.done.set()
        self._waiting = [w for w in self._looking if not w.done.is_set()] + self._waiting
        self._looking = []
