"""What a method's handler gets beside its parameters: the daemon's parts and its own connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from hybridd.daemon.events import Subscription
from hybridd.daemon.jobs import Job
from hybridd.parts import Daemon
from hybridd.rpc.encoded import EncodedModels
from hybridd.serving.requests import Sink
from hybridd.wire.errors import InvalidRequest


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
    """One request being handled.

    Attributes:
        id: None for an element of a batch.
        encoded: Models' JSON, shared by all connections.
    """

    daemon: Daemon
    client: Client
    id: int | str | None
    encoded: EncodedModels

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
