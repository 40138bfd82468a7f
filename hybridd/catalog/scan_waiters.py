"""Those who wait for a look that begins after they asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from hybridd.core.catalog import ADDED, CHANGED, REMOVED, compare
from hybridd.core.model import ModelRecord

Progress = Callable[[str, int, int], None]


class Caller:
    """One of them.

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
        made = {
            kind: sum(change.type == kind for change in changes)
            for kind in (ADDED, CHANGED, REMOVED)
        }
        return {**made, "total": sum(record.available for record in after.values())}


class Callers:
    """All of them; a look answers those who were there when it began."""

    def __init__(self) -> None:
        self._waiting: list[Caller] = []
        self._looking: list[Caller] = []

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for whom no look was begun yet."""
        return any(caller.deadline is None for caller in self._waiting)

    def add(self, caller: Caller) -> None:
        """Somebody asks."""
        self._waiting.append(caller)

    def remove(self, caller: Caller) -> None:
        """Somebody was answered or does not wait any more."""
        for callers in (self._waiting, self._looking):
            if caller in callers:
                callers.remove(caller)

    def begin(self) -> bool:
        """A look begins: whoever comes from now on has to wait for the next one.

        Returns:
            Whether anybody waits for this one.
        """
        self._looking, self._waiting = self._waiting, []
        return bool(self._looking)

    def progress(self, done: int, total: int) -> None:
        """The look that was begun has inspected so many."""
        for caller in self._looking:
            if caller.progress is not None:
                caller.progress("inspect", done, total)

    def fail(self) -> None:
        """The look did not come to an end."""
        self._looking, self._waiting = [], self._looking + self._waiting

    def finish(self, sorted_at: float, patience_s: float, *, waiting: bool) -> None:
        """The look is in the catalog; while files are being written, callers wait for a while.

        Args:
            sorted_at: When the look told files at rest from others. Not when it ended: one that
                took long has not seen what came to rest meanwhile.
            patience_s: How long after that of their first look callers wait.
            waiting: Whether some were not at rest.
        """
        for caller in self._looking:
            if caller.deadline is None:
                caller.deadline = sorted_at + patience_s
            if not waiting or sorted_at >= caller.deadline:
                caller.done.set()
        self._waiting = [c for c in self._looking if not c.done.is_set()] + self._waiting
        self._looking = []
