"""What a look at the disk finds: candidates, and which of them are one model at several places.

Values only. The walk that makes most of them is `walk`; a store with a layout of its own makes
its own ones (`catalog/stores`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hybridd.core.model import FileIdentity, Location

if TYPE_CHECKING:
    from .walk import Walk


class Root(NamedTuple):
    """A place to look in.

    Attributes:
        path: A directory.
        store: What the models in it are said to come from.
        fixed: Folder name -> id, for a store whose models have fixed ids; None for others.
        lister: How a store with a layout of its own is looked at; None walks all directories.
    """

    path: Path
    store: str
    fixed: Mapping[str, str] | None = None
    lister: Callable[[Walk, Root], list[Candidate]] | None = None


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
        root: Where it was found.
        folders: Folder names between the root and it.
        stem: The name without suffix and shard number.
        is_file: Whether it is a file (or shards) or a directory.
        files: The files whose state makes it up, the model's own first, then the additions'.
        identity: One for each of `files`.
        locations: Where the same files were seen, this place first.
        unfinished: The name of a file beside it that says that a download is under way.
        open: Whether somebody has a file of it open for writing.
        additions: What belongs to the model beside its own files.
        digest: What the store records of the content of the model's own files.
        given: The id that the store itself gives it.
        aliases: Other names that the stores give it.
        revision: Which of the revisions that its store keeps it is, where one keeps several.
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
    revision: str | None = None
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


def merged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate where the same files were seen at several places.

    The same are: symlinks and hard links to one file, and files of which the stores record the
    same digest. Within one store that builds several models on the same weights (Ollama), what
    each adds keeps them apart; the first of them that adds nothing of substance is the same as
    another store's bare weights.
    """
    made: list[_Merging] = []
    groups: dict[object, list[_Merging]] = {}
    for candidate in candidates:
        marks = _marks(candidate)
        group = next((groups[mark] for mark in marks if mark in groups), [])
        for mark in marks:
            groups.setdefault(mark, group)
        known = next((one for one in group if one.takes(candidate)), None)
        if known is None:
            known = _Merging(candidate)
            group.append(known)
            made.append(known)
        else:
            known.add(candidate)
    return [one.candidate for one in made]


def _marks(candidate: Candidate) -> list[object]:
    """What is equal for candidates whose own files have the same content, as far as known."""
    if candidate.reason is not None or not candidate.own:
        return []
    own = candidate.own
    marks: list[object] = [(candidate.format, own if len(own) == 1 else tuple(sorted(own)))]
    if candidate.digest is not None:
        marks.append((candidate.format, candidate.digest))
    return marks


class _Merging:
    """One model under way, with what was found of it so far."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.variants = {candidate.variant}

    def takes(self, other: Candidate) -> bool:
        """Whether `other`, whose own files are the same, is the same model."""
        return other.variant in self.variants or (self.variants == {()} and other.plain)

    def add(self, other: Candidate) -> None:
        mine = self.candidate
        self.variants.add(other.variant)
        names = (*other.aliases, *([other.given] if other.given is not None else []))
        changed = replace(
            mine,
            locations=(*mine.locations, *other.locations),
            aliases=tuple(dict.fromkeys((*mine.aliases, *names))),
            digest=mine.digest or other.digest,
        )
        if not mine.additions and other.additions:
            count = len(other.additions)
            changed = replace(
                changed,
                additions=other.additions,
                files=(*mine.files, *other.files[-count:]),
                identity=(*mine.identity, *other.identity[-count:]),
            )
        self.candidate = changed
