"""One look at the disk: which files and directories under the roots could be models.

Walks and takes `stat`s; opens no file and knows no format, which is what backends are asked for
by file suffix and by a directory's names. The walk ends whatever it meets: symlinked
directories are followed once each, depth is bounded, and what is no regular file or cannot be
read is reported and passed over. A store with a layout of its own brings its own `lister`, which
is given the walk to use. Runs in a thread, outside trio.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from hybridd.core.model import FileIdentity, Location, printable
from hybridd.core.naming import SHARD

from .candidate import Addition, Candidate, Root, merged
from .seen import Remembered, Seen

__all__ = ["Addition", "Candidate", "Directory", "Format", "Listing", "Root", "Walk", "scan"]

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
    ".downloadinprogress",
    ".crdownload",
    ".aria2",
)
_OF = "-of-"  # in the name of every shard
# Not part of what a model is, so that editing them changes no model.
_BESIDE = (".md", ".png", ".jpg", ".jpeg", ".gif", ".pdf")


class Format(Protocol):
    """What the walk has to know of a format: a part of `backends.api.Backend`."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """A file that ends so is a candidate."""
        ...

    def claims(self, names: frozenset[str]) -> bool:
        """Whether a directory with these names in it is a candidate; directories end in `/`."""
        ...

    def companions(self, names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
        """Which candidates of one directory are no models but belong to others of them."""
        ...


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


class Directory(NamedTuple):
    """Where a walk is.

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


def scan(
    roots: Sequence[Root],
    formats: Mapping[str, Format],
    stop: Callable[[], bool] = lambda: False,
    remembered: Remembered | None = None,
) -> Listing:
    """Walk the roots; raises nothing for what it meets.

    Args:
        roots: Where to look, in the order of precedence.
        formats: What to look for.
        stop: Asked between directories.
        remembered: What earlier looks saw; None looks at everything.
    """
    walk = Walk(formats, stop, remembered)
    found: list[Candidate] = []
    for root in roots:
        if root.lister is None:
            found += walk.tree(root, [Directory(os.fspath(root.path))])
        else:
            found += root.lister(walk, root)
        if not walk.listing.finished:
            break
    walk.listing.candidates = merged(found)
    return walk.listing


