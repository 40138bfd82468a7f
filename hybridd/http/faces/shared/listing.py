"""The models that a list shows, taken in slices: ten thousand must not hold the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from hybridd.catalog.query import Page, Query
from hybridd.core.model import ModelRecord
from hybridd.parts import Daemon
from hybridd.serving.views import Overlay

# Right after the daemon's start a list waits so long for the first scan.
FIRST_SCAN_WAIT_S = 2.0
_ALL = Query()


async def listed(
    daemon: Daemon, query: Query = _ALL
) -> AsyncIterator[tuple[ModelRecord, Overlay | None]]:
    """The models that can be loaded, sorted by id, each with what runs of it."""
    with trio.move_on_after(FIRST_SCAN_WAIT_S):
        await daemon.library.wait_complete()
    manager = daemon.manager
    page = Page(query, manager.listed(), manager.usable, manager.overlay)
    for models in page.slices():
        for each in models:
            yield each
        await trio.lowlevel.checkpoint()
