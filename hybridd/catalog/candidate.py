"""What a look at the disk finds: candidates, and which of them are one model seen several times.

Values only. Which directories are walked is `walk`'s business, what in a directory could be a model
`recognition`'s; a store with a layout of its own makes its own candidates (`catalog/stores`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from hybridd.core.model import FileIdentity, Location


class Root(NamedTuple):
    """A directory to look in, with all below it.

    Attributes:
        path: The directory.
        store: What the models in it are said to come from.
        fixed: Folder name -> id, for a store whose models have fixed ids; None for others.
    """

    path: Path
    store: str
    fixed: Mapping[str, str] | None = None


class Directory(NamedTuple):
    """A directory on the way of a walk.

    Attributes:
        path: The directory.
        folders: Folder names between the root and it, itself last.
        claimed: Whether it is inside a directory that is a model itself.
        linked: Whether it was reached through a symlink.
    """

    path: str
    folders: tuple[str, ...] = ()
    claimed: bool = False
    linked: bool = False


class Addition(NamedTuple):
    """A file that belongs to a model without being its weights.

    Attributes:
        role: `projector`, `adapter`, `template`, `params`, `system` or `messages`.
        path: Where it is.
    """

    role: str
    path: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that could be a model.

    Attributes:
        key: What stays while the file stays: the path, of shards that of the first.
        format: Which backend is to inspect it.
        path: The file or directory to inspect.
        root: The root below which it lies.
        folders: Folder names between the root and it.
        stem: The name without suffix and shard number.
        is_file: Whether it is a file (or shards) or a directory.
        files: The files whose state makes it up, the model's own first, then the additions'.
        identity: One for each of `files`.
        locations: Where the same files were seen, `path` first.
        unfinished: The name of a file beside it that says that a download is under way.
        open: Whether a program has a file of it open for writing.
        additions: What belongs to the model beside its own files.
        digest: What the store records of the content of the model's own files.
        given: The id that the store itself gives it.
        aliases: Other names that the stores give it.
        commit: Of which commit it is, where a store keeps several of a repository.
        variant: What tells apart models that share their own files within one store.
        plain: Whether it is nothing else than its own files with what they need to run.
        reason: Why it is no model, where the store's own records already say so.
    """

    key: str
    format: str
    path: Path
    root: Root
    folders: tuple[str, ...]
    stem: str
    is_file: bool
    files: tuple[Path, ...]
    identity: tuple[FileIdentity, ...]
    locations: tuple[Location, ...]
    unfinished: str | None = None
    open: bool = False
    additions: tuple[Addition, ...] = ()
    digest: str | None = None
    given: str | None = None
    aliases: tuple[str, ...] = ()
    commit: str | None = None
    variant: tuple[str, ...] = ()
    plain: bool = True
    reason: str | None = None

    @property
    def examined(self) -> tuple[object, ...]:
        """Everything that the facts depend on; equal ones need no second look into the files."""
        return self.format, self.identity, self.additions, self.reason

    @property
    def own(self) -> tuple[FileIdentity, ...]:
        """The states of the model's own files, without the additions'."""
        return self.identity[: len(self.identity) - len(self.additions)]


def identity_of(status: os.stat_result) -> FileIdentity:
    """What tells this state of a file from every other."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def merged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate where the same files were seen several times.

    The same are: symlinks and hard links to one file, and files of which the stores record the
    same digest. Within one store that builds several models on the same weights (Ollama), what
    each adds keeps them apart; the first of them that adds nothing of substance is the same as
    another store's bare weights.
    """
    models: list[_Model] = []
    by_mark: dict[object, list[_Model]] = {}
    for candidate in candidates:
        marks = _marks(candidate)
        alike = next((by_mark[mark] for mark in marks if mark in by_mark), [])
        for mark in marks:
            by_mark.setdefault(mark, alike)
        same = next((model for model in alike if model.takes(candidate)), None)
        if same is None:
            model = _Model(candidate)
            alike.append(model)
            models.append(model)
        else:
            same.add(candidate)
    return [model.candidate for model in models]


def _marks(candidate: Candidate) -> list[object]:
    """What is equal for candidates whose own files have the same content, as far as known."""
    if candidate.reason is not None or not candidate.own:
        return []
    own = candidate.own
    marks: list[object] = [(candidate.format, own if len(own) == 1 else tuple(sorted(own)))]
    if candidate.digest is not None:
        marks.append((candidate.format, candidate.digest))
    return marks


class _Model:
    """One model, merged from the candidates that were seen of it so far."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.variants = {candidate.variant}

    def takes(self, other: Candidate) -> bool:
        """Whether `other`, whose own files are the same, is the same model."""
        return other.variant in self.variants or (self.variants == {()} and other.plain)

    def add(self, other: Candidate) -> None:
        first = self.candidate
        self.variants.add(other.variant)
        names = (*other.aliases, *([other.given] if other.given is not None else []))
        merged = replace(
            first,
            locations=(*first.locations, *other.locations),
            aliases=tuple(dict.fromkeys((*first.aliases, *names))),
            digest=first.digest or other.digest,
        )
        if not first.additions and other.additions:
            count = len(other.additions)
            merged = replace(
                merged,
                additions=other.additions,
                files=(*first.files, *other.files[-count:]),
                identity=(*first.identity, *other.identity[-count:]),
            )
        self.candidate = merged
