"""What a streamed call and a subscription are to the user of the blocking client."""

from __future__ import annotations

from hybridd.wire.errors import Cancelled

from .collect import Collector
from .session import DELTA, ERROR, EVENT, REPLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from hybridd.wire.types import ChatCompletion, Completion, Delta, Event

    from .blocking_connection import Connection
    from .router import Mailbox


class _Stream:
    """Deltas of one request, as they come.

    Iterating ends with the answer, or raises its error. Leaving the context manager before
    that cancels the request. A stream that is neither drained nor closed keeps the model
    generating until its client closes.
    """

    def __init__(self, connection: Connection, id: int) -> None:
        self._connection = connection
        self._id = id
        self._collected = Collector()
        self._reply: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delta:
        while not self.done:
            try:
                message = self._connection.next(self._id)
            except BaseException as exc:
                self._end(exc)
                raise
            if message.kind == DELTA:
                self._collected.add(message.value)
                delta: Delta = message.value
                return delta
            if message.kind == REPLY:
                self._reply = message.value
                self._connection.abandon(self._id)
            elif message.kind == ERROR:
                self._end(message.value)
                if not (self._cancelled and isinstance(message.value, Cancelled)):
                    raise message.value
        raise StopIteration

    @property
    def done(self) -> bool:
        """Whether the answer, or an error, has come."""
        return self._reply is not None or self._error is not None

    @property
    def text(self) -> str:
        """The text so far."""
        return self._collected.text

    @property
    def tokens(self) -> int:
        """The tokens so far."""
        return self._collected.tokens

    def cancel(self) -> None:
        """Ask the daemon to stop; iterating then ends with what was generated meanwhile, and
        `result()` raises `Cancelled`, or returns if the answer was done first."""
        if not self.done:
            self._cancelled = True
            self._connection.cancel(self._id)

    def close(self) -> None:
        """Cancel the request if it has no answer yet, without waiting for the daemon."""
        if not self.done:
            self._end(Cancelled("the stream was closed before its end"))

    def _end(self, error: BaseException) -> None:
        self._error = error
        self._connection.abandon(self._id)

    def _drain(self) -> dict[str, Any]:
        for _ in self:
            pass
        if self._reply is None:
            assert self._error is not None
            raise self._error
        return self._reply


class Stream(_Stream):
    """A streamed `generate`: iterate for `Delta`s, `result()` for the whole."""

    def result(self) -> Completion:
        """Read to the end and return the result, with the full text. Raises what ended it."""
        return self._collected.completion(self._drain())


class ChatStream(_Stream):
    """A streamed `chat`: iterate for `Delta`s, `result()` for the whole."""

    def result(self) -> ChatCompletion:
        """Read to the end and return the result, with the full message. Raises what ended it."""
        return self._collected.chat_completion(self._drain())


class Events:
    """A subscription: iterate for `Event`s, for as long as the connection lasts.

    Attributes:
        revision: The catalog's revision when the subscription began.
    """

    def __init__(self, connection: Connection, mailbox: Mailbox, revision: int) -> None:
        self._connection = connection
        self._mailbox = mailbox
        self._closed = False
        self.revision = revision

    @property
    def lost(self) -> int:
        """How many events were dropped because they were not read; `list()` gives the state."""
        return self._mailbox.lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._closed:
            raise StopIteration
        message = self._connection.next_event(self._mailbox)
        if message.kind == EVENT:
            event: Event = message.value
            return event
        self._closed = True
        raise message.value

    def close(self) -> None:
        """End the subscription."""
        if not self._closed:
            self._closed = True
            self._connection.unsubscribe(self._mailbox)
