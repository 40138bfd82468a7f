"""The snapshot in force: what waits for another one, and what is told of the differences.

Knows neither how a snapshot comes about nor what it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import trio

from hybridd.core.catalog import Change, Snapshot
from hybridd.core.model import ModelRecord

_log = logging.getLogger(__name__)

# While telling of thousands of changes, other tasks get their turn after this many.
_EVENTS_AT_A_TIME = 256

Publish = Callable[..., None]


class Current:
    """Holds the snapshot; replaced by the one task that looks.

    Args:
        publish: Told `("models", "added" | "changed" | "removed", id=…, revision=…, …)`, after
            the snapshot was replaced; must not block.
        departed: Told the last record of a model that is not listed any more, before `publish`.
    """

    def __init__(self, publish: Publish, departed: Callable[[ModelRecord], None]) -> None:
        self.snapshot = Snapshot()
        self._publish = publish
        self._departed = departed
        self._completed = trio.Event()
        self._looked = trio.Event()  # replaced after every look

    async def wait_complete(self) -> None:
        """Return once every store was looked at since the start."""
        await self._completed.wait()

    async def wait_look(self) -> None:
        """Return once a look has ended, or has shown a part of what it finds."""
        await self._looked.wait()

    async def replace(self, snapshot: Snapshot, changes: Sequence[Change]) -> None:
        """Put another snapshot in force, and tell of the changes."""
        before, self.snapshot = self.snapshot, snapshot
        for problem in snapshot.problems:
            if problem not in before.problems:
                _log.warning("cannot look at %s", problem)
        for number, change in enumerate(changes, 1):
            self._tell(change, before)
            if number % _EVENTS_AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()
        if snapshot.complete:
            self._completed.set()
        else:
            self.looked()

    def looked(self) -> None:
        """A look has ended: what waits for it may go on."""
        self._looked.set()
        self._looked = trio.Event()

    def _tell(self, change: Change, before: Snapshot) -> None:
        more: dict[str, Any] = {}
        if (record := self.snapshot.models.get(change.id)) is not None:
            more["status"] = record.status
        elif (last := before.models.get(change.id)) is not None:
            self._departed(last)
        if change.fields:
            more["changed"] = list(change.fields)
        revision = self.snapshot.revision
        self._publish("models", change.type, id=change.id, revision=revision, **more)
