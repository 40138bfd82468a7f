"""Which candidates are complete, and which are still being written."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from math import inf

from hybridd.core.model import FileIdentity

from .candidate import Candidate
from .writers import Writers

# Files that have not changed for longer are not asked for being open.
RECENT_S = 3600.0
# How often one that is open is asked again: the event of its closing usually comes first.
OPEN_S = 5.0


class Settling:
    """Tells complete files from those that are still being written.

    A candidate is settled when its newest file is older than the settle time, or was seen
    unchanged for that long (clocks of network file systems and archives can be in the future).
    Of one that changed not long ago it is asked whether a program has it open for writing: once, if
    none has, and else again and again until it is closed.

    Args:
        settle_s: The settle time.
        writers: Makes what says of a path whether it is open for writing, for one look.
    """

    def __init__(self, settle_s: float, writers: Callable[[], Writers] = Writers) -> None:
        self.settle_s = settle_s
        self._writers = writers
        self._since: dict[str, tuple[tuple[FileIdentity, ...], float]] = {}
        self._closed: set[FileIdentity] = set()
        self._open: dict[str, Candidate] = {}

    def sort(
        self, candidates: Iterable[Candidate], wall: float, now: float
    ) -> tuple[list[Candidate], list[Candidate], float | None]:
        """Split candidates into settled and waiting ones.

        Args:
            candidates: All of one walk.
            wall: Unix seconds, to compare with the files' times.
            now: Any monotonic clock's seconds.

        Returns:
            The settled ones, those that are open marked so; the waiting ones; and in how many
            seconds to look again.
        """
        settled, waiting = [], []
        due = inf
        since: dict[str, tuple[tuple[FileIdentity, ...], float]] = {}
        closed, opened = self._closed, self._open
        self._closed, self._open = set(), {}
        writers = self._writers()
        for candidate in candidates:
            newest = max((f.mtime_ns for f in candidate.identity), default=0) / 1e9
            age = wall - newest
            if age < self.settle_s:
                known = self._since.get(candidate.key)
                first = known[1] if known is not None and known[0] == candidate.identity else now
                since[candidate.key] = (candidate.identity, first)
                rest = first + self.settle_s - now
                if rest > 0:
                    waiting.append(candidate)
                    due = min(due, rest, self.settle_s - age if age >= 0 else rest)
                    continue
            if (age < RECENT_S or candidate.key in opened) and self._is_open(
                candidate, writers, closed
            ):
                due = min(due, OPEN_S)
                candidate = _marked(candidate, opened.get(candidate.key))
                self._open[candidate.key] = candidate
            settled.append(candidate)
        self._since = since
        return settled, waiting, None if due == inf else due

    def _is_open(
        self, candidate: Candidate, writers: Writers, closed: Container[FileIdentity]
    ) -> bool:
        for path, identity in zip(candidate.files, candidate.identity, strict=True):
            if identity not in closed and writers.has(path):
                return True
            self._closed.add(identity)
        return False


def _marked(candidate: Candidate, known: Candidate | None) -> Candidate:
    """The candidate as one that is open; the very same one as before, where nothing changed."""
    marked = replace(candidate, open=True)
    return known if known == marked and known is not None else marked
