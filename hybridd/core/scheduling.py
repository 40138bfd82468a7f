"""The scheduler's vocabulary: what happens to it (events) and what it wants done (effects)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridd.core.devices import Snapshot
from hybridd.core.plan import Need, Plan
from hybridd.wire.errors import HybriddError

# ------------------------------------------------------------------ what waits for a model


@dataclass(slots=True)
class Item:
    """One thing that waits for a model: an inference request, or a wish that it be loaded.

    Attributes:
        key: Unique among all items; the manager's handle.
        load: True for a load, which is over once the model is ready.
        load_options: What a load on its behalf has to satisfy.
        keepalive: Seconds; None leaves the instance's as it is.
        detached: A load that goes on although no call waits for it.
        switch: Whether it may cause a load (an explicit load always may).
        seq: Order of arrival, set by the scheduler.
        ticket: The load's ticket that its waiter was told of, set by the scheduler.
        left: It was abandoned while it ran; its worker has still to let go of it.
    """

    key: int
    model: str
    load: bool = False
    load_options: Mapping[str, Any] = field(default_factory=dict)
    keepalive: float | None = None
    pin: bool | None = None
    detached: bool = False
    switch: bool = True
    seq: int = 0
    ticket: int | None = None
    left: bool = False


# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Something new waits; `need` is how the planner knows the model now."""

    item: Item
    need: Need


@dataclass(frozen=True, slots=True)
class Abandon:
    """The client left: cancelled, timed out or disconnected. Its answer is given elsewhere."""

    key: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """The reading of memory that `Sample` asked for."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """The process exists and begins to load."""

    instance: int


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is up; `facts` is the engine's `LoadedFacts`."""

    instance: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerRefused:
    """The load ended with a typed error; the process is on its way out."""

    instance: int
    error: HybriddError


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """The process ended and its memory is back.

    Attributes:
        error: `worker_died` with its data, when it was not asked to end.
        counts: Whether the death may count towards quarantine (no outside kill).
    """

    instance: int
    error: HybriddError | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """The engine has nothing more to do with this request; its slot is free."""

    instance: int
    key: int
    completed: bool = True


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload a model; `key` is finished with the bytes it freed."""

    key: int
    model: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """Stop a load and everything that waits for it."""

    ticket: int


@dataclass(frozen=True, slots=True)
class FilesChanged:
    """The model's files were replaced or went away."""

    model: str


@dataclass(frozen=True, slots=True)
class Configure:
    """Settings that the scheduler keeps to.

    Attributes:
        room: Whatever else decides what fits; when it changes, waiting loads are looked at again.
        cores: Physical cores that engines share; 0 leaves each to itself.
    """

    keepalive: float
    max_loaded: int
    max_queue: int
    room: tuple[Any, ...] = ()
    cores: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Close:
    """The daemon ends: everything is refused from now on."""


Event = (
    Enqueue
    | Abandon
    | Sampled
    | WorkerUp
    | WorkerReady
    | WorkerRefused
    | WorkerGone
    | RequestEnded
    | Unload
    | CancelLoad
    | FilesChanged
    | Configure
    | Tick
    | Close
)

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Sample:
    """Read the machine's memory and send `Sampled`."""


@dataclass(frozen=True, slots=True)
class Start:
    """Make a worker and load the model as planned."""

    instance: int
    model: str
    plan: Plan
    ticket: int


@dataclass(frozen=True, slots=True)
class Stop:
    """End a worker; `WorkerGone` follows. `force` does not wait for it to be polite."""

    instance: int
    force: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Hand a request to its worker; `RequestEnded` follows, or `WorkerGone`."""

    instance: int
    key: int


@dataclass(frozen=True, slots=True)
class CancelActive:
    """Tell the worker to forget a request; `RequestEnded` follows."""

    instance: int
    key: int


@dataclass(frozen=True, slots=True)
class SetThreads:
    """Tell a worker with how many threads it may compute from its next step on."""

    instance: int
    count: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The item is over. Without an error: the load is ready, or the unload is done."""

    key: int
    error: HybriddError | None = None
    instance: int | None = None
    freed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """This load item waits on that ticket (the load's job)."""

    key: int
    ticket: int


@dataclass(frozen=True, slots=True)
class LoadState:
    """A load's job moved on: queued, loading, done, failed or cancelled."""

    ticket: int
    model: str
    state: str
    error: HybriddError | None = None
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Something that subscribers of the event stream hear of."""

    topic: str
    type: str
    model: str
    data: Mapping[str, Any] = field(default_factory=dict)


Effect = (
    Sample | Start | Stop | Send | CancelActive | SetThreads | Finish | Joined | LoadState | Notify
)
