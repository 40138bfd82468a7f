"""The library owns the catalog: it looks at the disk, and everybody reads its snapshot.

One task looks, inspects and publishes; nobody else changes the catalog. It looks when a hint
comes from the watcher, when somebody asks, when a file that was being written is due, and every
few minutes regardless, because hints get lost. Walking and reading happen in one thread beside
the loop. It knows no transport: changes are told through `publish`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import trio

from hybridd.backends.api import Backend
from hybridd.core.catalog import Change, Snapshot
from hybridd.core.model import ModelRecord
from hybridd.host import collector
from hybridd.wire.errors import ModelNotFound

from . import stores
from .candidate import Candidate
from .inspections import FactsStore, Inspected
from .look import Place, Survey, unchanged
from .resolving import resolve
from .scan_waiters import Caller, Callers, Progress
from .schedule import Pacing
from .walk import Listing, Source, scan
from .watch import Hint, Watcher

_log = logging.getLogger(__name__)
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
# While telling of thousands of changes, other tasks get their turn after this many.
_EVENTS_AT_A_TIME = 256

Publish = Callable[..., None]


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
        backends: The formats to look for, by name.
        model_dirs: Where to look; need not exist yet.
        demo: Whether to list the packaged demo models.
        external: The stores of other programs.
        settle_s: How long a file has to rest before it is inspected.
        reconcile_s: How often to look without any hint.
        departed: Told the last record of a model that is not listed any more, before `publish`.
        publish: Told `("models", "added" | "changed" | "removed", id=…, revision=…, …)`, after
            the snapshot was replaced; must not block.
        look: Walks the disk; tests bring their own.
        watcher: Makes what hints at changes from a callback; tests bring their own.
        in_thread: Runs a function beside the loop; tests run it at once.
        wall: Unix seconds.
        facts: Where inspections are remembered.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        model_dirs: Sequence[Path],
        demo: bool,
        settle_s: float,
        reconcile_s: float,
        publish: Publish,
        external: Sequence[Source] = (),
        departed: Callable[[ModelRecord], None] = lambda _: None,
        look: Callable[..., Listing] = scan,
        watcher: Callable[[Hint], _Watching] = Watcher,
        in_thread: _InThread | None = None,
        wall: Callable[[], float] = time.time,
        facts: FactsStore | None = None,
    ) -> None:
        self._backends = dict(backends)
        self._model_dirs = tuple(model_dirs)
        self._demo = demo
        self._external = tuple(external)
        self._survey = Survey(settle_s, look, facts, wall)
        self._publish = publish
        self._departed = departed
        self._watcher = watcher(self.hint)
        self._limiter = trio.CapacityLimiter(1)
        self._in_thread: _InThread = in_thread or self._beside
        self._snapshot = Snapshot()
        self._aliases: dict[str, tuple[str, ...]] = {}
        self._callers = Callers()
        self._pacing = Pacing(
            reconcile_s,
            lambda: self._watcher.polling,
            lambda: self._callers.urgent,
            lambda: self._in_thread(self._survey.roots_changed),
        )
        self._completed = trio.Event()
        self._looked = trio.Event()  # replaced after every look
        self._linked: list[Path] = []  # directories behind symlinks
        self._waiting = 0
        self._stopped = False

    @property
    def snapshot(self) -> Snapshot:
        """The catalog as it is now; never changes in the reader's hands."""
        return self._snapshot

    @property
    def watching(self) -> str:
        """`inotify`, or `polling` where the kernel has no room for watches."""
        return "polling" if self._watcher.polling else "inotify"

    @property
    def polling_remedy(self) -> str | None:
        """The sysctl that makes room for inotify, where it has none."""
        return self._watcher.remedy

    @property
    def places(self) -> list[Place]:
        """Where the last look went, in the order of precedence."""
        return self._survey.places

    def hint(self, touched: frozenset[str] | None = None) -> None:
        """Something may have changed: look soon, and once more a little later.

        Args:
            touched: Paths of what changed; None for anywhere.
        """
        self._pacing.hint(touched)

    def reconfigure(
        self,
        *,
        backends: Mapping[str, Backend] | None = None,
        model_dirs: Sequence[Path] | None = None,
        demo: bool | None = None,
        external: Sequence[Source] | None = None,
        settle_s: float | None = None,
        reconcile_s: float | None = None,
    ) -> None:
        """Take changed settings; the next look, at once, goes by them. None: as before."""
        if backends is not None:
            self._backends = dict(backends)
        if model_dirs is not None:
            self._model_dirs = tuple(model_dirs)
        if demo is not None:
            self._demo = demo
        if external is not None:
            self._external = tuple(external)
        if settle_s is not None:
            self._survey.settling.settle_s = settle_s
        if reconcile_s is not None:
            self._pacing.reconcile_s = reconcile_s
        self._pacing.wake()

    def set_aliases(self, aliases: Mapping[str, Sequence[str]]) -> None:
        """Other names for models, by id; replaces all. Takes effect with the next look."""
        self._aliases = {key: tuple(names) for key, names in aliases.items()}
        self._pacing.wake()

    async def wait_complete(self) -> None:
        """Return once every store was looked at since the start."""
        await self._completed.wait()

    async def rescan(self, progress: Progress | None = None) -> dict[str, Any]:
        """Look now, and answer when a complete look begun after the call is in the catalog.

        Files that are being written get one settle time to come to rest, so that a copy that
        has just ended is in the answer. Callers at the same time share a look.

        Args:
            progress: Told `(stage, done, total)`.

        Returns:
            `{added, changed, removed, total, seconds_s}` as in docs/protocol.md, against the
            catalog at the time of the call.
        """
        started = trio.current_time()
        caller = Caller(self._snapshot.models, progress)
        self._callers.add(caller)
        self._pacing.wake()
        try:
            await caller.done.wait()
        finally:
            self._callers.remove(caller)
        taken_s = trio.current_time() - started
        return {**caller.result(self._snapshot.models), "seconds_s": round(taken_s, 3)}

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
        deadline = trio.current_time() + self._survey.settling.settle_s + 1.0
        while True:
            models = self._snapshot.models
            if not self._snapshot.complete and query not in models:
                # A part of a name may mean one model now and several in a moment.
                await self._looked.wait()
                continue
            try:
                return models[await resolve(query, models, loaded_ids, fits)]
            except ModelNotFound:
                looked = self._looked
                if not self._waiting or trio.current_time() >= deadline:
                    raise
                with trio.move_on_at(deadline):
                    await looked.wait()

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
                    await self._pacing.rest()
        finally:
            self._stopped = True
            sys.setswitchinterval(interval)
            with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_S):
                await self._in_thread(self._survey.close)  # after what still runs in the thread

    # ------------------------------------------------------------ one look

    async def _look_once(self) -> None:
        # A caller wants to be sure, and hints may be lost.
        everywhere = self._callers.begin() or not self._snapshot.complete
        touched = self._pacing.begin(everywhere=everywhere)
        backends = self._backends
        sources = stores.sources(self._model_dirs, demo=self._demo, external=self._external)
        try:
            # Watched before it is walked, or what comes between the two is seen by neither.
            await self._watch(sources, self._linked)
            if not self._snapshot.complete and not self._snapshot.models:
                await self._look_first(sources, backends)
            listing = await self._in_thread(
                partial(self._survey.walk, sources, backends, lambda: self._stopped, touched)
            )
            if listing.linked != self._linked:
                self._linked = listing.linked
                await self._watch(sources, self._linked)
                self.hint()
            sorted_at = trio.current_time()
            settled, waiting, due = await self._in_thread(
                partial(self._survey.sort, listing.candidates, sorted_at)
            )
            inspected = await self._inspect(settled, waiting, backends)
            await self._advance(inspected, waiting, backends, listing)
            await self._in_thread(partial(self._survey.remember, listing))
        except BaseException:
            self._callers.fail()
            raise
        self._waiting = len(waiting)
        self._pacing.end(None if due is None else due + _CLOCK_SLACK_S)
        patience_s = self._survey.settling.settle_s + _CLOCK_SLACK_S
        self._callers.finish(sorted_at, patience_s, waiting=bool(waiting))
        self._looked.set()
        self._looked = trio.Event()

    async def _look_first(self, sources: Sequence[Source], backends: Mapping[str, Backend]) -> None:
        """List the packaged models at once: somebody's store may take minutes to walk."""
        ours = [source for source in sources if source.root.store == stores.DEMO_STORE]
        if ours:
            candidates = await self._in_thread(
                partial(self._survey.walk_first, ours, backends, lambda: self._stopped)
            )
            done = await self._in_thread(partial(self._survey.inspect, candidates, backends))
            await self._advance(done, (), backends, None)

    async def _watch(self, sources: Sequence[Source], linked: Sequence[Path]) -> None:
        await self._in_thread(
            partial(self._watcher.update, [root.path for root, _ in sources], linked)
        )

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
            done += await self._in_thread(partial(self._survey.inspect, rest, backends))
            self._callers.progress(len(done), len(settled))
            if (
                not self._snapshot.complete
                and shown * _GROWTH <= len(done) < len(settled)
                and trio.current_time() >= next_s
            ):
                shown, next_s = len(done), trio.current_time() + _PARTIAL_S
                await self._advance(done, waiting, backends, None, settled[shown:])
        return done

    async def _advance(
        self,
        inspected: Sequence[Inspected],
        waiting: Sequence[Candidate],
        backends: Mapping[str, Backend],
        listing: Listing | None,
        to_come: Sequence[Candidate] = (),
    ) -> None:
        """Replace the snapshot and tell of the changes; `listing` is None for a partial one."""
        before = self._snapshot
        # Ten thousand models take a tenth of a second, which is not the loop's to spend.
        self._snapshot, changes = await self._in_thread(
            partial(
                self._survey.advance,
                before,
                inspected,
                waiting,
                backends,
                dict(self._aliases),
                listing,
                to_come,
            )
        )
        for problem in self._snapshot.problems:
            if problem not in before.problems:
                _log.warning("cannot look at %s", problem)
        await self._tell(changes, before, self._snapshot)
        if self._snapshot.complete:
            self._completed.set()
        elif listing is None:
            self._looked.set()
            self._looked = trio.Event()

    async def _tell(self, changes: Sequence[Change], before: Snapshot, snapshot: Snapshot) -> None:
        for number, change in enumerate(changes, 1):
            more: dict[str, Any] = {}
            if (record := snapshot.models.get(change.id)) is not None:
                more["status"] = record.status
            elif (last := before.models.get(change.id)) is not None:
                self._departed(last)
            if change.fields:
                more["changed"] = list(change.fields)
            self._publish("models", change.type, id=change.id, revision=snapshot.revision, **more)
            if number % _EVENTS_AT_A_TIME == 0:
                await trio.lowlevel.checkpoint()

    async def _beside(self, function: Callable[[], _T], /) -> _T:
        """Run in the one thread; when cancelled, leave it to notice that it was stopped."""

        def run() -> _T:
            with collector.paused():
                return function()

        return await trio.to_thread.run_sync(run, limiter=self._limiter, abandon_on_cancel=True)