class Walk:
    """One look at all roots: what was visited, what was wrong. For `scan` and the listers."""

    def __init__(
        self,
        formats: Mapping[str, Format],
        stop: Callable[[], bool],
        remembered: Remembered | None = None,
    ) -> None:
        self.remembered = Remembered() if remembered is None else remembered
        self.formats = formats
        self.stop = stop
        self.by_suffix = {s: name for name, made in formats.items() for s in made.suffixes}
        self.suffixes = tuple(self.by_suffix)
        self.visited: set[tuple[int, int]] = set()
        self.listing = Listing()

    def tree(self, root: Root, starts: Sequence[Directory]) -> list[Candidate]:
        """Candidates in these directories and below, sorted by path."""
        found: list[Candidate] = []
        # What symlinks lead to comes last, so that a model is named by where it really lies.
        real = list(reversed(starts))
        linked: list[Directory] = []
        while real or linked:
            if self.stopped():
                break
            here = real.pop() if real else linked.pop(0)
            through_link, below = self.look(root, here, found)
            real.extend(below)
            linked.extend(through_link)
        return sorted(found, key=lambda candidate: candidate.key)

    def stopped(self) -> bool:
        """Whether to end without having seen everything."""
        if self.stop():
            self.listing.finished = False
        return not self.listing.finished

    def entries(self, path: str) -> list[os.DirEntry[str]]:
        """A directory's visible entries by name; what cannot be read is reported, and empty."""
        try:
            with os.scandir(path) as entries:
                children = [entry for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []  # a root that is not there yet, or deleted while we look
        except OSError as error:
            self.problem(path, error)
            return []
        return sorted(children, key=lambda entry: entry.name)

    def look(
        self, root: Root, here: Directory, found: list[Candidate]
    ) -> tuple[Sequence[Directory], Sequence[Directory]]:
        """One directory: add its candidates; returns subdirectories, linked ones apart."""
        seen = self.remembered.get(root, here)
        if seen is None:
            seen = self.see(root, here)
        elif seen.place in self.visited:
            seen = None
        if seen is None:
            return [], []
        self.visited.add(seen.place)
        for problem in seen.problems:
            self.note(problem)
        self.listing.linked += [Path(directory.path) for directory in seen.linked]
        found += seen.candidates
        return ([], []) if len(here.folders) >= MAX_DEPTH else (seen.linked, seen.below)

    def see(self, root: Root, here: Directory) -> Seen | None:
        """Ask the disk; None for what is not there or was visited."""
        try:
            status = os.stat(here.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem(here.path, error)
            return None
        place = (status.st_dev, status.st_ino)
        if place in self.visited:
            return None
        outer, self.listing.problems = self.listing.problems, []
        files: dict[str, os.stat_result] = {}
        linked: list[Directory] = []
        below: list[Directory] = []
        names: set[str] = set()
        lasting = not here.linked
        for entry in self.entries(here.path):  # sorted: of two links the same one wins always
            try:
                self.sort(entry, here, files, below, linked)
                names.add(entry.name)
                lasting = lasting and not entry.is_symlink()
            except FileNotFoundError:
                continue  # deleted while we look
            except OSError as error:
                self.problem(entry.path, error)
        candidates = self.of_suffix(root, here, files, names)
        claimed = self.claim(root, here, files, [*below, *linked])
        if claimed is not None:
            candidates.append(claimed)
            below = [directory._replace(claimed=True) for directory in below]
            linked = [directory._replace(claimed=True) for directory in linked]
        problems, self.listing.problems = self.listing.problems, outer
        candidates = [self.remembered.same(candidate) for candidate in candidates]
        # What could not be read now may be readable later, and no event tells.
        lasting = lasting and not problems
        seen = Seen(root, here, place, candidates, linked, below, problems, lasting)
        self.remembered.put(seen)
        return seen

    def sort(
        self,
        entry: os.DirEntry[str],
        here: Directory,
        files: dict[str, os.stat_result],
        below: list[Directory],
        linked: list[Directory],
    ) -> None:
        if entry.is_dir():
            inner = Directory(entry.path, (*here.folders, entry.name), here.claimed, here.linked)
            if entry.is_symlink():
                linked.append(inner._replace(linked=True))
            else:
                below.append(inner)
        elif entry.is_file():
            files[entry.name] = entry.stat()
        elif entry.name.lower().endswith(self.suffixes):
            # FIFOs, sockets and devices are never opened: that could block, or do something.
            self.report(entry.path, _kind(entry))

    def of_suffix(
        self,
        root: Root,
        here: Directory,
        files: Mapping[str, os.stat_result],
        names: Set[str],
    ) -> list[Candidate]:
        """The files (or shards) in one directory that could be models by their suffixes."""
        groups: dict[str, list[str]] = {}
        for name in files:
            if name.lower().endswith(self.suffixes):
                groups.setdefault(_first(name), []).append(name)
        by_format: dict[str, list[str]] = {}
        for first in groups:
            if first in files:
                by_format.setdefault(self.by_suffix[self.suffix_of(first)], []).append(first)
        belonging: dict[str, Sequence[str]] = {}
        for name, mine in by_format.items():
            if len(mine) > 1:
                belonging.update(self.formats[name].companions(mine, loose=not here.folders))
        companions = {name for some in belonging.values() for name in some}
        parent, made = Path(here.path), []
        for first, members in groups.items():
            if first not in companions:
                mine = [*sorted(members), *belonging.get(first, ())[:1]]
                made.append(self.of_files(root, here, parent, mine, len(members), files, names))
        return made

    def suffix_of(self, name: str) -> str:
        """Which of the suffixes a file's name has."""
        low = name.lower()
        return next(suffix for suffix in self.suffixes if low.endswith(suffix))

    def claim(
        self,
        root: Root,
        here: Directory,
        files: Mapping[str, os.stat_result],
        below: Sequence[Directory],
    ) -> Candidate | None:
        """The directory itself, if a format takes it for a model."""
        if here.claimed:
            return None
        names = frozenset(files) | {f"{directory.folders[-1]}/" for directory in below}
        for name, made in self.formats.items():
            if made.claims(names):
                return self.of_directory(root, here, name, files)
        return None

    def of_files(
        self,
        root: Root,
        here: Directory,
        parent: Path,
        everything: Sequence[str],
        own: int,
        files: Mapping[str, os.stat_result],
        names: Set[str],
    ) -> Candidate:
        """One model of the first `own` files, to which the others belong."""
        members = everything[:own]
        first = _first(members[0])
        shard = SHARD.match(first) if _OF in first else None
        suffix = self.suffix_of(first)
        paths = tuple(parent / member for member in everything)  # cheaper than of the whole path
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
            identity=tuple(identity_of(files[member]) for member in everything),
            locations=(Location(root.store, paths[0]),),
            unfinished=next((name for name in beside if name in names), None),
            additions=tuple(Addition("projector", path) for path in paths[own:]),
        )

    def of_directory(
        self, root: Root, here: Directory, name: str, files: Mapping[str, os.stat_result]
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
            identity=tuple(identity_of(files[member]) for member in members),
            locations=(Location(root.store, path),),
        )

    def problem(self, path: str, error: OSError) -> None:
        """Note what the system said of a path."""
        self.report(path, error.strerror or type(error).__name__)

    def report(self, path: str, reason: str) -> None:
        """Note what could not be looked at."""
        self.note(f"{printable(path)}: {reason}")

    def note(self, problem: str) -> None:
        """Note a problem once."""
        problems = self.listing.problems
        if len(problems) < MAX_PROBLEMS and problem not in problems:
            problems.append(problem)


def _first(name: str) -> str:
    """The name of the first of the shards of which a file is one; its own, where it is none."""
    shard = SHARD.match(name) if _OF in name else None
    if shard is None:
        return name
    return f"{shard['stem']}-00001-of-{shard['count']}{shard['suffix']}"


def identity_of(status: os.stat_result) -> FileIdentity:
    """What tells this state of a file from every other."""
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _kind(entry: os.DirEntry[str]) -> str:
    """What an entry is that is neither a directory nor a regular file."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return "a symlink to nothing"
    for what, test in (("FIFO", stat.S_ISFIFO), ("socket", stat.S_ISSOCK)):
        if test(mode):
            return f"a {what}, no regular file"
    return "a device, no regular file"
