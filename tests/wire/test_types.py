"""Typed results: forgiving towards a newer daemon, exact about what is there."""

from __future__ import annotations

from typing import Any

from hybridd.wire.record import Record
from hybridd.wire.types import Completion, Model, ModelDetails, Quantization, Usage


def test_absent_fields_have_defaults_and_unknown_ones_are_kept_aside() -> None:
    data = {"id": "a:F16", "a_field_of_tomorrow": 1, "quantization": {"name": "F16", "new": 2}}
    made = Model.from_wire(data)
    assert (made.id, made.aliases, made.size_bytes, made.publisher) == ("a:F16", [], 0, None)
    assert made.quantization == Quantization(name="F16")
    assert made.raw == data
    assert not hasattr(made, "a_field_of_tomorrow")


def test_lists_of_records() -> None:
    made = Model.from_wire({"locations": [{"store": "s", "path": "/p"}, {}]})
    assert [(place.store, place.path) for place in made.locations] == [("s", "/p"), ("", "")]


def test_defaults_are_nobodys_but_ones_own() -> None:
    one, other = Completion(), Completion()
    one.usage.prompt_tokens = 7
    assert other.usage.prompt_tokens == 0
    assert Usage().prompt_tokens == 0
    first, second = Model(), Model()
    first.aliases.append("x")
    assert second.aliases == []
    assert Model.from_wire({}).raw == {}
    assert Record.raw == {}


def test_a_child_has_its_parents_fields() -> None:
    made = ModelDetails.from_wire({"id": "a", "metadata": {"k": 1}, "source": {"store": "s"}})
    assert (made.id, made.metadata) == ("a", {"k": 1})
    assert made.source is not None
    assert made.source.store == "s"


def test_to_wire_leaves_out_what_is_not_known() -> None:
    data: dict[str, Any] = {
        "id": "a",
        "quantization": {"name": "F16", "bits_per_weight": 16.0},
        "locations": [{"store": "s", "path": "/p"}],
    }
    wire = Model.from_wire(data).to_wire()
    assert {k: wire[k] for k in data} == data
    assert "publisher" not in wire
    assert Model.from_wire(wire) == Model.from_wire(data)


def test_equality_is_by_kind_and_fields() -> None:
    assert Quantization(name="x") == Quantization(name="x")
    assert Quantization(name="x") != Quantization(name="y")
    assert Quantization() != Usage()
    assert repr(Quantization(name="x")) == "Quantization(name='x')"
