"""The library owns the catalog: it looks at the disk, and all others read its snapshot.

One task looks, inspects and publishes; nothing else changes the catalog. It looks when a hint
comes from the watcher, when a client asks, when a file that was being written is due, and every
few minutes regardless, because hints get lost. Walking and reading happen in one thread beside
the loop. It knows no transport: changes are told through `publish`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from hybridd.backends.api import Backend
from hybridd.core.catalog import Snapshot
from hybridd.core.model import ModelRecord
from hybridd.host import collector
from hybridd.wire.errors import ModelNotFound

from . import stores
from .candidate import Candidate
from .current import Current, Publish
from .facts_store import FactsStore
from .inspections import Inspected
from .look import Look, unchanged
from .records import Stages
from .resolving import resolve
from .roots import RootStatus
from .scan_waiters import Progress, ScanWaiter, ScanWaiters
from .schedule import Schedule
from .settings import CatalogSettings
from .walk import Listing, Source, scan
from .watch import Hint, Watcher

_T = TypeVar("_T")

# A pure-Python thread holds the interpreter up to this long; the default of 5 ms is what
# raised a ping's p99 from 0.8 to 13 ms.
_SWITCH_INTERVAL_S = 0.0005
# Timers and file times come from different clocks.
_CLOCK_SLACK_S = 0.02
# During the first look what is known is listed whenever it has grown by this factor and this
# time has passed.
_GROWTH = 1.5
_PARTIAL_S = 1.0
# How long the end waits for the thread, which notices it between two directories or models.
_CLOSE_S = 3.0


class _InThread(Protocol):
    def __call__(self, function: Callable[[], _T], /) -> Awaitable[_T]: ...


class _Watching(Protocol):
    polling: bool
    remedy: str | None

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...
    def update(self, roots: Sequence[Path], linked: Sequence[Path], /) -> None: ...


class Library:
    """Finds the models of this machine and keeps the list true.

    Args:
        settings: What to look for, where and how often.
        publish: Told of each change, see `Current`; must not block.
        departed: Told the last record of a model that is not listed any more, before `publish`.
        scan: Walks the disk; tests bring their own.
        watcher: Makes what hints at changes from a callback; tests bring their own.
        in_thread: Runs a function beside the loop; tests run it at once.
        wall: Unix seconds.
        facts: Where inspections are remembered.
    """

    def __init__(
        self,
        settings: CatalogSettings,
        publish: Publish,
        *,
        departed: Callable[[ModelRecord], None] = lambda _: None,
        scan: Callable[..., Listing] = scan,
        watcher: Callable[[Hint], _Watching] = Watcher,
        in_thread: _InThread | None = None,
        wall: Callable[[], float] = time.time,
        facts: FactsStore | None = None,
    ) -> None:
        self._settings = settings
        self._look = Look(settings.settle_s, scan, facts, wall)
        self._current = Current(publish, departed)
        self._watcher = watcher(self.hint)
        self._limiter = trio.CapacityLimiter(1)
        self._in_thread: _InThread = in_thread or self._beside
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._waiters = ScanWaiters()
        self._schedule = Schedule(
            settings.reconcile_s,
            lambda: self._watcher.polling,
            lambda: self._waiters.urgent,
            lambda: self._in_thread(self._look.roots_changed),
        )
        self._linked: list[Path] = []  # directories behind symlinks
        self._written = 0  # how many candidates are being written
        self._stopped = False

    @property
    def snapshot(self) -> Snapshot:
        """The catalog as it is now; never changes in the reader's hands."""
        return self._current.snapshot

    @property
    def settings(self) -> CatalogSettings:
        """What the next look goes by."""
        return self._settings

    @property
    def watching(self) -> str:
        """`inotify`, or `polling` where the kernel has no room for watches."""
        return "polling" if self._watcher.polling else "inotify"

    @property
    def polling_remedy(self) -> str | None:
        """The sysctl that makes room for inotify, where it has none."""
        return self._watcher.remedy

    @property
    def roots(self) -> list[RootStatus]:
        """Where the last look went, in the order of precedence."""
        return self._look.roots

    def hint(self, touched: frozenset[str] | None = None) -> None:
        """Something may have changed: look soon, and once more a little later.

        Args:
            touched: Paths of what changed; None for anywhere.
        """
        self._schedule.hint(touched)

    def reconfigure(self, settings: CatalogSettings) -> None:
        """Take changed settings; the next look, at once, goes by them."""
        self._settings = settings
        self._look.settling.settle_s = settings.settle_s
        self._schedule.reconcile_s = settings.reconcile_s
        self._schedule.wake()

    def set_aliases(self, aliases: Mapping[str, Sequence[str]]) -> None:
        """Other names for models, by id; replaces all. Takes effect with the next look."""
        self._aliases = {key: tuple(names) for key, names in aliases.items()}
        self._schedule.wake()

    async def wait_complete(self) -> None:
        """Return once every store was looked at since the start."""
        await self._current.wait_complete()

    async def wait_look(self) -> None:
        """Return once a look has ended, or has shown a part of what it finds."""
        await self._current.wait_look()

    async def rescan(self, progress: Progress | None = None) -> dict[str, Any]:
        """Look now, and answer when a complete look begun after the call is in the catalog.

        Files that are being written get one settle time to come to rest, so that a copy that
        has just ended is in the answer. Clients that ask at the same time share a look.

        Args:
            progress: Told `(stage, done, total)`.

        Returns:
            `{added, changed, removed, total, seconds_s}` as in docs/protocol.md, against the
            catalog at the time of the call.
        """
        started = trio.current_time()
        waiter = ScanWaiter(self.snapshot.models, progress)
        self._waiters.add(waiter)
        self._schedule.wake()
        try:
            await waiter.done.wait()
        finally:
            self._waiters.remove(waiter)
        taken_s = trio.current_time() - started
        return {**waiter.result(self.snapshot.models), "seconds_s": round(taken_s, 3)}

    async def find(
        self,
        query: str,
        loaded_ids: Collection[str] = (),
        fits: Callable[[str], bool] | None = None,
    ) -> ModelRecord:
        """The model that `query` means, also when it is `invalid`: the caller says why.

        One that is not listed is waited for while the first look is under way or files are
        coming to rest.

        Raises:
            ModelNotFound, ModelAmbiguous: As `core.naming.resolve`.
        """
        deadline = trio.current_time() + self._look.settling.settle_s + 1.0
        while True:
            models = self.snapshot.models
            if not self.snapshot.complete and query not in models:
                # A part of a name may mean one model now and several in a moment.
                await self.wait_look()
                continue
            try:
                return models[await resolve(query, models, loaded_ids, fits)]
            except ModelNotFound:
                if not self._written or trio.current_time() >= deadline:
                    raise
                with trio.move_on_at(deadline):
                    await self.wait_look()

    async def fresh(self, record: ModelRecord) -> ModelRecord:
        """The model as its files are now: a load must not go by what a lost hint left standing.

        Raises:
            ModelNotFound: They are gone.
        """
        if await trio.to_thread.run_sync(unchanged, record):
            return record
        await self.rescan()
        return await self.find(record.id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look, for as long as the daemon runs; the first look comes after `started`."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, _SWITCH_INTERVAL_S))
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._watcher.run)
                task_status.started()
                while True:
                    await self._look_once()
                    await self._schedule.rest()
        finally:
            self._stopped = True
            sys.setswitchinterval(interval)
            with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_S):
                await self._in_thread(self._look.close)  # after what still runs in the thread

    # ------------------------------------------------------------ one look

    async def _look_once(self) -> None:
        # A client wants to be sure, and hints may be lost.
        everywhere = self._waiters.begin() or not self.snapshot.complete
        touched = self._schedule.begin(everywhere=everywhere)
        backends, sources = self._settings.backends, self._settings.sources()
        try:
            # Watched before it is walked, or what comes between the two is seen by neither.
            await self._watch(sources, self._linked)
            if not self.snapshot.complete and not self.snapshot.models:
                await self._look_first(sources, backends)
            listing = await self._in_thread(
                partial(self._look.walk, sources, backends, lambda: self._stopped, touched)
            )
            if listing.linked != self._linked:
                self._linked = listing.linked
                await self._watch(sources, self._linked)
                self.hint()
            sorted_at = trio.current_time()
            settled, waiting, due_s = await self._in_thread(
                partial(self._look.sort, listing.candidates, sorted_at)
            )
            inspected = await self._inspect(settled, waiting, backends)
            await self._advance(Stages(inspected, waiting), backends, listing)
            await self._in_thread(partial(self._look.remember, listing))
        except BaseException:
            self._waiters.fail()
            raise
        self._written = len(waiting)
        self._schedule.end(None if due_s is None else due_s + _CLOCK_SLACK_S)
        patience_s = self._look.settling.settle_s + _CLOCK_SLACK_S
        self._waiters.finish(sorted_at, patience_s, written=bool(waiting))
        self._current.looked()

    async def _look_first(self, sources: Sequence[Source], backends: Mapping[str, Backend]) -> None:
        """List the packaged models at once: a large store may take minutes to walk."""
        ours = [source for source in sources if source.root.store == stores.DEMO_STORE]
        if ours:
            candidates = await self._in_thread(
                partial(self._look.walk_first, ours, backends, lambda: self._stopped)
            )
            inspected = await self._in_thread(partial(self._look.inspect, candidates, backends))
            await self._advance(Stages(inspected), backends, None)

    async def _watch(self, sources: Sequence[Source], linked: Sequence[Path]) -> None:
        roots = [root.path for root, _ in sources]
        await self._in_thread(partial(self._watcher.update, roots, linked))

    async def _inspect(
        self,
        settled: Sequence[Candidate],
        waiting: Sequence[Candidate],
        backends: Mapping[str, Backend],
    ) -> list[Inspected]:
        """Ask the backends for all of `settled`, a slice of time after the other.

        During the first look of all, what is known is listed as it comes, at growing intervals:
        each time takes as long as there are models.
        """
        done: list[Inspected] = []
        shown, next_s = 0, trio.current_time() + _PARTIAL_S
        while len(done) < len(settled):
            rest = settled[len(done) :]
            done += await self._in_thread(partial(self._look.inspect, rest, backends))
            self._waiters.progress(len(done), len(settled))
            if (
                not self.snapshot.complete
                and shown * _GROWTH <= len(done) < len(settled)
                and trio.current_time() >= next_s
            ):
                shown, next_s = len(done), trio.current_time() + _PARTIAL_S
                await self._advance(Stages(done, waiting, settled[shown:]), backends, None)
        return done

    async def _advance(
        self, stages: Stages, backends: Mapping[str, Backend], listing: Listing | None
    ) -> None:
        """Replace the snapshot and tell of the changes; `listing` is None for a partial one."""
        # Ten thousand models take a tenth of a second, which is not the loop's to spend.
        snapshot, changes = await self._in_thread(
            partial(
                self._look.advance, self.snapshot, stages, backends, dict(self._aliases), listing
            )
        )
        await self._current.replace(snapshot, changes)

    async def _beside(self, function: Callable[[], _T], /) -> _T:
        """Run in the one thread; when cancelled, leave it to notice that it was stopped."""

        def run() -> _T:
            with collector.paused():
                return function()

        return await trio.to_thread.run_sync(run, limiter=self._limiter, abandon_on_cancel=True)
