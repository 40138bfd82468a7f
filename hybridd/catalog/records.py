"""The records of the catalog: candidates, facts and names joined.

Pure: what was inspected and what is being written comes in, with the last listing; the next one
goes out. Who names models is `core/naming`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from hybridd.backends.api import Backend, Facts
from hybridd.core.grouping import base_name, store_name
from hybridd.core.model import AVAILABLE, INVALID, ModelRecord, printable
from hybridd.core.naming import Name, Unnamed, assign

from .candidate import Candidate
from .inspections import Inspected

CHANGING = "the files are being written; they are looked at once they rest"
OPEN = "incomplete: it is open for writing; it is ready once it is closed"


class Stages(NamedTuple):
    """The candidates of one look, by how far they are.

    Attributes:
        inspected: Settled candidates with their facts.
        waiting: Candidates that are being written. One that was listed before stays listed,
            but is not available; a new one is not listed yet.
        to_come: Candidates that were not inspected yet; their names are kept for them.
    """

    inspected: Sequence[Inspected]
    waiting: Sequence[Candidate] = ()
    to_come: Sequence[Candidate] = ()


def make_records(
    stages: Stages,
    backends: Mapping[str, Backend],
    previous: Mapping[str, ModelRecord],
    names: Mapping[str, Name],
    aliases: Mapping[str, tuple[str, ...]],
) -> tuple[list[ModelRecord], dict[str, Name]]:
    """Records for a listing.

    Args:
        stages: All candidates that the walk found so far.
        backends: By format.
        previous: The last listing's records, by key.
        names: The last listing's names, by key.
        aliases: By id.

    Returns:
        The records, and the names by key for the next time.
    """
    listed = [(each.candidate, each.facts) for each in stages.inspected if each.facts is not None]
    to_name = [
        _unnamed(candidate, facts, backends[candidate.format].tagged) for candidate, facts in listed
    ]
    held = [candidate for candidate in stages.waiting if candidate.key in previous]
    # Models that are not listed anew keep their names, so that no other gets them meanwhile.
    to_name += [
        Unnamed(c.key, c.root.store, c.folders, c.stem, c.is_file, tagged=True, fixed=c.given)
        for c in chain(held, stages.to_come)
        if c.key in names
    ]
    assigned = assign(to_name, names)
    records = [
        _record(candidate, facts, assigned[candidate.key], aliases, previous.get(candidate.key))
        for candidate, facts in listed
    ]
    for candidate in held:
        assigned[candidate.key] = names[candidate.key]
        records.append(_changing(previous[candidate.key]))
    return records, assigned


def _unnamed(candidate: Candidate, facts: Facts, tagged: bool) -> Unnamed:
    fixed = candidate.given
    if candidate.root.fixed is not None:
        fixed = candidate.root.fixed.get((*candidate.folders, candidate.stem)[0])
    return Unnamed(
        key=candidate.key,
        store=candidate.root.store,
        folders=candidate.folders,
        stem=candidate.stem,
        is_file=candidate.is_file,
        tag=facts.quantization if tagged else None,
        tagged=tagged,
        fixed=fixed,
        commit=candidate.commit,
    )


def _changing(record: ModelRecord) -> ModelRecord:
    """The record of a model whose files are being written."""
    return replace(record, status=INVALID, reason=CHANGING) if record.available else record


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
