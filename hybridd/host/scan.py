"""One look at the disk: which files and directories under the roots could be models.

Walks and takes `stat`s; opens no file and knows no format, which is what backends are asked for
by file suffix and by a directory's names. The walk ends whatever it meets: symlinked
directories are followed once each, depth is bounded, what is no regular file is passed over, and
what cannot be read is reported and passed over. Runs in a thread, outside trio.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from hybridd.core.model import FileIdentity, Location, printable
from hybridd.core.naming import SHARD

# Publisher and repository need two; hub caches and hand-made sorting a few more.
MAX_DEPTH = 16
# A directory of a model has a few hundred files; this bounds what one huge folder can cost.
MAX_FILES_OF_DIRECTORY = 4096
MAX_PROBLEMS = 100

# Names that downloads and editors use for what is not complete.
UNFINISHED = (
    ".incomplete",
    ".part",
    ".partial",
    ".tmp",
    ".temp",
    ".lock",
    ".download",
    ".crdownload",
    ".aria2",
)
# Not part of what a model is, so that editing them changes no model.
_BESIDE = (".md", ".png", ".jpg", ".jpeg", ".gif", ".pdf")


class Root(NamedTuple):
    """A place to look in.

    Attributes:
        path: A directory.
        store: What the models in it are said to come from.
        fixed: Folder name -> id, for a store whose models have fixed ids; None for others.
    """

    path: Path
    store: str
    fixed: Mapping[str, str] | None = None


class Format(Protocol):
    """What the walk has to know of a format: a part of `backends.api.Backend`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """A file that ends so is a candidate."""
        ...

    def claims(self, names: frozenset[str]) -> bool:
        """Whether a directory with files of these names is a candidate."""
        ...


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
        files: The files whose state makes it up.
        identity: One for each of `files`.
        locations: Where the same files were seen, this place first.
        unfinished: The name of a file beside it that says that a download is under way.
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


@dataclass(slots=True)
class Listing:
    """What one walk found, in the order of the roots and then of paths.

    Attributes:
        candidates: Each once, with all its locations.
        linked: Directories that were reached through symlinks; a watch on a root misses them.
        problems: What could not be read, as sentences.
        finished: False when the walk was told to stop.
    """

    candidates: list[Candidate] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    finished: bool = True


class _Directory(NamedTuple):
    path: str
    folders: tuple[str, ...]
    claimed: bool  # inside a directory that is a model itself


def scan(
    roots: Sequence[Root],
    formats: Mapping[str, Format],
    stop: Callable[[], bool] = lambda: False,
) -> Listing:
    """Walk the roots; `stop` is asked between directories. Raises nothing for what it meets."""
    return _Walk(formats, stop).run(roots)


