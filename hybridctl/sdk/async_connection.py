"""The asynchronous connection, under trio and asyncio alike through anyio.

Background tasks move the bytes: one reads and delivers into mailboxes, one writes what is queued,
so that a task which is cancelled never leaves half a line behind and tells the daemon so without
waiting. They run in the task group of `AsyncClient`'s `async with`, raise nothing, and end with
the connection; the next call connects again.

They are shielded and end by shutting the socket down, never by cancellation: under asyncio, anyio
(4.16) may set the result of a future twice when a receive is cancelled, or its socket closed, in
the moment in which bytes arrive.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from inspect import isawaitable
from socket import SHUT_RDWR

import anyio
from anyio.abc import ByteStream, SocketAttribute, TaskGroup

from hybridd.wire import paths
from hybridd.wire.errors import HybriddError, RequestTimeout

from .errors import ConnectionLost, connect_error
from .router import Mailbox, Router
from .session import ERROR, PROGRESS, REPLY, Message, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .arguments import OnProgress, Params

    T = TypeVar("T")

_RECEIVE_BYTES = 65536
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class _Link:
    """One connected socket with what waits to be written to it."""

    def __init__(self, stream: ByteStream, session: Session) -> None:
        self._stream = stream
        self._session = session
        self._queued: deque[bytes] = deque()
        self._wake = anyio.Event()
        self._shut = False

    def send(self, data: bytes) -> None:
        """Queue bytes."""
        self._queued.append(data)
        self._wake.set()

    def shut(self) -> None:
        """Let `run` end; the daemon sees the connection closed."""
        self._shut = True
        self._wake.set()
        with suppress(OSError):
            self._stream.extra(SocketAttribute.raw_socket).shutdown(SHUT_RDWR)

    async def run(self, deliver: Callable[[list[Message]], None]) -> ConnectionLost:
        """Move bytes until the connection ends, and close it.

        Returns:
            Why it ended.
        """
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                error = await self._read(deliver)
                self.shut()
            await self._stream.aclose()
        return error

    async def _read(self, deliver: Callable[[list[Message]], None]) -> ConnectionLost:
        try:
            while True:
                deliver(self._session.receive(await self._stream.receive(_RECEIVE_BYTES)))
        except anyio.EndOfStream:
            return ConnectionLost("the daemon closed the connection before it answered")
        except ConnectionLost as exc:
            return exc
        except _BROKEN as exc:
            return ConnectionLost(f"the connection to the daemon broke: {exc}")

    async def _write(self) -> None:
        # When the connection breaks here, the daemon may have said why: that is still to be read.
        with suppress(*_BROKEN):
            while not self._shut:
                while self._queued:
                    await self._stream.send(self._queued.popleft())
                await self._wake.wait()
                self._wake = anyio.Event()


class Connection:
    """Requests, streams and subscriptions over one socket, which is opened when it is needed.

    Args:
        socket_path: As `AsyncClient` has it.
        timeout: As `AsyncClient` has it.
    """

    def __init__(self, socket_path: str | None, timeout: float | None) -> None:
        self._path = paths.check_socket_path(socket_path) if socket_path else None
        self._timeout = timeout
        self._router = Router()
        self._tasks: TaskGroup | None = None
        self._connecting: anyio.Lock | None = None
        self._link: _Link | None = None

    async def start(self) -> None:
        """Open the task group of the background tasks, and connect."""
        tasks = anyio.create_task_group()
        await tasks.__aenter__()
        self._tasks = tasks
        self._connecting = anyio.Lock()
        try:
            await self._connect()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connection, which cancels what was asked on it, and end the tasks."""
        tasks, self._tasks = self._tasks, None
        self._lose(ConnectionLost("the connection was closed"))
        if tasks is not None:
            # Not told of the caller's exception: a task group would wrap it in an ExceptionGroup,
            # and `except ModelNotFound` around the client would miss it.
            await tasks.__aexit__(None, None, None)

    async def open(self, method: str, params: Params) -> int:
        """Queue a request.

        Returns:
            Its id, for `next`, `cancel` and `abandon`.
        """
        link = await self._connect()
        id, data = self._router.open(method, params)
        link.send(data)
        return id

    def opened(self, made: T) -> T:
        """Take a stream or a subscription: made without waiting, it begins when it is entered,
        awaited or iterated."""
        return made

    async def reply(self, id: int, on_progress: OnProgress | None = None) -> Any:
        """Wait for the result of request `id`. Cancelling the waiting task cancels the request."""
        try:
            while (message := await self.next(id)).kind != REPLY:
                if message.kind == ERROR:
                    raise message.value
                if message.kind == PROGRESS and on_progress is not None:
                    heard = on_progress(message.value)
                    if isawaitable(heard):
                        await heard
        finally:
            self.abandon(id)
        return message.value

    async def next(self, id: int) -> Message:
        """Wait for the next message for request `id`."""
        mailbox = self._router.mailbox(id)
        with anyio.move_on_after(self._timeout):
            return await _get(mailbox)
        raise RequestTimeout(
            f"the daemon was silent for {self._timeout:g} s", seconds=self._timeout
        )

    def cancel(self, id: int) -> None:
        """Ask the daemon to cancel `id`; its answer still comes."""
        self._send(self._router.cancel(id))

    def abandon(self, id: int) -> None:
        """Cancel `id` if it is still open, and throw away what still comes for it."""
        self._send(self._router.abandon(id))

    async def subscribe(self, topics: tuple[str, ...]) -> tuple[Mailbox, int]:
        """Subscribe to events.

        Returns:
            Where they arrive, and the catalog's revision.
        """
        id = await self.open("events.subscribe", {"topics": [*topics]})
        mailbox = self._router.subscribing(id)
        result = await self.reply(id)
        return mailbox, int(result.get("revision") or 0)

    async def next_event(self, mailbox: Mailbox) -> Message:
        """Wait, without limit, for the next event or the end of a subscription."""
        return await _get(mailbox)

    def unsubscribe(self, mailbox: Mailbox) -> None:
        """Give a subscription up, if it is still one; does not wait for the answer."""
        self._send(self._router.unsubscribe(mailbox))

    async def _connect(self) -> _Link:
        """The link; connects if there is none.

        Raises:
            DaemonNotRunning: Nobody listens.
            RuntimeError: Outside of `async with`.
        """
        if self._tasks is None or self._connecting is None:
            raise RuntimeError("use the client inside `async with AsyncClient() as client:`")
        async with self._connecting:
            if self._link is None:
                path = self._path or paths.socket_path()
                try:
                    stream = await anyio.connect_unix(path)
                except OSError as exc:
                    raise connect_error(exc, path) from exc
                self._link = _Link(stream, self._router.begin())
                self._tasks.start_soon(self._run, self._link)
            return self._link

    def _send(self, data: bytes) -> None:
        if self._link is not None and data:
            self._link.send(data)

    async def _run(self, link: _Link) -> None:
        error = await link.run(self._router.deliver)
        if link is self._link:
            self._lose(error)

    def _lose(self, error: HybriddError) -> None:
        """Drop the socket; everything that was open on it ends with `error`."""
        link, self._link = self._link, None
        if link is not None:
            link.shut()
        self._router.fail(error)


async def _get(mailbox: Mailbox) -> Message:
    if mailbox.wake is not None:
        raise RuntimeError("another task already waits on this stream")
    try:
        while not mailbox.messages:
            arrived = anyio.Event()
            mailbox.wake = arrived.set
            await arrived.wait()
    finally:
        mailbox.wake = None
    return mailbox.messages.popleft()
