"""The table of request kinds, held against the methods that ask with them."""

from __future__ import annotations

import inspect

import hybridd.rpc.methods
from hybridd.core.kinds import KINDS, Mode, of_mode
from hybridd.rpc.registry import REGISTRY

assert hybridd.rpc.methods


def test_every_kind_is_a_method_and_streams_where_the_table_says_so() -> None:
    for name, kind in KINDS.items():
        parameters = inspect.signature(REGISTRY.methods[name].handler).parameters
        assert ("stream" in parameters) == kind.streams, name
        assert ("messages" in parameters) == kind.conversation, name


def test_every_kind_is_done_in_one_way() -> None:
    assert {name for mode in Mode for name in of_mode(mode)} == set(KINDS)
    assert set(of_mode(Mode.GENERATE)) == {"generate", "chat"}
    assert set(of_mode(Mode.ENCODE)) == {"embed", "rerank"}


def test_what_is_said_of_a_model_without_the_capability() -> None:
    for kind in KINDS.values():
        assert bool(kind.capability) == bool(kind.lacking), kind.name
