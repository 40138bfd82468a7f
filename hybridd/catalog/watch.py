"""Hints from the kernel that something under the watched directories may have changed.

watchdog's events say where it is time to look again, never what is there: it loses events in
bursts, follows no symlinks and does not notice a root that was replaced. So events are hints,
debounced; the scan is the truth. `update` is told after each scan what to watch.

`Watcher.run` owns watchdog's threads and ends them. Where inotify has no room for all
directories, `polling` says so and the library has to look more often.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import trio
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from .recognition import UNFINISHED

# Long enough to take the events of one `cp` or `git lfs pull` together, short beside the
# two seconds in which a finished file has to be listed.
DEBOUNCE_S = 0.1
# watchdog's threads end within one wake-up; a hanging network file system must not hold us.
STOP_S = 5.0

# Of directories not "modified", which says nothing that the others do not. Not "opened" and "closed
# without write": our own scan makes those, and would follow itself for ever.
_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]
# A download makes thousands of "modified" and ends with "closed": of those of one file so many
# seconds go by between two that are taken. The first counts: a file that is cut short by a
# program that keeps it open makes one event, and none ever after.
MODIFIED_S = 1.0
# More touched paths than this are no help in looking at less.
MAX_TOUCHED = 256
# What would make room, by what there is none of.
_ROOM = {
    errno.ENOSPC: "fs.inotify.max_user_watches",
    errno.EMFILE: "fs.inotify.max_user_instances",
    errno.ENFILE: "fs.file-max",
}

# Says of each event which paths it touched, below real directories; None for anywhere.
Hint = Callable[[frozenset[str] | None], None]

_log = logging.getLogger(__name__)
_watchdog_log = logging.getLogger("watchdog")


class _Target(NamedTuple):
    """One watch: a directory with all below it, or (for `only`) one name in a directory."""

    path: str
    only: str | None
    device: int
    inode: int


class Watcher:
    """Calls `on_hint` in trio's thread, at most once per debounce time, after any change.

    `update` may be called from any thread; everything else belongs to trio's.

    Attributes:
        polling: Whether not everything is watched, so that the library has to look often.
        remedy: The sysctl that would make room; None where that would not help.
    """

    def __init__(self, on_hint: Hint, *, debounce_s: float = DEBOUNCE_S) -> None:
        self._on_hint = on_hint
        self._debounce_s = debounce_s
        self._hinted = trio.Event()
        self._touched: set[str] | None = set()
        self._gathering = threading.Lock()
        self._observer: BaseObserver | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._watches: dict[_Target, ObservedWatch] = {}
        self._updating = threading.Lock()  # an abandoned `update` must not outlive the end
        self._ended = False
        self.polling = False
        self.remedy: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; all of watchdog's threads have ended when this returns."""
        self._token = trio.lowlevel.current_trio_token()
        self._ended = False
        overflow = _Overflow(self.hint)
        _watchdog_log.addHandler(overflow)
        self._start()
        try:
            task_status.started()
            while True:
                await self._hinted.wait()
                await trio.sleep(self._debounce_s)
                self._hinted = trio.Event()
                with self._gathering:
                    touched, self._touched = self._touched, set()
                self._on_hint(None if touched is None else frozenset(touched))
        finally:
            _watchdog_log.removeHandler(overflow)
            with trio.CancelScope(shield=True), trio.move_on_after(STOP_S):
                await trio.to_thread.run_sync(self._end, abandon_on_cancel=True)

    def update(self, roots: Iterable[Path], linked: Iterable[Path] = ()) -> None:
        """Watch these roots (also before they exist) and directories behind symlinks.

        Blocks while watchdog walks the directories, so call it in a thread. A directory that was
        replaced since the last call is watched anew.
        """
        with self._updating:
            self._update(roots, linked)

    def _update(self, roots: Iterable[Path], linked: Iterable[Path]) -> None:
        observer = self._living()
        if observer is None:
            return
        wanted = list(dict.fromkeys(_targets(roots, linked)))
        for gone in self._watches.keys() - set(wanted):
            _quietly(observer, self._watches.pop(gone))
        remedy = None
        for target in wanted:
            if target in self._watches:
                continue
            try:
                self._watches[target] = observer.schedule(
                    _Handler(self.hint, target),
                    target.path,
                    recursive=target.only is None,
                    event_filter=_EVENTS,
                )
            except (OSError, RuntimeError) as error:  # RuntimeError: no room for another thread
                # Otherwise it vanished or is closed to us: the next scan says so.
                remedy = _ROOM.get(getattr(error, "errno", errno.ENOSPC), remedy)
        if remedy and not self.polling:
            _log.warning(
                "inotify has no room for all model directories: they are polled; raise %s (sysctl) "
                "to be told of changes at once",
                remedy,
            )
        self.polling, self.remedy = remedy is not None, remedy

    def hint(self, *touched: str) -> None:
        """Say what was touched; nothing for anything. Callable from any thread, never blocks."""
        with self._gathering:
            if self._touched is not None:
                self._touched.update(touched)
                if not touched or len(self._touched) > MAX_TOUCHED:
                    self._touched = None
        token = self._token
        if token is not None:
            try:
                token.run_sync_soon(self._mark, idempotent=True)
            except trio.RunFinishedError:
                self._token = None

    def _mark(self) -> None:
        self._hinted.set()

    def _start(self) -> None:
        """Start watchdog. Without inotify at all, polling it is."""
        # watchdog sees a directory inside a new directory twice when they come quickly, and says
        # so by a warning in its thread: harmless, and fatal to that thread where warnings are
        # errors.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
        try:
            observer = Observer()
            observer.start()
        except (OSError, RuntimeError) as error:
            _log.warning("no inotify (%s): model directories are polled", error)
            self.polling, self.remedy = True, _ROOM.get(getattr(error, "errno", None) or 0)
            return
        self._observer = observer

    def _living(self) -> BaseObserver | None:
        """The observer; a new one when a thread of it has died, which nothing else would tell."""
        observer = self._observer
        if observer is None or self._ended:
            return None
        reader = getattr(observer, "_inotify_fd", observer)  # watchdog 7's reading thread
        if all(thread.is_alive() for thread in (observer, reader, *observer.emitters)):
            return observer
        _log.warning("the watch of the model directories has died; it is started anew")
        _stop(observer)
        self._watches.clear()
        self._observer = None
        self._start()
        return self._observer

    def _end(self) -> None:
        with self._updating:
            self._ended = True
            observer, self._observer = self._observer, None
            self._watches.clear()
        if observer is not None:
            _stop(observer)


