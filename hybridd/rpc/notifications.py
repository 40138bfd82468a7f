"""What is sent without being a reply: the notifications, and the kinds of events among them.

For `rpc.discover` and docs/protocol.md; who sends them does not look here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hybridd.rpc.records import Logprob
from hybridd.wire import protocol
from hybridd.wire.record import Record


class Content(Record):
    """What a step brought.

    Attributes:
        text: What was generated; left out where it is empty.
        logprobs: One for each token, with `options.logprobs`.
    """

    text: str | None = None
    logprobs: list[Logprob] | None = None


class Stream(Record):
    """A part of a streamed answer.

    Attributes:
        id: Of the request.
        seq: From 0, one more each time.
        tokens: How many tokens this brings.
        delta: What they are.
    """

    id: int | str = 0
    seq: int = 0
    tokens: int = 0
    delta: Content = Content()


class Progress(Record):
    """How far a job is.

    Attributes:
        id: Of the request that follows it.
        job: Its name, for `jobs.*`.
        stage: What it is doing; a word for people.
        done: How far the stage is, in units of its own.
        total: Where it ends; 0 where that cannot be known.
        fraction: `done` of `total`, 0 to 1.
        message: A line for people.
    """

    id: int | str = 0
    job: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    fraction: float = 0.0
    message: str = ""


class Event(Record):
    """Something happened; the event's own fields stand beside these.

    Attributes:
        subscription: Which of the connection's subscriptions it came by.
        seq: One more for each event of the subscription, lost ones included.
        time: When it happened, in Unix seconds.
        topic: What it is about.
        type: What happened.
    """

    subscription: str = ""
    seq: int = 0
    time: float = 0.0
    topic: str = ""
    type: str = ""


class EventsLost(Record):
    """The client read too slowly.

    Attributes:
        subscription: Which.
        count: How many events are missing here.
    """

    subscription: str = ""
    count: int = 0


class CancelRequest(Record):
    """A request is not wanted any more.

    Attributes:
        id: Of a request of the same connection.
    """

    id: int | str = 0


class Notification(NamedTuple):
    """One kind of notification.

    Attributes:
        sender: `daemon` or `client`.
        meaning: When it is sent.
        params: What it carries.
    """

    name: str
    sender: str
    meaning: str
    params: type[Record]


NOTIFICATIONS = (
    Notification(
        protocol.STREAM, "daemon", "What a request with `stream` generates, as it comes.", Stream
    ),
    Notification(
        protocol.PROGRESS, "daemon", "How far the job of a request with `progress` is.", Progress
    ),
    Notification(protocol.EVENT, "daemon", "An event of a subscription.", Event),
    Notification(
        protocol.EVENTS_LOST,
        "daemon",
        "Events that had no room, in the place where they are missing.",
        EventsLost,
    ),
    Notification(
        protocol.CANCEL_REQUEST,
        "client",
        "Cancels a request; ids that are unknown or answered are ignored.",
        CancelRequest,
    ),
)


class EventKind(NamedTuple):
    """One kind of event.

    Attributes:
        fields: Its own, beside those of `Event`.
    """

    topic: str
    type: str
    meaning: str
    fields: tuple[str, ...]

    def to_wire(self) -> dict[str, Any]:
        """As `rpc.discover` tells it."""
        return {**self._asdict(), "fields": list(self.fields)}


_MODEL = ("id", "revision")
_JOB = ("job", "kind", "model")
EVENTS = (
    EventKind("models", "added", "A model was found.", (*_MODEL, "status")),
    EventKind(
        "models",
        "changed",
        "Its files or names changed; `changed` lists what.",
        (*_MODEL, "status", "changed"),
    ),
    EventKind("models", "removed", "Its files are gone.", _MODEL),
    EventKind("models", "queued", "It waits for room to be loaded.", _MODEL),
    EventKind("models", "loading", "Its load begins.", _MODEL),
    EventKind("models", "loaded", "It is ready.", _MODEL),
    EventKind("models", "unloading", "It was told to end.", _MODEL),
    EventKind("models", "unloaded", "Its memory is back.", _MODEL),
    EventKind(
        "models", "failed", "It could not be loaded, or its process died.", (*_MODEL, "reason")
    ),
    EventKind("jobs", "started", "A job began to run.", _JOB),
    EventKind(
        "jobs",
        "progress",
        "How far it is, ten times a second at most.",
        ("job", "kind", "stage", "done", "total", "fraction", "message"),
    ),
    EventKind("jobs", "done", "It ended well.", _JOB),
    EventKind("jobs", "failed", "It failed.", (*_JOB, "error")),
    EventKind("jobs", "cancelled", "It was cancelled.", (*_JOB, "error")),
    EventKind(
        "requests",
        "queued",
        "An inference request came; `position` counts those of its model that wait, itself too.",
        ("id", "position"),
    ),
    EventKind("requests", "started", "It was given to the model.", ("id",)),
    EventKind("requests", "finished", "It ended, in whatever way.", ("id",)),
    EventKind("config", "changed", "Settings in force changed.", ("keys",)),
)
