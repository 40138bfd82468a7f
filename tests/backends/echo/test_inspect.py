"""The echo format's file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.echo import BACKEND
from hybridd.wire.errors import ModelInvalid
from tests.make_models import write_echo


def test_an_empty_object_is_a_model(tmp_path: Path) -> None:
    facts = BACKEND.inspect(write_echo(tmp_path / "parrot.echo"))
    assert (facts.format, facts.name, facts.reason) == ("echo", "parrot", None)
    assert facts.context_length == 4096
    assert facts.capabilities == ("completion", "chat")
    assert BACKEND.estimate(facts, {}).reserved_bytes == 0


def test_what_it_says_is_believed(tmp_path: Path) -> None:
    path = write_echo(
        tmp_path / "big.echo",
        context_length=100,
        parallel=4,
        weights_bytes=10**9,
        token_delay_s=0.5,
        load_s=1,
        load_steps=3,
        fail=None,
        crash_on="boom",
        reply="hi",
    )
    facts = BACKEND.inspect(path)
    estimate = BACKEND.estimate(facts, {})
    assert (estimate.reserved_bytes, estimate.context_length) == (10**9, 100)
    assert estimate.parallel == 4
    assert BACKEND.estimate(facts, {"parallel": 2}).parallel == 2
    assert facts.metadata["crash_on"] == "boom"


@pytest.mark.parametrize(
    "said",
    [
        {"contextlength": 1},
        {"context_length": 0},
        {"context_length": True},
        {"token_delay_s": -1},
        {"token_delay_s": float("nan")},
        {"load_s": "1"},
        {"reply": 3},
        {"weights_bytes": 1.5},
        {"reply": "x" * 70_000},
    ],
)
def test_what_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(ModelInvalid):
        BACKEND.inspect(write_echo(tmp_path / "x.echo", **said))


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.echo")
    with pytest.raises(ModelInvalid):
        BACKEND.inspect(tmp_path / "x.echo")
