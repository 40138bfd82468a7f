"""What happens to the disk while it is looked at for the first time, and right after."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from hybridd.backends.api import Backend, Facts
from hybridd.backends.registry import load_backends
from hybridd.catalog import settling
from hybridd.catalog.library import Library
from hybridd.catalog.records import OPEN
from hybridd.catalog.settings import CatalogSettings
from hybridd.core.model import ModelRecord
from tests.make_models import write_echo, write_gguf, write_hf

PATIENCE_S = 30.0
MODELS = 60


class During:
    """A real backend that does something to the disk once it was asked for so many models."""

    def __init__(self, inner: Backend, at: int, act: Callable[[], object]) -> None:
        self._inner = inner
        self._left = at
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def inspect(self, path: Path) -> Facts:
        facts = self._inner.inspect(path)
        self._left -= 1
        if self._left == 0:
            self._act()
        return facts


def library(roots: list[Path], backends: Mapping[str, Backend], demo: bool = False) -> Library:
    settings = CatalogSettings(backends, roots, demo=demo, settle_s=0.05, reconcile_s=300.0)
    return Library(settings, lambda *_, **__: None)


async def becomes(catalog: Library, wanted: set[str]) -> None:
    """Return once the catalog lists just these, unasked."""
    with trio.fail_after(PATIENCE_S):
        while set(catalog.snapshot.models) != wanted or not catalog.snapshot.complete:
            await catalog.wait_look()


@asynccontextmanager
async def running(catalog: Library) -> AsyncIterator[Library]:
    """Run it, from its first look on."""
    async with trio.open_nursery() as nursery:
        await nursery.start(catalog.run)
        with trio.fail_after(PATIENCE_S):
            await catalog.wait_complete()
        yield catalog
        nursery.cancel_scope.cancel()


async def until(catalog: Library, reached: Callable[[], bool]) -> None:
    """Return once a look has brought it about."""
    with trio.fail_after(PATIENCE_S):
        while not reached():
            await catalog.wait_look()


def only(catalog: Library) -> ModelRecord:
    (record,) = catalog.snapshot.models.values()
    return record


def fill(directory: Path) -> None:
    for number in range(MODELS):
        path = write_echo(directory / f"d{number % 7}" / f"m{number}.echo")
        os.utime(path, (1e9, 1e9))


def delete(root: Path, target: Path) -> None:
    shutil.rmtree(target)


def unlink(root: Path, target: Path) -> None:
    root.unlink() if root.is_symlink() else shutil.rmtree(root)


def both(root: Path, target: Path) -> None:
    unlink(root, target)
    shutil.rmtree(target, ignore_errors=True)


def move(root: Path, target: Path) -> None:
    root.rename(root.with_name("moved"))


def empty(root: Path, target: Path) -> None:
    delete(root, target)
    target.mkdir()


@pytest.mark.parametrize("gone", [delete, unlink, both, move, empty])
@pytest.mark.parametrize("linked", ["", "root", "parent", "inside"])
@pytest.mark.parametrize("at", [1, MODELS // 2, MODELS, None])
def test_a_root_that_goes_while_it_is_looked_at(
    tmp_path: Path, gone: Callable[[Path, Path], None], linked: str, at: int | None
) -> None:
    top, real = tmp_path / "top", tmp_path / "real"
    target = top / "models" if not linked else real / "models"
    fill(target)
    root = top / "models"
    if linked == "root":
        top.mkdir()
        root.symlink_to(target)
    elif linked == "parent":
        top.symlink_to(real)
    elif linked == "inside":
        root.mkdir(parents=True)
        (root / "more").symlink_to(target)
    act = lambda: gone(root if linked != "inside" or gone is move else root / "more", target)  # noqa: E731
    backends = load_backends()

    async def main() -> None:
        echo = During(backends["echo"], at or 10**9, act)
        catalog = library([root], {**backends, "echo": echo})  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(catalog.run)
            with trio.fail_after(PATIENCE_S):
                await catalog.wait_complete()
            if at is None:
                assert len(catalog.snapshot.models) == MODELS
                await trio.to_thread.run_sync(act)
            await becomes(catalog, set())
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_root_that_is_replaced_while_it_is_looked_at(tmp_path: Path) -> None:
    root, other = tmp_path / "models", tmp_path / "other"
    fill(root)
    os.utime(write_echo(other / "new.echo"), (1e9, 1e9))
    backends = load_backends()

    def act() -> None:
        root.rename(tmp_path / "old")
        root.symlink_to(other)

    async def main() -> None:
        echo = During(backends["echo"], 30, act)
        catalog = library([root], {**backends, "echo": echo})  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(catalog.run)
            await becomes(catalog, {"new"})
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_file_that_is_cut_short_and_kept_open(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    os.utime(path, (1e9, 1e9))
    size = path.stat().st_size

    async def main() -> None:
        catalog = library([tmp_path], load_backends())
        async with running(catalog):
            assert only(catalog).available
            with path.open("r+b") as file:
                file.truncate(size // 2)
                await until(catalog, lambda: "truncated" in str(only(catalog).reason))

    trio.run(main)


def test_a_file_of_its_whole_size_is_not_ready_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "OPEN_S", 1e6)  # only the event of its closing tells
    raw = write_gguf(tmp_path / "whole.gguf").read_bytes()
    os.unlink(tmp_path / "whole.gguf")

    async def main() -> None:
        catalog = library([tmp_path], load_backends())
        async with running(catalog):
            with (tmp_path / "x.gguf").open("wb") as file:
                file.truncate(len(raw))
                file.write(raw)
                file.flush()
                await until(catalog, lambda: bool(catalog.snapshot.models))
                for _ in range(3):
                    assert only(catalog).reason == OPEN
                    assert (await catalog.rescan())["changed"] == 0
            await until(catalog, lambda: only(catalog).available)
            assert only(catalog).reason is None

    trio.run(main)


def test_a_directory_with_a_file_that_is_open(tmp_path: Path) -> None:
    write_hf(tmp_path / "publisher" / "model")
    old = list((tmp_path / "publisher" / "model").iterdir())
    for path in old:
        os.utime(path, (1e9, 1e9))

    async def main() -> None:
        catalog = library([tmp_path], load_backends())
        weights = next(path for path in old if path.suffix == ".safetensors")
        with weights.open("r+b"):
            os.utime(weights, (time.time() - 10, time.time() - 10))
            async with running(catalog):
                assert only(catalog).reason == OPEN
        async with running(library([tmp_path], load_backends())) as catalog:
            assert only(catalog).available

    trio.run(main)


def test_old_files_may_be_open(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    os.utime(path, (1e9, 1e9))

    async def main() -> None:
        with path.open("r+b"):
            async with running(library([tmp_path], load_backends())) as catalog:
                assert only(catalog).available

    trio.run(main)


def test_the_packaged_models_do_not_wait_for_a_slow_store(tmp_path: Path) -> None:
    fill(tmp_path)
    seen: list[list[str]] = []
    backends = load_backends()

    async def main() -> None:
        echo = During(backends["echo"], 1, lambda: seen.append(list(catalog.snapshot.models)))
        catalog = library([tmp_path], {**backends, "echo": echo}, demo=True)  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(catalog.run)
            found = await catalog.find("hybridd/demo-gguf")
            assert found.available
            with trio.fail_after(PATIENCE_S):
                await catalog.wait_complete()
            assert (await catalog.find("m59")).available
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert seen == [["hybridd/demo-gguf", "hybridd/demo-hf"]]
