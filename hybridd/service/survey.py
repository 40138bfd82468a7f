"""One look after the other, in the thread beside the loop: from the disk to the next snapshot.

Everything here blocks and nothing here is async: `library` decides when to look, calls these steps
one at a time in its thread and publishes what they return. What lasts between looks (what was
inspected, what models are called) is kept here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from hybridd.backends.api import Backend
from hybridd.core.catalog import Change, Snapshot, advance
from hybridd.core.model import ModelRecord
from hybridd.core.naming import Name
from hybridd.host import collector
from hybridd.host.scan import Candidate, Listing, Root, scan

from .intake import FactsStore, Inspected, Inspections, Settling, make_records

# So many new models are worth a thought about the garbage collector.
_MANY = 500


class Survey:
    """The steps of a look, in their order, and what lasts between looks.

    Args:
        settle_s: How long a file has to rest before it is inspected.
        look: Walks the disk.
        facts: Where inspections and names are remembered.
        wall: Unix seconds.
    """

    def __init__(
        self,
        settle_s: float,
        look: Callable[..., Listing] = scan,
        facts: FactsStore | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settling = Settling(settle_s)
        self._look = look
        self._inspections = Inspections(facts)
        self._wall = wall
        self._names: dict[str, Name] = {}
        self._by_key: dict[str, ModelRecord] = {}
        self._begun = False
        self._grown = 0  # how many models are new since the collector was told

    def close(self) -> None:
        """Let go of what is remembered; no step follows."""
        if self._begun:
            self._inspections.store.close()

    def walk(
        self,
        roots: Sequence[Root],
        backends: Mapping[str, Backend],
        stop: Callable[[], bool],
    ) -> Listing:
        """Walk the disk; `stop` ends it early."""
        if not self._begun:
            self._begun = True
            self._inspections.store.open()
            self._names = self._inspections.store.names()
        listing = self._look(roots, backends, stop)
        # What is as it was is kept as it was, so that a look leaves nothing new behind.
        kept = [self._inspections.unchanged(candidate) for candidate in listing.candidates]
        if sum(a is b for a, b in zip(kept, listing.candidates, strict=True)) >= _MANY:
            collector.keep()
        listing.candidates = kept
        return listing

    def sort(
        self, candidates: Sequence[Candidate], now: float
    ) -> tuple[list[Candidate], list[Candidate], float | None]:
        """Who is settled, who has to wait, and how long; see `Settling.sort`."""
        return self.settling.sort(candidates, self._wall(), now)

    def inspect(
        self, candidates: Sequence[Candidate], backends: Mapping[str, Backend]
    ) -> list[Inspected]:
        """Inspect some of these, a slice of time long."""
        return self._inspections.inspect(candidates, backends)

    def advance(
        self,
        before: Snapshot,
        inspected: Sequence[Inspected],
        waiting: Sequence[Candidate],
        backends: Mapping[str, Backend],
        aliases: Mapping[str, tuple[str, ...]],
        listing: Listing | None,
        to_come: Sequence[Candidate] = (),
    ) -> tuple[Snapshot, list[Change]]:
        """The next snapshot and what is different in it.

        Args:
            before: The snapshot that it follows.
            inspected, waiting, to_come: What became of the candidates so far.
            listing: What the walk found; None while some are still to come.
        """
        records, names = make_records(
            inspected, waiting, backends, self._by_key, self._names, aliases, to_come
        )
        after, changes = advance(
            before,
            records,
            complete=before.complete or listing is not None,
            scanned_at=before.scanned_at if listing is None else self._wall(),
            problems=before.problems if listing is None else tuple(listing.problems),
        )
        self._names = names
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
