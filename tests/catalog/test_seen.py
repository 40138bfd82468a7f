"""A look at what was touched finds what a look at everything finds."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest

from hybridd.backends.registry import load_backends
from hybridd.catalog import walk as scanning
from hybridd.catalog.seen import Seen
from hybridd.catalog.stores import local
from hybridd.catalog.walk import Listing, scan
from tests.make_models import write_echo, write_hf
from tests.make_stores import source

BACKENDS = load_backends()


class Disk:
    """A directory of models that changes at random, and says what events would say."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.touched: set[str] = set()
        (root / "a").mkdir(parents=True)

    def directories(self) -> list[Path]:
        """Real directories, as events have them."""
        return [Path(path) for path, _, _ in os.walk(self.root)]

    def entries(self) -> list[Path]:
        return [p for d in self.directories() for p in d.iterdir()]

    def touch(self, *paths: Path) -> None:
        self.touched.update(map(os.fspath, paths))
        # What is written through a symlink makes its event where it really lies.
        self.touched.update(map(os.path.realpath, paths))

    def step(self) -> None:
        """One change, of whatever kind."""
        here = self.chance.choice(self.directories())
        name = f"n{self.chance.randrange(30)}"
        kind = self.chance.choice(("echo", "shard", "hf", "mkdir", "delete", "move", "link", "big"))
        with contextlib.suppress(OSError):  # not everything can be everywhere
            self._do(kind, here, name)

    def _do(self, kind: str, here: Path, name: str) -> None:
        if kind == "echo":
            self.touch(write_echo(here / f"{name}.echo", reply=name))
        elif kind == "shard":
            path = here / f"{name}-0000{self.chance.randrange(1, 4)}-of-00003.gguf"
            path.write_bytes(b"GGUF" * self.chance.randrange(9))
            self.touch(path)
        elif kind == "hf":
            self.touch(write_hf(here / name), here / name / "config.json")
        elif kind == "mkdir":
            (here / name).mkdir()
            self.touch(here / name)
        elif entries := self.entries():
            path = self.chance.choice(entries)
            if kind == "link":
                (here / name).symlink_to(path)
                self.touch(here / name)
            elif kind == "move":
                path.rename(here / name)
                self.touch(path, here / name)
            elif kind == "delete":
                self.touch(path)
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            elif path.is_file():
                with path.open("ab") as file:
                    file.write(b"more")
                self.touch(path)


def facts_of(listing: Listing) -> tuple[object, ...]:
    return listing.candidates, listing.linked, sorted(listing.problems)


@pytest.mark.parametrize("seed", range(12))
def test_a_remembered_look_equals_a_full_one(tmp_path: Path, seed: int) -> None:
    disk = Disk(tmp_path / "root", seed)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_echo(elsewhere / "far.echo")
    (disk.root / "a" / "far").symlink_to(elsewhere)
    sources = [source(disk.root / "a", "one"), source(disk.root, "two", local.candidates)]
    seen = Seen()
    for _ in range(60):
        for _ in range(disk.chance.randrange(4)):
            disk.step()
        seen.forget(disk.touched)
        disk.touched.clear()
        found = scan(sources, BACKENDS, seen=seen)
        assert facts_of(found) == facts_of(scan(sources, BACKENDS))


def test_only_what_was_touched_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write_echo(tmp_path / f"d{number}" / "m.echo")
    asked: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> object:
        asked.append(os.path.basename(path))
        return scandir(path)

    monkeypatch.setattr(scanning.os, "scandir", counting)
    sources = [source(tmp_path)]
    seen = Seen()
    first = scan(sources, BACKENDS, seen=seen)
    assert len(asked) == 21
    asked.clear()
    new = write_echo(tmp_path / "d7" / "new.echo")
    seen.forget([os.fspath(new)])
    second = scan(sources, BACKENDS, seen=seen)
    assert asked == ["d7"]
    assert len(second.candidates) == len(first.candidates) + 1
    kept = {id(candidate) for candidate in first.candidates}
    assert sum(id(candidate) in kept for candidate in second.candidates) == 19
    seen.clear()
    asked.clear()
    scan(sources, BACKENDS, seen=seen)
    assert len(asked) == 21


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_echo(tmp_path / "d" / "m.echo")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if path.endswith("d"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    seen = Seen()
    with monkeypatch.context() as patch:
        patch.setattr(scanning.os, "scandir", refusing)
        found = scan([source(tmp_path)], BACKENDS, seen=seen)
        assert (found.candidates, len(found.problems)) == ([], 1)
    found = scan([source(tmp_path)], BACKENDS, seen=seen)
    assert (len(found.candidates), found.problems) == (1, [])