class _Walk:
    def __init__(self, formats: Mapping[str, Format], stop: Callable[[], bool]) -> None:
        self.formats = formats
        self.stop = stop
        self.by_suffix = {s: name for name, made in formats.items() for s in made.suffixes}
        self.suffixes = tuple(self.by_suffix)
        self.visited: set[tuple[int, int]] = set()
        self.listing = Listing()

    def run(self, roots: Sequence[Root]) -> Listing:
        for root in roots:
            found: list[Candidate] = []
            # What symlinks lead to comes last, so that a model is named by where it really lies.
            real = [_Directory(os.fspath(root.path), (), claimed=False)]
            linked: list[_Directory] = []
            while real or linked:
                if self.stop():
                    self.listing.finished = False
                    return self.listing
                here = real.pop() if real else linked.pop(0)
                through_link, below = self.look(root, here, found)
                real.extend(below)
                linked.extend(through_link)
            found.sort(key=lambda candidate: candidate.key)
            self.listing.candidates.extend(found)
        self.listing.candidates = _merged(self.listing.candidates)
        return self.listing

    def look(
        self, root: Root, here: _Directory, found: list[Candidate]
    ) -> tuple[list[_Directory], list[_Directory]]:
        """One directory: add its candidates; returns subdirectories, linked ones apart."""
        files: dict[str, os.stat_result] = {}
        linked: list[_Directory] = []
        below: list[_Directory] = []
        try:
            status = os.stat(here.path)
            if (status.st_dev, status.st_ino) in self.visited:
                return [], []
            self.visited.add((status.st_dev, status.st_ino))
            with os.scandir(here.path) as entries:
                children = [entry for entry in entries if not entry.name.startswith(".")]
            children.sort(key=lambda entry: entry.name)  # of two links the same one wins always
        except FileNotFoundError:
            return [], []  # a root that is not there yet, or deleted while we look
        except OSError as error:
            self.problem(here.path, error)
            return [], []
        names: set[str] = set()
        for entry in children:
            try:
                self.sort(entry, here, files, below, linked)
                names.add(entry.name)
            except FileNotFoundError:
                continue  # deleted while we look, or a symlink to nothing
            except OSError as error:
                self.problem(entry.path, error)
        claimed = self.candidates(root, here, files, frozenset(names), found)
        if claimed is not None:
            below = [directory._replace(claimed=True) for directory in below]
            linked = [directory._replace(claimed=True) for directory in linked]
        if len(here.folders) >= MAX_DEPTH:
            return [], []
        return linked, below

    def sort(
        self,
        entry: os.DirEntry[str],
        here: _Directory,
        files: dict[str, os.stat_result],
        below: list[_Directory],
        linked: list[_Directory],
    ) -> None:
        if entry.is_dir():
            inner = _Directory(entry.path, (*here.folders, entry.name), here.claimed)
            if entry.is_symlink():
                linked.append(inner)
                self.listing.linked.append(Path(entry.path))
            else:
                below.append(inner)
        elif entry.is_file():
            files[entry.name] = entry.stat()

    def candidates(
        self,
        root: Root,
        here: _Directory,
        files: Mapping[str, os.stat_result],
        names: frozenset[str],
        found: list[Candidate],
    ) -> str | None:
        """Add what this directory holds; returns the format that claims the directory itself."""
        groups: dict[str, list[str]] = {}
        for name in files:
            if name.lower().endswith(self.suffixes):
                shard = SHARD.match(name)
                first = name
                if shard is not None:
                    first = f"{shard['stem']}-00001-of-{shard['count']}{shard['suffix']}"
                groups.setdefault(first, []).append(name)
        for first, members in groups.items():
            found.append(self.of_files(root, here, first, sorted(members), files, names))
        if here.claimed:
            return None
        regular = frozenset(files)
        for name, made in self.formats.items():
            if made.claims(regular):
                found.append(self.of_directory(root, here, name, files))
                return name
        return None

    def of_files(
        self,
        root: Root,
        here: _Directory,
        first: str,
        members: Sequence[str],
        files: Mapping[str, os.stat_result],
        names: frozenset[str],
    ) -> Candidate:
        suffix = next(s for s in self.suffixes if first.lower().endswith(s))
        shard = SHARD.match(first)
        paths = tuple(Path(here.path, member) for member in members)
        beside = (f"{member}.aria2" for member in members)  # aria2 allocates the whole file first
        return Candidate(
            key=os.path.join(here.path, first),
            format=self.by_suffix[suffix],
            path=paths[0],
            root=root,
            folders=here.folders,
            stem=shard["stem"] if shard else first[: -len(suffix)] or first,
            is_file=True,
            files=paths,
            identity=tuple(_identity(files[member]) for member in members),
            locations=(Location(root.store, paths[0]),),
            unfinished=next((name for name in beside if name in names), None),
        )

    def of_directory(
        self, root: Root, here: _Directory, name: str, files: Mapping[str, os.stat_result]
    ) -> Candidate:
        ignored = (*UNFINISHED, *self.suffixes, *_BESIDE)
        members = sorted(n for n in files if not n.lower().endswith(ignored))
        members = members[:MAX_FILES_OF_DIRECTORY]
        path = Path(here.path)
        return Candidate(
            key=here.path,
            format=name,
            path=path,
            root=root,
            folders=here.folders[:-1],
            stem=here.folders[-1] if here.folders else path.name,
            is_file=False,
            files=tuple(path / member for member in members),
            identity=tuple(_identity(files[member]) for member in members),
            locations=(Location(root.store, path),),
        )

    def problem(self, path: str, error: OSError) -> None:
        if len(self.listing.problems) < MAX_PROBLEMS:
            reason = error.strerror or type(error).__name__
            self.listing.problems.append(f"{printable(path)}: {reason}")


def _identity(status: os.stat_result) -> FileIdentity:
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _merged(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate where the same files (hard links, symlinks) were seen at several places."""
    merged: dict[tuple[str, tuple[FileIdentity, ...]], Candidate] = {}
    places: dict[tuple[str, tuple[FileIdentity, ...]], list[Location]] = {}
    for candidate in candidates:
        same = (candidate.format, tuple(sorted(candidate.identity)))
        merged.setdefault(same, candidate)
        places.setdefault(same, []).extend(candidate.locations)
    return [
        candidate if len(places[same]) == 1 else replace(candidate, locations=tuple(places[same]))
        for same, candidate in merged.items()
    ]
