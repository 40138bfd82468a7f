"""What a face is made of: routes, how its errors look, and how its streams are written.

A handler gets a `Call` and returns an `Answer`. Everything that it has to wait for it asks of the
call, so that a face is tested with a fake one and no server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hybridd.http.problems import Problem
from hybridd.parts import Daemon
from hybridd.wire.delta import Delta

JSON = "application/json"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to a model, as a face read it from a body.

    Attributes:
        kind: One of `core.kinds`.
        model: An id, or a name for one.
        request: The kind's own fields, as `serving.Manager.infer` takes them.
        options: Sampling options of the protocol. They are checked where they are asked.
        keepalive: Seconds; math.inf is for ever; None leaves it.
        autoload: Whether a model that is not loaded may be loaded for it.
    """

    kind: str
    model: str
    request: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    load_options: Mapping[str, Any] | None = None
    keepalive: float | None = None
    timeout_s: float | None = None
    autoload: bool = True


class Writer(Protocol):
    """One streamed answer in a face's events. Made for one answer; keeps what it needs of it.

    Each method returns the bytes to send, whole events, or b"". The calls come in this order:
    `begin`; `delta` and `end` of each index, in any mix; `finish` after the last `end`. `error` may
    come at any time and is the last.

    Attributes:
        media_type: `SSE` or `NDJSON`.
    """

    media_type: str

    def begin(self) -> bytes:
        """What comes before any text; sent at once, before the model is loaded."""
        ...

    def waiting(self, why: str) -> bytes:
        """Sent every few seconds while nothing else is: a comment, or b"" where none is known.

        Args:
            why: One line for people: "loading NAME, 40 %".
        """
        ...

    def delta(self, index: int, delta: Delta) -> bytes:
        """What one step brought for the ask with this index."""
        ...

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """The ask with this index is done; `result` as `serving.Manager.infer` returns it."""
        ...

    def finish(self) -> bytes:
        """All asks are done."""
        ...

    def error(self, problem: Problem) -> bytes:
        """It ends here, in the middle."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer.

    Attributes:
        value: Sent as JSON, unless it is bytes, which are sent as they are.
    """

    value: Any
    status: int = 200
    headers: Headers = ()
    media_type: str = JSON


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that is written while models generate: one `writer`, one or more asks."""

    asks: Sequence[Ask]
    writer: Writer


# Takes bytes to send; returns once the client has them or few enough wait.
Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Produced:
    """A stream that is no answer of a model: events, a load's progress.

    Attributes:
        produce: Sends until it returns or the client is gone, which cancels it.
    """

    media_type: str
    produce: Callable[[Send], Awaitable[None]]


Answer = Reply | Streamed | Produced


@dataclass(frozen=True, slots=True)
class Call:
    """One request being handled.

    Attributes:
        method: Of HTTP.
        path: What stood for the names in the route's pattern, decoded.
        query: Parameters of the query; the last one of a name counts.
        headers: By lower-case name.
        body: The JSON of the body; None where there was none.
        id: Of the request, as the log and the response's header have it.
        created: When it came, in seconds since the epoch.
        infer: Runs one ask to its end and returns its result, with the text in it.
    """

    daemon: Daemon
    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    id: str
    created: float
    infer: Callable[[Ask], Awaitable[dict[str, Any]]]

    @property
    def autoload(self) -> bool:
        """Whether `?autoload=false` does not stand in the query."""
        return self.query.get("autoload", "true").lower() not in ("false", "0", "no")


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked for.

    Attributes:
        method: `GET` also answers HEAD.
        pattern: A raw path; `{name}` takes one or more segments, slashes too, and may be followed
            by a verb: `/api/v1/models/{id}/load`.
        summary: One line for /openapi.json and the docs.
        body: JSON Schema of the body, for /openapi.json; None where there is none.
        result: JSON Schema of the answer.
        open: Whether it is answered without a token.
        acts: Whether it changes something; a GET that does is never answered to another site.
    """

    method: str
    pattern: str
    handler: Handler
    summary: str
    body: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    open: bool = False
    acts: bool = False


@dataclass(frozen=True, slots=True)
class Face:
    """One API.

    Attributes:
        name: As docs call it.
        prefixes: Paths below these are its own: unknown ones are refused in its shape.
        error: A problem's body.
    """

    name: str
    prefixes: Sequence[str]
    routes: Sequence[Route]
    error: Callable[[Problem], Any]
