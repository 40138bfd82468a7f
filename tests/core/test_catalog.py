"""Snapshots and what is different between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.catalog import Change, Snapshot, advance, compare
from hybridd.core.model import FileIdentity, ModelRecord
from tests.core.test_model import record


def made(*ids: str, context: int = 1) -> list[ModelRecord]:
    facts = replace(record().facts, context_length=context)
    return [replace(record(), id=key, facts=facts) for key in ids]


def test_a_first_listing() -> None:
    snapshot, changes = advance(Snapshot(), made("b", "a"), complete=True, scanned_at=1.0)
    assert list(snapshot.models) == ["a", "b"]
    assert (snapshot.revision, snapshot.complete, snapshot.scanned_at) == (1, True, 1.0)
    assert changes == [Change("added", "a"), Change("added", "b")]


def test_nothing_new_is_no_revision() -> None:
    first, _ = advance(Snapshot(), made("a"), complete=False, scanned_at=None)
    second, changes = advance(first, made("a"), complete=True, scanned_at=2.0)
    assert changes == []
    assert second.revision == first.revision
    assert second.models is first.models
    assert second.complete


def test_what_changed_is_named() -> None:
    first, _ = advance(Snapshot(), made("a", "b", "c"), complete=True, scanned_at=1.0)
    a, b = made("a"), made("b", context=2)
    a = [replace(a[0], identity=(FileIdentity(9, 9, 9, 9),), status="invalid", reason="cut")]
    second, changes = advance(first, a + b + made("d"), complete=True, scanned_at=2.0)
    assert changes == [
        Change("removed", "c"),
        Change("changed", "a", ("status", "reason", "files")),
        Change("changed", "b", ("context_length",)),
        Change("added", "d"),
    ]
    assert second.revision == 2
    assert first.models["a"].status == "available"


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot, _ = advance(Snapshot(), made("a"), complete=True, scanned_at=1.0)
    with pytest.raises(TypeError):
        snapshot.models["b"] = record()  # type: ignore[index]


listing = some.dictionaries(some.sampled_from("abcdef"), some.integers(0, 2))


@given(some.lists(listing, max_size=5))
def test_changes_carry_one_listing_to_the_next(listings: list[dict[str, int]]) -> None:
    snapshot = Snapshot()
    followed: dict[str, ModelRecord] = {}
    for entries in listings:
        records = [r for key, context in entries.items() for r in made(key, context=context)]
        before = snapshot
        snapshot, changes = advance(before, records, complete=True, scanned_at=0.0)
        for change in changes:
            if change.type == "removed":
                del followed[change.id]
            else:
                assert (change.id in followed) == (change.type == "changed")
                assert bool(change.fields) == (change.type == "changed")
                followed[change.id] = snapshot.models[change.id]
        assert followed == dict(snapshot.models)
        assert list(snapshot.models) == sorted(entries)
        assert snapshot.revision == before.revision + bool(changes)
        assert compare(snapshot.models, snapshot.models) == []
