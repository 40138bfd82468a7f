"""What in one directory could be a model: told by names alone, as the formats claim them.

Knows no format, which is what backends are asked for by file suffix and by a directory's names, and
asks no disk: `walk` hands it what a directory holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple, Protocol

from hybridd.core.model import Location
from hybridd.core.naming import SHARD

from .candidate import Addition, Candidate, Directory, Root, identity_of

# A directory of a model has a few hundred files; this bounds what one huge folder can cost.
MAX_FILES_OF_DIRECTORY = 4096

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


class Contents(NamedTuple):
    """What a directory holds that is visible.

    Attributes:
        files: Its regular files by name.
        folders: The names of its subdirectories, also behind symlinks.
        names: All names that could be looked at, in whatever order.
    """

    files: Mapping[str, os.stat_result]
    folders: Sequence[str]
    names: Set[str]


class Recognition:
    """Makes the candidates of a directory.

    Args:
        formats: By name; the first that claims a directory has it.
    """

    def __init__(self, formats: Mapping[str, Format]) -> None:
        self._formats = formats
        self._by_suffix = {
            suffix: name for name, format in formats.items() for suffix in format.suffixes
        }
        self._suffixes = tuple(self._by_suffix)

    def named(self, name: str) -> bool:
        """Whether a file with this name would be a candidate, or part of one."""
        return name.lower().endswith(self._suffixes)

    def format_of(self, suffix: str) -> str | None:
        """The format that files with this suffix are of."""
        return self._by_suffix.get(suffix)

    def files(self, root: Root, here: Directory, contents: Contents) -> list[Candidate]:
        """The files (or shards) in one directory that could be models by their suffixes."""
        shards: dict[str, list[str]] = {}  # by the first one's name; a file alone is its own first
        for name in contents.files:
            if self.named(name):
                shards.setdefault(_first(name), []).append(name)
        by_format: dict[str, list[str]] = {}
        for first in shards:
            if first in contents.files:
                by_format.setdefault(self._by_suffix[self._suffix_of(first)], []).append(first)
        companions: dict[str, Sequence[str]] = {}  # model -> what belongs to it
        for format, firsts in by_format.items():
            if len(firsts) > 1:
                loose = not here.folders
                companions.update(self._formats[format].companions(firsts, loose=loose))
        belonging = {name for some in companions.values() for name in some}
        parent = Path(here.path)
        return [
            self._of_files(root, here, parent, sorted(own), companions.get(first, ())[:1], contents)
            for first, own in shards.items()
            if first not in belonging
        ]

    def directory(self, root: Root, here: Directory, contents: Contents) -> Candidate | None:
        """The directory itself, if a format claims it and it is not part of a model already."""
        if here.claimed:
            return None
        names = frozenset(contents.files).union(f"{folder}/" for folder in contents.folders)
        for name, format in self._formats.items():
            if format.claims(names):
                return self._of_directory(root, here, name, contents)
        return None

    def _suffix_of(self, name: str) -> str:
        """Which of the suffixes a file's name has."""
        low = name.lower()
        return next(suffix for suffix in self._suffixes if low.endswith(suffix))

    def _of_files(
        self,
        root: Root,
        here: Directory,
        parent: Path,
        own: Sequence[str],
        projectors: Sequence[str],
        contents: Contents,
    ) -> Candidate:
        """One model of its `own` files, to which a projector may belong."""
        first = _first(own[0])
        shard = SHARD.match(first) if _OF in first else None
        suffix = self._suffix_of(first)
        names = [*own, *projectors]
        paths = tuple(parent / name for name in names)  # cheaper than of the whole path
        beside = (f"{name}.aria2" for name in own)  # aria2 allocates the whole file first
        return Candidate(
            key=os.path.join(here.path, first),
            format=self._by_suffix[suffix],
            path=paths[0],
            root=root,
            folders=here.folders,
            stem=shard["stem"] if shard else first[: -len(suffix)] or first,
            is_file=True,
            files=paths,
            identity=tuple(identity_of(contents.files[name]) for name in names),
            locations=(Location(root.store, paths[0]),),
            unfinished=next((name for name in beside if name in contents.names), None),
            additions=tuple(Addition("projector", path) for path in paths[len(own) :]),
        )

    def _of_directory(
        self, root: Root, here: Directory, format: str, contents: Contents
    ) -> Candidate:
        ignored = (*UNFINISHED, *self._suffixes, *_BESIDE)
        names = sorted(name for name in contents.files if not name.lower().endswith(ignored))
        names = names[:MAX_FILES_OF_DIRECTORY]
        path = Path(here.path)
        return Candidate(
            key=here.path,
            format=format,
            path=path,
            root=root,
            folders=here.folders[:-1],
            stem=here.folders[-1] if here.folders else path.name,
            is_file=False,
            files=tuple(path / name for name in names),
            identity=tuple(identity_of(contents.files[name]) for name in names),
            locations=(Location(root.store, path),),
        )


def _first(name: str) -> str:
    """The name of the first of the shards of which a file is one; its own, where it is none."""
    shard = SHARD.match(name) if _OF in name else None
    if shard is None:
        return name
    return f"{shard['stem']}-00001-of-{shard['count']}{shard['suffix']}"
