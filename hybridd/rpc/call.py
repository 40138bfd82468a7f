"""What a method's handler gets beside its parameters: the daemon's parts and its own connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hybridd.rpc.encoded import EncodedModels
from hybridd.service.configuration import Configuration
from hybridd.service.events import EventHub, Subscription
from hybridd.service.jobs import Job, Jobs
from hybridd.service.library import Library
from hybridd.service.manager import Manager
from hybridd.service.requests import Sink
from hybridd.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from hybridd.service.information import Information


@dataclass(frozen=True, slots=True)
class Daemon:
    """The parts of the daemon that methods use."""

    manager: Manager
    library: Library
    jobs: Jobs
    events: EventHub
    configuration: Configuration
    information: Information
    shutdown: Callable[[], None]
    encoded: EncodedModels = field(default_factory=EncodedModels)


class Client(Protocol):
    """What a connection offers to the handlers of its requests."""

    def sink(self, id: int | str) -> Sink:
        """Where a stream's deltas go."""
        ...

    def progress(self, id: int | str, params: dict[str, Any]) -> None:
        """Send progress of a request."""
        ...

    def wake(self) -> None:
        """Something waits in a subscription."""
        ...

    def attach(self, subscription: Subscription) -> None:
        """Send a subscription's events on this connection."""
        ...

    def detach(self, name: str) -> bool:
        """Stop sending a subscription's events; whether it was this connection's."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One request being handled; `id` is None for an element of a batch."""

    daemon: Daemon
    client: Client
    id: int | str | None

    def sink(self) -> Sink:
        """Where this request's deltas go.

        Raises:
            InvalidRequest: It stands in a batch, where nothing streams.
        """
        return self.client.sink(self.check_id("stream"))

    def follow(self, job: Job) -> None:
        """Send a job's present state as this request's progress."""
        self.client.progress(self.check_id("progress"), job.progress())

    def check_id(self, what: str) -> int | str:
        """The id that notifications about this request carry.

        Raises:
            InvalidRequest: It stands in a batch.
        """
        if self.id is None:
            raise InvalidRequest(f"{what} cannot be used inside a batch; send it by itself")
        return self.id
