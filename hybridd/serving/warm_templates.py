"""Has formats' templates up before the first load needs them.

The first load of a format waits for its engine's libraries to be imported, for seconds with torch.
Where there are models of a format, and memory for it, that is done beforehand, at low priority and
out of the way of every load. Once in the daemon's life for each format: a template that left since,
being idle or in the way of a model, is not put back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from math import inf

import trio

from hybridd.backends.api import Backend
from hybridd.backends.registry import FormatInfo
from hybridd.catalog.library import Library
from hybridd.catalog.stores import DEMO_STORE
from hybridd.core.devices import CPU
from hybridd.core.model import ModelRecord
from hybridd.processes.templates import Templates
from hybridd.serving.residency import Residency
from hybridd.wire.errors import LoadFailed

_log = logging.getLogger(__name__)

# That of transformers and torch takes a quarter of it. Where there is less, models need it sooner.
ROOM_BYTES = 1024**3
# How soon to ask again where a load was in the way, or memory was short.
RETRY_S = 10.0


class WarmTemplates:
    """See the module's text; `run` it once the daemon is ready.

    Args:
        backends: The formats that are enabled now.
        formats: What is installed for each, by its name.
        usable: Whether a model could be loaded.
    """

    def __init__(
        self,
        backends: Callable[[], Mapping[str, Backend]],
        formats: Mapping[str, FormatInfo],
        library: Library,
        usable: Callable[[ModelRecord], bool],
        residency: Residency,
        templates: Templates,
    ) -> None:
        self._backends = backends
        self._formats = formats
        self._library = library
        self._usable = usable
        self._residency = residency
        self._templates = templates
        self._started: set[str] = set()
        self._changed = trio.Event()

    def look(self) -> None:
        """The catalog has changed: there may be a first model of a format."""
        self._changed.set()

    async def start_all(self) -> None:
        """Start those of all formats at once, whatever models there are."""
        for backend in self._startable():
            await self._start(backend, low_priority=False)

    async def run(self) -> None:
        """Start each when there is reason and room; for as long as the daemon runs."""
        await self._library.wait_complete()
        while True:
            self._changed = trio.Event()
            held_up = False
            for backend in self._wanted():
                if await self._out_of_the_way():
                    await self._start(backend, low_priority=True)
                else:
                    held_up = True
            with trio.move_on_after(RETRY_S if held_up else inf):
                await self._changed.wait()

    def _startable(self) -> Iterator[Backend]:
        for name, backend in self._backends().items():
            if backend.preload and self._formats[name].available and name not in self._started:
                yield backend

    def _wanted(self) -> list[Backend]:
        """Of formats with models; the packaged ones are there for everyone, and no reason."""
        startable = {b.name: b for b in self._startable()}
        if not startable:
            return []
        records = self._library.snapshot.models.values()
        named = {r.format for r in records if r.store != DEMO_STORE and self._usable(r)}
        return [backend for name, backend in startable.items() if name in named]

    async def _out_of_the_way(self) -> bool:
        scheduler = self._residency.scheduler
        instances = scheduler.instances.values()
        if scheduler.tickets or any(instance.coming_up for instance in instances):
            return False
        snapshot = (await self._residency.measure()).snapshot
        left = snapshot.available([i.plan.placement for i in scheduler.instances.values()])
        return left.get(CPU, 0) >= ROOM_BYTES

    async def _start(self, backend: Backend, *, low_priority: bool) -> None:
        self._started.add(backend.name)
        try:
            await self._templates.warm(backend, low_priority=low_priority)
        except LoadFailed as exc:
            _log.error("the template of %s cannot start: %s", backend.name, exc.message)