class _Handler(FileSystemEventHandler):
    def __init__(self, hint: Callable[..., None], target: _Target) -> None:
        self._hint = hint
        self._target = target
        self._modified: dict[str, float] = {}  # when such an event was taken last, by path

    def dispatch(self, event: FileSystemEvent) -> None:
        """Events are hints, except those of others' names and of unfinished files."""
        names = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        only = self._target.only
        if only is not None:
            if only in map(os.path.basename, names):
                self._hint()  # a root came, went or was replaced
        elif not all(name.lower().endswith(UNFINISHED) for name in names) and not (
            isinstance(event, FileModifiedEvent) and self._recent(names[0])
        ):
            self._hint(*names)

    def _recent(self, path: str) -> bool:
        """Whether a modification of this file was told just now."""
        now = time.monotonic()
        if now - self._modified.get(path, -math.inf) < MODIFIED_S:
            return True
        if len(self._modified) >= MAX_TOUCHED:
            self._modified.clear()
        self._modified[path] = now
        return False


class _Overflow(logging.Handler):
    """Hears from watchdog that the kernel lost events, which it says in its log alone.

    What it lost may have been anywhere.
    """

    def __init__(self, hint: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._hint = hint

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if "overflow" in record.getMessage():
            self._hint()


def _targets(roots: Iterable[Path], linked: Iterable[Path]) -> Iterable[_Target]:
    for root in roots:
        path = os.path.abspath(root)
        parent, name = os.path.split(path)
        # inotify follows no symlink, also not one that is the root itself.
        if target := _target(os.path.realpath(path), None):
            yield target
        # The parent tells when a root comes, goes or is replaced. Where that is missing too,
        # the nearest ancestor that exists tells of the next folder on the way.
        # A symlink on the way is not followed either.
        while (target := _target(os.path.realpath(parent), name)) is None and parent != "/":
            parent, name = os.path.split(parent)
        if target is not None:
            yield target
    for path in map(os.path.realpath, linked):
        if target := _target(path, None):
            yield target


def _target(path: str, only: str | None) -> _Target | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _Target(path, only, status.st_dev, status.st_ino)


def _stop(observer: BaseObserver) -> None:
    observer.stop()
    observer.join()


def _quietly(observer: BaseObserver, watch: ObservedWatch) -> None:
    try:
        observer.unschedule(watch)
    except (KeyError, OSError, RuntimeError):
        _log.debug("the watch of %s was gone already", watch.path)
