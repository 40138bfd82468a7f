"""What the catalog remembers across restarts, as `inspections` and `look` ask for it.

`database` is the one that remembers; a catalog without one inspects everything at every start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from hybridd.core.model import Facts
from hybridd.core.naming import Name

from .candidate import Candidate


class FactsStore(Protocol):
    """Where inspections and names are remembered across restarts."""

    def open(self) -> None:
        """Begin; called once, in the thread that uses it."""
        ...

    def close(self) -> None:
        """Write what was put, and end."""
        ...

    def expect(self, candidates: Sequence[Candidate]) -> None:
        """These will be asked for next."""
        ...

    def get(self, candidate: Candidate) -> Facts | None:
        """The facts of these very files, if they were seen before."""
        ...

    def put(self, candidate: Candidate, facts: Facts) -> None:
        """Remember them, at the latest with the next `flush`."""
        ...

    def flush(self) -> None:
        """Write what was put."""
        ...

    def keep_only(self, paths: Iterable[str]) -> None:
        """Everything else may be forgotten."""
        ...

    def names(self) -> dict[str, Name]:
        """How models were called, by key."""
        ...

    def keep_names(self, names: Mapping[str, Name]) -> None:
        """Remember how these are called."""
        ...


class NoFactsStore:
    """Remembers nothing: every start inspects everything."""

    def open(self) -> None:
        """See `FactsStore`."""

    def close(self) -> None:
        """See `FactsStore`."""

    def expect(self, candidates: Sequence[Candidate]) -> None:
        """See `FactsStore`."""

    def get(self, candidate: Candidate) -> Facts | None:
        """See `FactsStore`."""
        return None

    def put(self, candidate: Candidate, facts: Facts) -> None:
        """See `FactsStore`."""

    def flush(self) -> None:
        """See `FactsStore`."""

    def keep_only(self, paths: Iterable[str]) -> None:
        """See `FactsStore`."""

    def names(self) -> dict[str, Name]:
        """See `FactsStore`."""
        return {}

    def keep_names(self, names: Mapping[str, Name]) -> None:
        """See `FactsStore`."""
