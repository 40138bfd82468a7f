"""Who is settled, who waits, and who is asked about."""

from __future__ import annotations

import os
from pathlib import Path

from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.settling import OPEN_S, RECENT_S, Settling
from hybridd.catalog.writers import Writers
from hybridd.core.model import FileIdentity, Location

WALL = 1_000_000_000.0
ROOT = Root(Path("/models"), "local")


class Asked(Writers):
    """Says that these files are open, and notes who was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: set[str] = set()
        self.asked: list[str] = []

    def has(self, path: str | os.PathLike[str]) -> bool:
        name = os.path.basename(path)
        self.asked.append(name)
        return name in self.open


class World:
    def __init__(self) -> None:
        self.writers = Asked()
        self.settling = Settling(1.0, lambda: self.writers)

    def sort(
        self, *candidates: Candidate, at: float = 0.0
    ) -> tuple[list[str], list[str], float | None]:
        """Names of settled ones, those that are open with a star; of waiting ones; when next."""
        self.writers.asked.clear()
        settled, waiting, due = self.settling.sort(candidates, WALL + at, at)
        shown = [made.stem + "*" * made.open for made in settled]
        return shown, [made.stem for made in waiting], due


def candidate(name: str, *ages: float) -> Candidate:
    files = tuple(Path(f"/models/{name}{number}") for number in range(len(ages)))
    return Candidate(
        key=f"/models/{name}",
        format="gguf",
        path=files[0],
        root=ROOT,
        folders=(),
        stem=name,
        is_file=True,
        files=files,
        identity=tuple(
            FileIdentity(1, hash(path), 10, int((WALL - age) * 1e9))
            for path, age in zip(files, ages, strict=True)
        ),
        locations=(Location("local", files[0]),),
    )


def test_old_files_are_not_asked_about() -> None:
    world = World()
    world.writers.open = {"a0", "b0"}
    old, recent = candidate("a", RECENT_S + 1), candidate("b", RECENT_S - 1)
    assert world.sort(old, recent) == (["a", "b*"], [], OPEN_S)
    assert world.writers.asked == ["b0"]


def test_who_is_closed_is_asked_about_once_for_each_state() -> None:
    world = World()
    assert world.sort(candidate("a", 10.0, 20.0)) == (["a"], [], None)
    assert world.writers.asked == ["a0", "a1"]
    assert world.sort(candidate("a", 10.0, 20.0), at=1) == (["a"], [], None)
    assert world.writers.asked == []
    assert world.sort(candidate("a", 9.0, 20.0), at=2) == (["a"], [], None)
    assert world.writers.asked == ["a0"]


def test_who_is_open_is_asked_about_until_it_is_closed_however_old() -> None:
    world = World()
    world.writers.open = {"a0"}
    made = candidate("a", 10.0)
    for at in (0.0, RECENT_S, 2 * RECENT_S):
        assert world.sort(made, at=at) == (["a*"], [], OPEN_S)
    world.writers.open.clear()
    assert world.sort(made, at=3 * RECENT_S) == (["a"], [], None)
    world.sort(made, at=4 * RECENT_S)
    assert world.writers.asked == []


def test_one_open_file_of_several_is_enough() -> None:
    world = World()
    world.writers.open = {"a1"}
    assert world.sort(candidate("a", 10_000.0, 10.0, 10_000.0)) == (["a*"], [], OPEN_S)


def test_an_open_one_stays_the_same_object_while_it_stays_as_it_is() -> None:
    world = World()
    world.writers.open = {"a0"}
    first, _, _ = world.settling.sort([candidate("a", 10.0)], WALL, 0.0)
    again, _, _ = world.settling.sort([candidate("a", 10.0)], WALL, 5.0)
    other, _, _ = world.settling.sort([candidate("a", 9.0)], WALL, 5.0)
    assert again[0] is first[0]
    assert other[0] is not first[0]


def test_who_changed_just_now_waits_and_is_not_asked_about() -> None:
    world = World()
    world.writers.open = {"a0"}
    assert world.sort(candidate("a", 0.25)) == ([], ["a"], 0.75)
    assert world.writers.asked == []
    assert world.sort(candidate("a", 0.25), at=0.75) == (["a*"], [], OPEN_S)


def test_the_next_look_is_for_who_is_due_first() -> None:
    world = World()
    world.writers.open = {"a0"}
    assert world.sort(candidate("a", 10.0), candidate("b", 0.5)) == (["a*"], ["b"], 0.5)
