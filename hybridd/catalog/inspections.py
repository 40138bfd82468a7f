"""Facts of candidates: each is inspected once while its files stay as they are.

A file is inspected once it has stopped changing (see `settling`). `Inspections` asks the backends
and keeps their answers; `records` makes models of them. No trio and no threads here: `look` is
called in one.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hybridd.backends.api import Backend, Facts
from hybridd.core.packed import Packed
from hybridd.wire.errors import ModelInvalid

from .candidate import Candidate
from .examine import examine
from .facts_store import FactsStore, NoFactsStore

_log = logging.getLogger(__name__)

# How long one stay in the inspecting thread lasts, so that progress and cancellation get through.
SLICE_S = 0.2
# For so many models the store is asked at once.
_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Inspected:
    """A candidate with what the backend said of it; no facts when its files went away."""

    candidate: Candidate
    facts: Facts | None


class Inspections:
    """Asks the backends, and remembers. Called from one thread at a time."""

    def __init__(self, store: FactsStore | None = None) -> None:
        self.store: FactsStore = NoFactsStore() if store is None else store
        self._known: dict[str, Inspected] = {}

    def inspect(
        self, candidates: Sequence[Candidate], backends: Mapping[str, Backend]
    ) -> list[Inspected]:
        """Inspect as many candidates as fit into a slice of time, but whole directories.

        The names of a directory's models depend on each other, so that a listing never ends
        between two of them.
        """
        started = time.monotonic()
        done: list[Inspected] = []
        for number, candidate in enumerate(candidates):
            if number % _AT_A_TIME == 0:
                some = candidates[number : number + _AT_A_TIME]
                if new := [c for c in some if c.key not in self._known]:
                    self.store.expect(new)
            if (
                done
                and time.monotonic() - started > SLICE_S
                and done[-1].candidate.path.parent != candidate.path.parent
            ):
                break
            done.append(self._one(candidate, backends[candidate.format]))
        self.store.flush()
        return done

    def unchanged(self, candidate: Candidate) -> Candidate:
        """The same candidate of an earlier look, if it was inspected; else this one."""
        known = self._known.get(candidate.key)
        return known.candidate if known is not None and known.candidate == candidate else candidate

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget everything else."""
        kept = set(keys)
        self._known = {key: known for key, known in self._known.items() if key in kept}
        self.store.keep_only(kept)

    def _one(self, candidate: Candidate, backend: Backend) -> Inspected:
        known = self._known.get(candidate.key)
        if known is not None and known.candidate.examined == candidate.examined:
            if known.candidate is candidate:
                return known
            inspected = Inspected(candidate, known.facts)
        elif facts := self.store.get(candidate):
            inspected = Inspected(candidate, facts)
        else:
            facts, lasting = _asked(candidate, backend)
            if facts is None or lasting is _Lasting.NOT:
                return Inspected(candidate, facts)
            facts = _slim(facts, candidate)
            if lasting is _Lasting.WITH_THE_FILES:
                self.store.put(candidate, facts)
            inspected = Inspected(candidate, facts)
        self._known[candidate.key] = inspected
        return inspected


class _Lasting(enum.Enum):
    """How long an answer holds while the files stay as they are."""

    NOT = enum.auto()
    WITH_THE_DAEMON = enum.auto()
    WITH_THE_FILES = enum.auto()


def _asked(candidate: Candidate, backend: Backend) -> tuple[Facts | None, _Lasting]:
    """What the backend says; None when the files went away."""
    try:
        return examine(candidate, backend), _Lasting.WITH_THE_FILES
    except ModelInvalid as error:
        reason = str(error.data.get("reason") or error.message)
        return _unread(candidate, reason), _Lasting.WITH_THE_FILES
    except FileNotFoundError:
        return None, _Lasting.NOT
    except OSError as error:
        # What cannot be read now may be readable at the next look.
        why = error.strerror or type(error).__name__
        return _unread(candidate, f"cannot be read: {why}"), _Lasting.NOT
    except Exception as error:  # a third party's backend must not end the catalog
        _log.exception("the backend %s failed on %s", candidate.format, candidate.key)
        reason = f"the backend failed on it ({type(error).__name__})"
        return _unread(candidate, reason), _Lasting.WITH_THE_DAEMON


def _slim(facts: Facts, candidate: Candidate) -> Facts:
    """The same facts in less room: ten thousand of them are held."""
    files = candidate.files if facts.files == candidate.files else facts.files
    try:
        return replace(facts, files=files, metadata=Packed.of(facts.metadata))
    except (TypeError, ValueError):  # a third party's
        return facts


def _unread(candidate: Candidate, reason: str) -> Facts:
    size = sum(identity.size for identity in candidate.identity)
    return Facts(candidate.format, candidate.files, size_bytes=size, reason=reason)
