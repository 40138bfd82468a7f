"""The tree of errors crosses the socket and comes back the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.wire import errors

# docs/protocol.md's table: a removed or renumbered line is a new major version.
TABLE = {
    "parse_error": -32700,
    "invalid_request": -32600,
    "line_too_long": -32600,
    "method_not_found": -32601,
    "invalid_params": -32602,
    "internal_error": -32603,
    "model_not_found": -32001,
    "model_ambiguous": -32002,
    "does_not_fit": -32003,
    "load_failed": -32004,
    "worker_died": -32005,
    "busy": -32006,
    "shutting_down": -32007,
    "unsupported": -32008,
    "context_exceeded": -32009,
    "not_loaded": -32010,
    "model_invalid": -32011,
    "timeout": -32012,
    "slow_consumer": -32013,
    "quarantined": -32014,
    "cancelled": -32800,
}


def test_every_kind_of_the_protocol_is_there_with_its_code() -> None:
    assert {kind: made.code for kind, made in errors.BY_KIND.items()} == TABLE


def facts(made: type[errors.HybriddError]) -> set[str]:
    """The names behind "data:" in an error's docstring."""
    told = re.sub(r"\(.*?\)", "", (made.__doc__ or "").partition("data:")[2], flags=re.DOTALL)
    return set(re.findall(r"\w+", told)) - {"or"}


def test_what_errors_are_raised_with_is_what_their_docstrings_name() -> None:
    by_class = {made.__name__: made for made in errors.BY_KIND.values()}
    used: dict[str, set[str]] = {}
    for path in Path(errors.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in by_class:
                    used.setdefault(name, set()).update(k.arg for k in node.keywords if k.arg)
    used["WorkerDied"] |= {"model", "signal", "exit_code", "oom"}  # handed over as a whole
    for name, made in by_class.items():
        if made is not errors.HybriddError:
            assert used.get(name, set()) == facts(made), name


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_round_trip(kind: str) -> None:
    made = errors.BY_KIND[kind]("do this", model="a/b", absent=None, number=0)
    wire = made.to_wire()
    assert wire == {
        "code": TABLE[kind],
        "message": "do this",
        "data": {"kind": kind, "model": "a/b", "number": 0},
    }
    again = errors.from_wire(wire)
    assert type(again) is type(made)
    assert (again.message, again.data) == ("do this", {"model": "a/b", "number": 0})
    assert again.to_wire() == wire


def test_a_kind_of_tomorrow_stays_what_it_is() -> None:
    wire = {"code": -32099, "message": "new", "data": {"kind": "too_hot", "degrees": 90}}
    made = errors.from_wire(wire)
    assert type(made) is errors.HybriddError
    assert (made.kind, made.code, made.data) == ("too_hot", -32099, {"degrees": 90})
    assert made.to_wire() == wire
    assert errors.HybriddError.kind == "internal_error", "the class is as it was"


anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner),
    max_leaves=5,
)


@given(
    anything
    | some.fixed_dictionaries(
        {},
        optional={
            "code": anything,
            "message": anything,
            "data": anything | some.fixed_dictionaries({"kind": anything}),
        },
    )
)
def test_whatever_claims_to_be_an_error_becomes_one(claimed: Any) -> None:
    made = errors.from_wire(claimed)
    assert isinstance(made, errors.HybriddError)
    assert isinstance(made.kind, str)
    assert made.to_wire()["data"]["kind"] == made.kind
