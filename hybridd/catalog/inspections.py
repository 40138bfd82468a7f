"""What stands between a walk of the disk and the catalog: inspecting and remembering.

A file is inspected once it has stopped changing (see `settling`), and only once while it stays as
it is. `Inspections` asks the backends and keeps their answers; `make_records` joins candidates,
facts and names. No trio and no threads here: `library` calls the slow part in one.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from hybridd.backends.api import Backend, Facts
from hybridd.core.grouping import base_name, store_name
from hybridd.core.model import AVAILABLE, INVALID, ModelRecord, printable
from hybridd.core.naming import Found, Name, assign
from hybridd.core.packed import Packed
from hybridd.wire.errors import ModelInvalid

from .candidate import Candidate
from .examine import examine

_log = logging.getLogger(__name__)

CHANGING = "the files are being written; they are looked at once they rest"
OPEN = "incomplete: it is open for writing; it is ready once it is closed"
# How long one stay in the inspecting thread lasts, so that progress and cancellation get through.
SLICE_S = 0.2
# For so many models the store is asked at once.
_AT_A_TIME = 256


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
        self._known = {key: made for key, made in self._known.items() if key in kept}
        self.store.keep_only(kept)

    def _one(self, candidate: Candidate, backend: Backend) -> Inspected:
        known = self._known.get(candidate.key)
        if known is not None and _same_files(known.candidate, candidate):
            if known.candidate is candidate:
                return known
            made = Inspected(candidate, known.facts)
        elif facts := self.store.get(candidate):
            made = Inspected(candidate, facts)
        else:
            facts, lasting = _asked(candidate, backend)
            if facts is None or lasting is _Lasting.NOT:
                return Inspected(candidate, facts)
            facts = _slim(facts, candidate)
            if lasting is _Lasting.WITH_THE_FILES:
                self.store.put(candidate, facts)
            made = Inspected(candidate, facts)
        self._known[candidate.key] = made
        return made


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


def _same_files(one: Candidate, other: Candidate) -> bool:
    return one.examined == other.examined


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


def make_records(
    inspected: Iterable[Inspected],
    waiting: Iterable[Candidate],
    backends: Mapping[str, Backend],
    previous: Mapping[str, ModelRecord],
    names: Mapping[str, Name],
    aliases: Mapping[str, tuple[str, ...]],
    to_come: Iterable[Candidate] = (),
) -> tuple[list[ModelRecord], dict[str, Name]]:
    """Records for a listing.

    Args:
        inspected: Settled candidates with their facts.
        waiting: Candidates that are being written. One that was listed before stays listed,
            but is not available; a new one is not listed yet.
        backends: By format.
        previous: The last listing's records, by key.
        names: The last listing's names, by key.
        aliases: By id.
        to_come: Candidates that were not inspected yet; their names are kept for them.

    Returns:
        The records, and the names by key for the next time.
    """
    listed = [(made.candidate, made.facts) for made in inspected if made.facts is not None]
    order = [
        _found(candidate, facts, backends[candidate.format].tagged) for candidate, facts in listed
    ]
    held = [previous[c.key] for c in waiting if c.key in previous]
    kept = [c.key for c in waiting if c.key in previous]
    # Held records keep their names, so nobody else may take them meanwhile.
    order += [
        Found(c.key, c.root.store, c.folders, c.stem, c.is_file, tagged=True, fixed=c.given)
        for c in chain((c for c in waiting if c.key in previous), to_come)
        if c.key in names
    ]
    assigned = assign(order, names)
    records = [
        _record(candidate, facts, assigned[candidate.key], aliases, previous.get(candidate.key))
        for candidate, facts in listed
    ]
    for key, record in zip(kept, held, strict=True):
        assigned[key] = names[key]
        records.append(
            replace(record, status=INVALID, reason=CHANGING) if record.available else record
        )
    return records, assigned


def _found(candidate: Candidate, facts: Facts, tagged: bool) -> Found:
    fixed = candidate.given
    if candidate.root.fixed is not None:
        fixed = candidate.root.fixed.get((*candidate.folders, candidate.stem)[0])
    return Found(
        key=candidate.key,
        store=candidate.root.store,
        folders=candidate.folders,
        stem=candidate.stem,
        is_file=candidate.is_file,
        tag=facts.quantization if tagged else None,
        tagged=tagged,
        fixed=fixed,
        revision=candidate.revision,
    )


def _record(
    candidate: Candidate,
    facts: Facts,
    name: Name,
    aliases: Mapping[str, tuple[str, ...]],
    last: ModelRecord | None,
) -> ModelRecord:
    others = _aliases(name.id, aliases.get(name.id, ()), candidate.aliases)
    if (
        last is not None
        and last.facts is facts
        and last.identity is candidate.identity
        and last.locations is candidate.locations
        and (last.id, last.name, last.publisher) == (name.id, name.name, name.publisher)
        and last.aliases == others
        and last.reason not in (CHANGING, OPEN)
        and not candidate.open
    ):
        return last  # of the very same candidate
    reason = facts.reason
    if candidate.unfinished is not None:
        reason = f"incomplete: {printable(candidate.unfinished)!r} says that it is being written"
    elif reason is None and candidate.open:
        reason = OPEN
    newest = max((identity.mtime_ns for identity in candidate.identity), default=0)
    return ModelRecord(
        id=name.id,
        facts=facts,
        publisher=name.publisher,
        name=name.name,
        store=candidate.root.store,
        path=candidate.path,
        locations=candidate.locations,
        status=AVAILABLE if reason is None else INVALID,
        reason=reason,
        modified_at=newest / 1e9,
        files=candidate.files,
        identity=candidate.identity,
        aliases=others,
        base=base_name(
            name.id if candidate.given is None else store_name(candidate.given, facts.name),
            facts.base,
        ),
        digest=candidate.digest,
    )


def _aliases(own: str, *several: tuple[str, ...]) -> tuple[str, ...]:
    """All other names once: the user's first, then those of the stores."""
    if not any(several):
        return ()
    return tuple(dict.fromkeys(alias for some in several for alias in some if alias != own))
