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
from hybridd.catalog.inspections import OPEN
from hybridd.catalog.library import Library
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


def library(roots: list[Path], backends: Mapping[str, Backend], **more: Any) -> Library:
    settings = {"demo": False, "settle_s": 0.05, "reconcile_s": 300.0, **more}
    return Library(backends, model_dirs=roots, publish=lambda *_, **__: None, **settings)


async def becomes(made: Library, wanted: set[str]) -> None:
    """Return once the catalog lists just these, without anybody asking for it."""
    with trio.fail_after(PATIENCE_S):
        while set(made.snapshot.models) != wanted or not made.snapshot.complete:
            looked = made._looked
            await looked.wait()


@asynccontextmanager
async def running(made: Library) -> AsyncIterator[Library]:
    """Run it, from its first look on."""
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        with trio.fail_after(PATIENCE_S):
            await made.wait_complete()
        yield made
        nursery.cancel_scope.cancel()


async def until(made: Library, reached: Callable[[], bool]) -> None:
    """Return once a look has brought it about."""
    with trio.fail_after(PATIENCE_S):
        while not reached():
            await made._looked.wait()


def only(made: Library) -> ModelRecord:
    (record,) = made.snapshot.models.values()
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
        made = library([root], {**backends, "echo": echo})  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            with trio.fail_after(PATIENCE_S):
                await made.wait_complete()
            if at is None:
                assert len(made.snapshot.models) == MODELS
                await trio.to_thread.run_sync(act)
            await becomes(made, set())
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
        made = library([root], {**backends, "echo": echo})  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            await becomes(made, {"new"})
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_file_that_is_cut_short_and_kept_open(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    os.utime(path, (1e9, 1e9))
    size = path.stat().st_size

    async def main() -> None:
        made = library([tmp_path], load_backends())
        async with running(made):
            assert only(made).available
            with path.open("r+b") as file:
                file.truncate(size // 2)
                await until(made, lambda: "truncated" in str(only(made).reason))

    trio.run(main)


def test_a_file_of_its_whole_size_is_not_ready_before_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "OPEN_S", 1e6)  # only the event of its closing tells
    raw = write_gguf(tmp_path / "whole.gguf").read_bytes()
    os.unlink(tmp_path / "whole.gguf")

    async def main() -> None:
        made = library([tmp_path], load_backends())
        async with running(made):
            with (tmp_path / "x.gguf").open("wb") as file:
                file.truncate(len(raw))
                file.write(raw)
                file.flush()
                await until(made, lambda: bool(made.snapshot.models))
                for _ in range(3):
                    assert only(made).reason == OPEN
                    assert (await made.rescan())["changed"] == 0
            await until(made, lambda: only(made).available)
            assert only(made).reason is None

    trio.run(main)


def test_a_directory_with_a_file_that_is_open(tmp_path: Path) -> None:
    write_hf(tmp_path / "publisher" / "model")
    old = list((tmp_path / "publisher" / "model").iterdir())
    for path in old:
        os.utime(path, (1e9, 1e9))

    async def main() -> None:
        made = library([tmp_path], load_backends())
        weights = next(path for path in old if path.suffix == ".safetensors")
        with weights.open("r+b"):
            os.utime(weights, (time.time() - 10, time.time() - 10))
            async with running(made):
                assert only(made).reason == OPEN
        async with running(library([tmp_path], load_backends())) as made:
            assert only(made).available

    trio.run(main)


def test_nobody_asks_about_files_that_are_old(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "x.gguf")
    os.utime(path, (1e9, 1e9))

    async def main() -> None:
        with path.open("r+b"):
            async with running(library([tmp_path], load_backends())) as made:
                assert only(made).available

    trio.run(main)


def test_the_packaged_models_do_not_wait_for_a_slow_store(tmp_path: Path) -> None:
    fill(tmp_path)
    seen: list[list[str]] = []
    backends = load_backends()

    async def main() -> None:
        echo = During(backends["echo"], 1, lambda: seen.append(list(made.snapshot.models)))
        made = library([tmp_path], {**backends, "echo": echo}, demo=True)  # type: ignore[dict-item]
        async with trio.open_nursery() as nursery:
            await nursery.start(made.run)
            found = await made.find("hybridd/demo-gguf")
            assert found.available
            with trio.fail_after(PATIENCE_S):
                await made.wait_complete()
            assert (await made.find("m59")).available
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert seen == [["hybridd/demo-gguf", "hybridd/demo-hf"]]
