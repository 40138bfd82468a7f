"""What earlier looks saw of each directory, so that the next one looks only where it has to.

A walk goes all its way every time: only for a directory that no event named since does it take what
was seen before instead of asking the disk. So a look at what was touched finds what a look at
everything would, as far as the hints are complete; that they may not be is why everything is looked
at from time to time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .candidate import Candidate, Directory, Root


@dataclass(frozen=True, slots=True)
class SeenDirectory:
    """What one directory held.

    Attributes:
        root, here: As what it was looked at; the candidates depend on both.
        inode: Its device and inode.
        candidates: What could be models, itself included.
        linked, below: Its subdirectories, those behind symlinks apart.
        problems: What could not be looked at.
        lasting: Whether a change of it makes an event below this very path: not what symlinks
            lead to.
    """

    root: Root
    here: Directory
    inode: tuple[int, int]
    candidates: Sequence[Candidate]
    linked: Sequence[Directory]
    below: Sequence[Directory]
    problems: Sequence[str]
    lasting: bool


class Seen:
    """What was seen of every directory at the last look. Used from one thread at a time.

    Args:
        same: Returns an equal candidate of an earlier look, if it is still held; else its argument.
            So a look that finds nothing new leaves nothing new behind.
    """

    def __init__(self, same: Callable[[Candidate], Candidate] = lambda new: new) -> None:
        self.same = same
        self._directories: dict[str, SeenDirectory] = {}

    def get(self, root: Root, here: Directory) -> SeenDirectory | None:
        """What was seen of a directory that was looked at in just this way."""
        seen = self._directories.get(here.path)
        return seen if seen is not None and seen.here == here and seen.root == root else None

    def put(self, seen: SeenDirectory) -> None:
        """Keep what was seen, as long as an event would tell of its change."""
        if seen.lasting:
            self._directories[seen.here.path] = seen
        else:
            self._directories.pop(seen.here.path, None)

    def clear(self) -> None:
        """Look at everything the next time."""
        self._directories.clear()

    def forget(self, touched: Iterable[str]) -> None:
        """Look again at directories in which these paths are, and at all below them."""
        for path in touched:
            self._directories.pop(os.path.dirname(path), None)
            if self._directories.pop(path, None) is not None:  # it may be another one now
                below = path + os.sep
                for known in [known for known in self._directories if known.startswith(below)]:
                    del self._directories[known]
