"""The catalog as a value: an immutable snapshot, and what changed from one to the next.

Pure: no I/O and no clock. The current snapshot is `catalog/library`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from .model import Facts, ModelRecord

ADDED, CHANGED, REMOVED = "added", "changed", "removed"

_FACTS = tuple(f.name for f in fields(Facts))
_RECORD = tuple(f.name for f in fields(ModelRecord) if f.name != "facts")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models at one moment.

    Attributes:
        models: Every listed model by id, sorted by id, usable or not.
        revision: Grows by one with every snapshot that differs from the one before.
        complete: Whether every store was looked at since the start.
        scanned_at: Unix seconds of the last complete look; None before the first.
        problems: What could not be looked at, as sentences.
    """

    models: Mapping[str, ModelRecord] = field(default_factory=lambda: MappingProxyType({}))
    revision: int = 0
    complete: bool = False
    scanned_at: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two snapshots.

    Attributes:
        type: `added`, `changed` or `removed`.
        id: The model's id.
        fields: What changed, by the names of `ModelRecord` and `Facts`; `files` when the files
            themselves were replaced or rewritten.
    """

    type: str
    id: str
    fields: tuple[str, ...] = ()


def compare(old: Mapping[str, ModelRecord], new: Mapping[str, ModelRecord]) -> list[Change]:
    """What is different in `new`: removals first, then by id."""
    changes = [Change(REMOVED, key) for key in old if key not in new]
    for key, record in new.items():
        before = old.get(key)
        if before is None:
            changes.append(Change(ADDED, key))
        elif before is not record and before != record:
            changes.append(Change(CHANGED, key, differences(before, record)))
    return changes


def differences(before: ModelRecord, after: ModelRecord) -> tuple[str, ...]:
    """The names of the fields that differ."""
    differ = [name for name in _RECORD if getattr(before, name) != getattr(after, name)]
    differ += [n for n in _FACTS if getattr(before.facts, n) != getattr(after.facts, n)]
    renamed = ["files" if name == "identity" else name for name in differ]
    return tuple(dict.fromkeys(renamed))


def advance(
    current: Snapshot,
    records: Iterable[ModelRecord],
    *,
    complete: bool,
    scanned_at: float | None,
    problems: tuple[str, ...] = (),
) -> tuple[Snapshot, list[Change]]:
    """The snapshot that follows `current`, and what is different in it.

    Records that are equal to the current ones are kept as they are, so that equal snapshots
    share them and later comparisons are cheap.
    """
    by_id: dict[str, ModelRecord] = {}
    for record in sorted(records, key=lambda record: record.id):
        before = current.models.get(record.id)
        by_id[record.id] = before if before is not None and before == record else record
    changes = compare(current.models, by_id)
    models = MappingProxyType(by_id) if changes else current.models
    revision = current.revision + 1 if changes else current.revision
    return Snapshot(models, revision, complete, scanned_at, problems), changes
