"""The table of a worker's states."""

from __future__ import annotations

import itertools

import pytest

from hybridd.core.lifecycle import MOVES, WIRE_STATUS, State, move

# What can happen to a worker; everything else is a bug.
ALLOWED = {
    ("absent", "starting"), ("starting", "loading"), ("starting", "stopping"),
    ("starting", "absent"), ("loading", "ready"), ("loading", "stopping"), ("loading", "absent"),
    ("ready", "draining"), ("ready", "stopping"), ("ready", "absent"), ("draining", "ready"),
    ("draining", "stopping"), ("draining", "absent"), ("stopping", "absent"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_moves(before: State, after: State) -> None:
    if (before.value, after.value) in ALLOWED:
        assert move(before, after) is after
    else:
        with pytest.raises(AssertionError, match="no move"):
            move(before, after)


def test_every_state_has_its_moves_and_its_word() -> None:
    assert set(MOVES) == set(State)
    assert set(WIRE_STATUS) == set(State) - {State.ABSENT}
    assert set(WIRE_STATUS.values()) == {"loading", "loaded", "unloading"}


def test_a_process_may_end_at_any_time() -> None:
    assert all(State.ABSENT in MOVES[state] for state in State if state is not State.ABSENT)
