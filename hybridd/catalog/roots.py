"""The roots as they are on the disk: which directory each is, and how paths below it are spelled.

A root may be missing, be replaced or be a symlink; none of that makes an event below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hybridd.core.model import printable

from .candidate import Root


class RootStatus(NamedTuple):
    """One root, as `system.info` tells of it."""

    store: str
    path: str
    exists: bool


class Roots:
    """The directories that the roots are at the moment of making this.

    Attributes:
        inodes: Device and inode of each, None for one that is missing.
    """

    def __init__(self, roots: Sequence[Root]) -> None:
        self.roots = tuple(roots)
        self.inodes = [_inode(root) for root in roots]

    def changed(self) -> bool:
        """Whether a root is another directory by now."""
        return [_inode(root) for root in self.roots] != self.inodes

    def status(self) -> list[RootStatus]:
        """Each root, and whether it was there."""
        return [
            RootStatus(root.store, printable(os.fspath(root.path)), inode is not None)
            for root, inode in zip(self.roots, self.inodes, strict=True)
        ]

    def spelled(self, touched: Iterable[str]) -> Iterator[str]:
        """Real paths as a walk of the roots spells them, which may themselves be symlinks."""
        spellings = [(os.path.realpath(root.path), os.fspath(root.path)) for root in self.roots]
        for path in touched:
            yield path
            for real, spelled in spellings:
                if real != spelled and (path + os.sep).startswith(real + os.sep):
                    yield spelled + path[len(real) :]


def _inode(root: Root) -> tuple[int, int] | None:
    try:
        status = os.stat(root.path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
