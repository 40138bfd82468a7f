"""The states of a worker and the moves between them, as one table.

    absent -> starting -> loading -> ready <-> draining -> stopping -> absent
                                       any state with a process -> absent, when the process ends

`starting`: the process is being made. `loading`: it brings the model up. `ready`: it takes
requests. `draining`: it finishes what it has and takes no more. `stopping`: it was told to end.
How it ended (as asked, by a typed failure, by a death) is told by the event, not by a state: a
state says what may happen next, and after an end that is always the same.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a worker is."""

    ABSENT = "absent"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


MOVES: dict[State, frozenset[State]] = {
    State.ABSENT: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.LOADING, State.STOPPING, State.ABSENT}),
    State.LOADING: frozenset({State.READY, State.STOPPING, State.ABSENT}),
    State.READY: frozenset({State.DRAINING, State.STOPPING, State.ABSENT}),
    State.DRAINING: frozenset({State.READY, State.STOPPING, State.ABSENT}),
    State.STOPPING: frozenset({State.ABSENT}),
}

# Model.status and Loaded.status on the wire.
WIRE_STATUS = {
    State.STARTING: "loading",
    State.LOADING: "loading",
    State.READY: "loaded",
    State.DRAINING: "unloading",
    State.STOPPING: "unloading",
}


def move(before: State, after: State) -> State:
    """Return `after`.

    Raises:
        AssertionError: The table has no such move: a bug of the scheduler.
    """
    assert after in MOVES[before], f"no move from {before} to {after}"
    return after
