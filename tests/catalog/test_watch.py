"""Hints from the kernel, on real directories. What they say is only that it is time to look."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from watchdog.observers import Observer, inotify_c

from hybridd.catalog import watch
from hybridd.catalog.watch import Watcher

# Generous: events take milliseconds, and a loaded machine is no failure.
PATIENCE_S = 20.0


class Hints:
    """Counts hints and waits for the next one."""

    def __init__(self) -> None:
        self.count = 0
        self.touched: frozenset[str] | None = frozenset()
        self._event = trio.Event()

    def __call__(self, touched: frozenset[str] | None) -> None:
        self.count += 1
        self.touched = touched
        self._event.set()

    async def next(self) -> frozenset[str] | None:
        with trio.fail_after(PATIENCE_S):
            await self._event.wait()
        self._event = trio.Event()
        return self.touched


@asynccontextmanager
async def watching(
    *roots: Path, linked: tuple[Path, ...] = ()
) -> AsyncIterator[tuple[Watcher, Hints]]:
    hints = Hints()
    watcher = Watcher(hints, debounce_s=0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run)
        await trio.to_thread.run_sync(watcher.update, roots, linked)
        yield watcher, hints
        nursery.cancel_scope.cancel()


@pytest.fixture
def observers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """watchdog's observers, as watchers make them; the last one is in use."""
    made: list[Any] = []

    def observer() -> Any:
        made.append(Observer())
        return made[-1]

    monkeypatch.setattr(watch, "Observer", observer)
    return made


def run(test: Callable[..., Awaitable[None]], *args: Any) -> None:
    trio.run(test, *args)


def test_files_that_come_change_and_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with watching(tmp_path) as (_, hints):
            for act in (
                lambda: (tmp_path / "x.gguf").write_bytes(b"1"),
                lambda: (tmp_path / "x.gguf").write_bytes(b"22"),
                lambda: (tmp_path / "x.gguf").rename(tmp_path / "y.gguf"),
                lambda: (tmp_path / "y.gguf").unlink(),
                lambda: (tmp_path / "new").mkdir(),
            ):
                act()
                touched = await hints.next()
                assert touched is not None
                assert touched <= {str(tmp_path / n) for n in ("x.gguf", "y.gguf", "new")}

    run(main)


def test_very_many_touched_paths_are_anywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with watching(tmp_path) as (watcher, hints):
            watcher.hint(*map(str, range(watch.MAX_TOUCHED)))
            touched = await hints.next()
            assert touched is not None
            assert len(touched) == watch.MAX_TOUCHED
            watcher.hint(*map(str, range(watch.MAX_TOUCHED + 1)))
            watcher.hint("more")
            assert await hints.next() is None
            watcher.hint("a")
            assert await hints.next() == {"a"}

    run(main)


def test_what_the_kernel_lost_may_have_been_anywhere(tmp_path: Path, observers: list[Any]) -> None:
    async def main() -> None:
        async with watching(tmp_path) as (_, hints):
            # What watchdog does with the kernel's own word for it.
            fd = observers[-1]._inotify_fd
            lost = inotify_c.InotifyEvent(-1, inotify_c.InotifyConstants.IN_Q_OVERFLOW, 0, b"")
            await trio.to_thread.run_sync(fd.handle_event, lost)
            assert await hints.next() is None

    run(main)


def test_a_root_that_is_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")

    async def main() -> None:
        async with watching(tmp_path / "root") as (_, hints):
            (tmp_path / "real" / "x.gguf").touch()
            assert await hints.next() == {str(tmp_path / "real" / "x.gguf")}

    run(main)


def test_reading_gives_no_hint(tmp_path: Path) -> None:
    """Or our own scans would follow each other for ever."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"1")

    async def main() -> None:
        async with watching(tmp_path) as (_, hints):
            for _ in range(20):
                path.read_bytes()
                os.listdir(tmp_path)
            (tmp_path / "x.gguf.part").write_bytes(b"1")
            (tmp_path / "marker").touch()
            await hints.next()
            assert hints.count == 1

    run(main)


def test_a_root_that_comes_later(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "models"

    async def main() -> None:
        async with watching(root) as (watcher, hints):
            (tmp_path / "unrelated").mkdir()
            (tmp_path / "a").mkdir()
            await hints.next()
            assert hints.count == 1
            await trio.to_thread.run_sync(watcher.update, [root])
            root.mkdir(parents=True)
            await hints.next()
            await trio.to_thread.run_sync(watcher.update, [root])
            (root / "x.gguf").touch()
            await hints.next()

    run(main)


def test_a_root_that_is_replaced(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()

    async def main() -> None:
        async with watching(root) as (watcher, hints):
            root.rename(tmp_path / "old")
            root.mkdir()
            await hints.next()
            await trio.to_thread.run_sync(watcher.update, [root])
            seen = hints.count
            (root / "x.gguf").touch()
            while hints.count == seen:
                await hints.next()

    run(main)


def test_behind_a_symlink(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "link").symlink_to(elsewhere)

    async def main() -> None:
        async with watching(root, linked=(root / "link",)) as (_, hints):
            (elsewhere / "x.gguf").touch()
            await hints.next()

    run(main)


def test_threads_and_descriptors_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with watching(tmp_path):
            assert any("Inotify" in type(t).__name__ for t in threading.enumerate())

    run(main)  # imports and trio's own thread
    before = set(os.listdir("/proc/self/fd"))
    run(main)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    left = [t for t in threading.enumerate() if type(t).__module__.startswith("watchdog")]
    assert left == []


def test_a_watch_that_died_is_started_anew(tmp_path: Path, observers: list[Any]) -> None:
    async def main() -> None:
        async with watching(tmp_path) as (watcher, hints):
            observers[-1].stop()
            await trio.to_thread.run_sync(observers[-1].join)
            await trio.to_thread.run_sync(watcher.update, [tmp_path])
            (tmp_path / "x.gguf").touch()
            await hints.next()

    run(main)


def test_no_room_is_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, observers: list[Any]
) -> None:
    full = True

    async def main() -> None:
        async with watching() as (watcher, _):
            schedule = observers[-1].schedule

            def refusing(*args: Any, **kwargs: Any) -> Any:
                if full:
                    raise OSError(errno.ENOSPC, "no space")
                return schedule(*args, **kwargs)

            monkeypatch.setattr(observers[-1], "schedule", refusing)
            nonlocal full
            await trio.to_thread.run_sync(watcher.update, [tmp_path])
            assert watcher.polling
            assert watcher.remedy == "fs.inotify.max_user_watches"
            full = False
            await trio.to_thread.run_sync(watcher.update, [tmp_path])
            assert not watcher.polling

    run(main)


def test_no_inotify_at_all_is_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing() -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(watch, "Observer", refusing)

    async def main() -> None:
        async with watching(tmp_path) as (watcher, _):
            assert watcher.polling
            assert watcher.remedy == "fs.inotify.max_user_instances"

    run(main)


def test_hints_after_the_end_are_harmless(tmp_path: Path) -> None:
    watcher = Watcher(lambda _: None)
    watcher.hint()
    watcher.update([tmp_path])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            nursery.cancel_scope.cancel()

    run(main)
    watcher.hint()
