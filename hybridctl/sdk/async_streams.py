"""What a streamed call and a subscription are to the user of the asynchronous client."""

from __future__ import annotations

from hybridd.wire.errors import Cancelled
from hybridd.wire.protocol import TOPICS

from .collect import Collector
from .session import DELTA, ERROR, EVENT, REPLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType
    from typing import Any, Self

    from hybridd.wire.types import ChatCompletion, Completion, Delta, Event

    from .arguments import Params
    from .async_connection import Connection
    from .router import Mailbox


class Opened:
    """What a user opens on a connection, iterates and closes, which leaving it does as well."""

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begun().__await__()

    async def __aenter__(self) -> Self:
        return await self._begun()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    def close(self) -> None:
        """End it, without waiting for the daemon."""
        raise NotImplementedError

    async def _begun(self) -> Self:
        """Ask the daemon for it, unless that is done."""
        raise NotImplementedError


class _AsyncStream(Opened):
    """Deltas of one request, as they come.

    Iterating ends with the answer, or raises its error. Leaving the context manager before that
    cancels the request, as does what interrupts the wait. A stream that is neither drained nor
    closed keeps the model generating until its client closes.
    """

    def __init__(self, connection: Connection, method: str, params: Params) -> None:
        self._connection = connection
        self._request = method, {**params, "stream": True}
        self._id: int | None = None
        self._collected = Collector()
        self._reply: dict[str, Any] | None = None
        self._error: BaseException | None = None
        self._cancelled = False

    async def __anext__(self) -> Delta:
        await self._begun()
        while not self.done:
            assert self._id is not None
            try:
                message = await self._connection.next(self._id)
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
        raise StopAsyncIteration

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
        if not self.done and self._id is not None:
            self._cancelled = True
            self._connection.cancel(self._id)

    def close(self) -> None:
        """Cancel the request if it has no answer yet, without waiting for the daemon."""
        if not self.done:
            self._end(Cancelled("the stream was closed before its end"))

    def _end(self, error: BaseException) -> None:
        self._error = error
        if self._id is not None:
            self._connection.abandon(self._id)

    async def _begun(self) -> Self:
        if self._id is None and not self.done:
            self._id = await self._connection.open(*self._request)
        return self

    async def _drain(self) -> dict[str, Any]:
        async for _ in self:
            pass
        if self._reply is None:
            assert self._error is not None
            raise self._error
        return self._reply


class AsyncStream(_AsyncStream):
    """A streamed `generate`: iterate for `Delta`s, `await result()` for the whole."""

    async def result(self) -> Completion:
        """Read to the end and return the result, with the full text. Raises what ended it."""
        return self._collected.completion(await self._drain())


class AsyncChatStream(_AsyncStream):
    """A streamed `chat`: iterate for `Delta`s, `await result()` for the whole."""

    async def result(self) -> ChatCompletion:
        """Read to the end and return the result, with the full message. Raises what ended it."""
        return self._collected.chat_completion(await self._drain())


class AsyncEvents(Opened):
    """A subscription: iterate for `Event`s, for as long as the connection lasts.

    Attributes:
        revision: The catalog's revision when the subscription began.
    """

    def __init__(self, connection: Connection, topics: tuple[str, ...]) -> None:
        self._connection = connection
        self._topics = topics or TOPICS
        self._mailbox: Mailbox | None = None
        self._closed = False
        self.revision = 0

    async def __anext__(self) -> Event:
        await self._begun()
        if self._closed or self._mailbox is None:
            raise StopAsyncIteration
        message = await self._connection.next_event(self._mailbox)
        if message.kind == EVENT:
            event: Event = message.value
            return event
        self._closed = True
        raise message.value

    @property
    def lost(self) -> int:
        """How many events were dropped because they were not read; `list()` gives the state."""
        return 0 if self._mailbox is None else self._mailbox.lost

    def close(self) -> None:
        """End the subscription."""
        if not self._closed:
            self._closed = True
            if self._mailbox is not None:
                self._connection.unsubscribe(self._mailbox)

    async def _begun(self) -> Self:
        if self._mailbox is None and not self._closed:
            self._mailbox, self.revision = await self._connection.subscribe(self._topics)
        return self
