"""One look at the disk: the directories below the roots, each once.

Walks and takes `stat`s; opens no file, and leaves to `recognition` what in a directory could be a
model. The walk ends whatever it meets: symlinked directories are followed once each, depth is
bounded, and what is no regular file or cannot be read is reported and passed over. A store with a
layout of its own brings its own lister, which is given the walk to use. Runs in a thread, outside
trio.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hybridd.core.model import printable

from .candidate import Candidate, Directory, Root, merged
from .recognition import Contents, Format, Recognition
from .seen import Seen, SeenDirectory

# Publisher and repository need two; hub caches and hand-made sorting a few more.
MAX_DEPTH = 16
MAX_PROBLEMS = 100


class Source(NamedTuple):
    """A root, and how it is listed.

    Attributes:
        root: The directory, and which store it is.
        lister: What lists a layout of its own; None walks all directories.
    """

    root: Root
    lister: Callable[[Walk, Root], list[Candidate]] | None = None


@dataclass(slots=True)
class Listing:
    """What one walk found, in the order of the sources and then of paths.

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


def scan(
    sources: Sequence[Source],
    formats: Mapping[str, Format],
    stop: Callable[[], bool] = lambda: False,
    seen: Seen | None = None,
) -> Listing:
    """Walk the sources; raises nothing for what it meets.

    Args:
        sources: Where to look, in the order of precedence.
        formats: What to look for.
        stop: Asked between directories.
        seen: What earlier looks saw; None looks at everything.
    """
    walk = Walk(formats, stop, seen)
    candidates: list[Candidate] = []
    for root, lister in sources:
        if lister is None:
            candidates += walk.tree(root, [Directory(os.fspath(root.path))])
        else:
            candidates += lister(walk, root)
        if not walk.listing.finished:
            break
    walk.listing.candidates = merged(candidates)
    return walk.listing


class Walk:
    """One look at all roots: what was visited, what was wrong. For `scan` and the listers.

    Attributes:
        listing: What was met so far, without the candidates.
    """

    def __init__(
        self, formats: Mapping[str, Format], stop: Callable[[], bool], seen: Seen | None = None
    ) -> None:
        self.listing = Listing()
        self._recognition = Recognition(formats)
        self._stop = stop
        self._seen = Seen() if seen is None else seen
        self._visited: set[tuple[int, int]] = set()

    # ------------------------------------------------------------ for listers

    def tree(self, root: Root, starts: Sequence[Directory]) -> list[Candidate]:
        """Candidates in these directories and below, sorted by path."""
        candidates: list[Candidate] = []
        # What symlinks lead to comes last, so that a model is named by where it really lies.
        real = list(reversed(starts))
        linked: list[Directory] = []
        while real or linked:
            if self.stopped():
                break
            here = real.pop() if real else linked.pop(0)
            seen = self._visit(root, here)
            if seen is not None:
                candidates += seen.candidates
                if len(here.folders) < MAX_DEPTH:
                    real.extend(seen.below)
                    linked.extend(seen.linked)
        return sorted(candidates, key=lambda candidate: candidate.key)

    def format_of(self, suffix: str) -> str | None:
        """The format that files with this suffix are of; None where it is not looked for."""
        return self._recognition.format_of(suffix)

    def stopped(self) -> bool:
        """Whether to end without having seen everything."""
        if self._stop():
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

    def problem(self, path: str, error: OSError) -> None:
        """Note what the system said of a path."""
        self._report(path, error.strerror or type(error).__name__)

    # ------------------------------------------------------------ one directory

    def _visit(self, root: Root, here: Directory) -> SeenDirectory | None:
        """One directory, as it was seen or as it is; None for what is gone or was visited."""
        seen = self._seen.get(root, here) or self._look(root, here)
        if seen is None or seen.inode in self._visited:
            return None
        self._visited.add(seen.inode)
        for problem in seen.problems:
            self._note(problem)
        self.listing.linked += [Path(directory.path) for directory in seen.linked]
        return seen

    def _look(self, root: Root, here: Directory) -> SeenDirectory | None:
        """Ask the disk; None for what is not there or was visited."""
        try:
            status = os.stat(here.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem(here.path, error)
            return None
        inode = (status.st_dev, status.st_ino)
        if inode in self._visited:
            return None
        outer, self.listing.problems = self.listing.problems, []
        files: dict[str, os.stat_result] = {}
        linked: list[Directory] = []
        below: list[Directory] = []
        names: set[str] = set()
        lasting = not here.linked
        for entry in self.entries(here.path):  # sorted: of two links the same one wins always
            try:
                self._sort(entry, here, files, below, linked)
                names.add(entry.name)
                lasting = lasting and not entry.is_symlink()
            except FileNotFoundError:
                continue  # deleted while we look
            except OSError as error:
                self.problem(entry.path, error)
        folders = [directory.folders[-1] for directory in (*below, *linked)]
        contents = Contents(files, folders, names)
        candidates = self._recognition.files(root, here, contents)
        claimed = self._recognition.directory(root, here, contents)
        if claimed is not None:
            candidates.append(claimed)
            below = [directory._replace(claimed=True) for directory in below]
            linked = [directory._replace(claimed=True) for directory in linked]
        problems, self.listing.problems = self.listing.problems, outer
        candidates = [self._seen.same(candidate) for candidate in candidates]
        # What could not be read now may be readable later, and no event tells.
        lasting = lasting and not problems
        seen = SeenDirectory(root, here, inode, candidates, linked, below, problems, lasting)
        self._seen.put(seen)
        return seen

    def _sort(
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
        elif self._recognition.named(entry.name):
            # FIFOs, sockets and devices are never opened: that could block, or do something.
            self._report(entry.path, _kind(entry))

    def _report(self, path: str, reason: str) -> None:
        """Note what could not be looked at."""
        self._note(f"{printable(path)}: {reason}")

    def _note(self, problem: str) -> None:
        """Note a problem once."""
        problems = self.listing.problems
        if len(problems) < MAX_PROBLEMS and problem not in problems:
            problems.append(problem)


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
