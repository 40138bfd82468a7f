"""One look after the other, in the thread beside the loop: from the disk to the next snapshot.

Everything here blocks and nothing here is async: `library` decides when to look, calls these steps
one at a time in its thread and publishes what they return. What lasts between looks (what was
inspected, what models are called) is kept here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from hybridd.backends.api import Backend
from hybridd.core.catalog import Change, Snapshot, advance
from hybridd.core.model import ModelRecord
from hybridd.core.naming import Name
from hybridd.host import collector

from .candidate import Candidate, identity_of
from .facts_store import FactsStore
from .inspections import Inspected, Inspections
from .records import Stages, make_records
from .roots import Roots, RootStatus
from .seen import Seen
from .settling import Settling
from .walk import Listing, Source, scan

# What a snapshot's models are made of; the very same objects make the same models.
_Basis = tuple[list[Inspected | Candidate], dict[str, tuple[str, ...]]]

# So many new models are worth a thought about the garbage collector.
_MANY = 500


class Look:
    """The steps of a look, in their order, and what lasts between looks.

    Args:
        settle_s: How long a file has to rest before it is inspected.
        scan: Walks the disk.
        facts: Where inspections and names are remembered.
        wall: Unix seconds.

    Attributes:
        settling: Tells which files are being written.
        roots: Where the last look went, in the order of precedence.
    """

    def __init__(
        self,
        settle_s: float,
        scan: Callable[..., Listing] = scan,
        facts: FactsStore | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settling = Settling(settle_s)
        self.roots: list[RootStatus] = []
        self._scan = scan
        self._inspections = Inspections(facts)
        self._wall = wall
        self._names: dict[str, Name] = {}
        self._by_key: dict[str, ModelRecord] = {}
        self._seen = Seen(self._inspections.unchanged)
        self._roots: Roots | None = None
        self._looked_for: tuple[object, ...] | None = None
        self._written: list[str] = []  # files that are being written, which makes no events
        self._basis: _Basis = ([], {})
        self._begun = False
        self._grown = 0  # how many models are new since the collector was told

    def close(self) -> None:
        """Let go of what is remembered; no step follows."""
        if self._begun:
            self._inspections.store.close()

    def walk_first(
        self, sources: Sequence[Source], backends: Mapping[str, Backend], stop: Callable[[], bool]
    ) -> list[Candidate]:
        """What is in these few directories, before everything is walked."""
        self._begin()
        return self._scan(sources, backends, stop, Seen()).candidates

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._inspections.store.open()
            self._names = self._inspections.store.names()

    def walk(
        self,
        sources: Sequence[Source],
        backends: Mapping[str, Backend],
        stop: Callable[[], bool],
        touched: frozenset[str] | None = None,
    ) -> Listing:
        """Walk the disk; `stop` ends it early.

        Args:
            sources, backends: Where and for what.
            stop: Asked between directories.
            touched: Look only where these paths are; None looks everywhere.
        """
        self._begin()
        roots = Roots([root for root, _ in sources])
        looked_for = (roots.inodes, list(sources), list(backends))
        if touched is None or looked_for != self._looked_for:
            self._seen.clear()
        else:
            self._seen.forget([*roots.spelled(touched), *self._written])
        self._roots, self._looked_for, self.roots = roots, looked_for, roots.status()
        listing = self._scan(sources, backends, stop, self._seen)
        # Again, for those that were seen several times and merged.
        kept = [self._inspections.unchanged(candidate) for candidate in listing.candidates]
        if sum(a is b for a, b in zip(kept, listing.candidates, strict=True)) >= _MANY:
            collector.keep()
        listing.candidates = kept
        return listing

    def roots_changed(self) -> bool:
        """Whether a root is another directory than it was at the last look."""
        return self._roots is not None and self._roots.changed()

    def sort(
        self, candidates: Sequence[Candidate], now: float
    ) -> tuple[list[Candidate], list[Candidate], float | None]:
        """Which are settled, which have to wait, and how long; see `Settling.sort`."""
        settled, waiting, due_s = self.settling.sort(candidates, self._wall(), now)
        written = [*waiting, *(candidate for candidate in settled if candidate.open)]
        self._written = [os.fspath(path) for candidate in written for path in candidate.files]
        return settled, waiting, due_s

    def inspect(
        self, candidates: Sequence[Candidate], backends: Mapping[str, Backend]
    ) -> list[Inspected]:
        """Inspect some of these, a slice of time long."""
        return self._inspections.inspect(candidates, backends)

    def advance(
        self,
        before: Snapshot,
        stages: Stages,
        backends: Mapping[str, Backend],
        aliases: Mapping[str, tuple[str, ...]],
        listing: Listing | None,
    ) -> tuple[Snapshot, list[Change]]:
        """The next snapshot and what is different in it.

        Args:
            before: The snapshot that it follows.
            stages: What became of the candidates so far.
            backends: By format.
            aliases: By id.
            listing: What the walk found; None while some are still to come.
        """
        about: dict[str, Any] = {
            "complete": before.complete or listing is not None,
            "scanned_at": before.scanned_at if listing is None else self._wall(),
            "problems": before.problems if listing is None else tuple(listing.problems),
        }
        held: list[Inspected | Candidate] = [c for c in stages.waiting if c.key in self._by_key]
        basis = [*stages.inspected, *held], dict(aliases)
        if before.complete and _same(basis, self._basis):
            return replace(before, **about), []
        self._basis = basis
        records, names = make_records(stages, backends, self._by_key, self._names, aliases)
        after, changes = advance(before, records, **about)
        # What was not walked yet keeps its name for when it is.
        self._names = names if listing is not None else {**self._names, **names}
        self._by_key = {
            key: record
            for key, name in names.items()
            if (record := after.models.get(name.id)) is not None
        }
        self._grown += len(changes)
        if self._grown >= _MANY:
            self._grown = 0
            collector.keep()
        return after, changes

    def remember(self, listing: Listing) -> None:
        """Write down what a complete look found, and forget what is gone."""
        self._inspections.keep_only([candidate.key for candidate in listing.candidates])
        self._inspections.store.keep_names(self._names)


def _same(one: _Basis, other: _Basis) -> bool:
    return one[1] == other[1] and len(one[0]) == len(other[0]) and all(map(is_, one[0], other[0]))


def unchanged(record: ModelRecord) -> bool:
    """Whether a model's files are on the disk as they were when they were looked at."""
    try:
        return all(
            identity_of(os.stat(path)) == identity
            for path, identity in zip(record.files, record.identity, strict=True)
        )
    except OSError:
        return False
