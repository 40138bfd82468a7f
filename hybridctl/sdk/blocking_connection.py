"""The blocking connection: one socket, no thread, no loop.

Whoever waits reads the socket, and puts what is for others into their mailboxes; so several
streams may be open at once and be consumed in any order.

An exception that arrives from outside while bytes are on the move (Ctrl-C, say) leaves it unknown
how many of them moved, so it closes the connection, which also makes the daemon cancel whatever
was asked on it. The next call connects again; streams and subscriptions of the old connection
end with `ConnectionLost`.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from hybridd.wire import paths
from hybridd.wire.errors import HybriddError, RequestTimeout

from .errors import ConnectionLost, connect_error
from .router import Mailbox, Router
from .session import ERROR, PROGRESS, REPLY, Message, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from .arguments import OnProgress, Params
    from .blocking_streams import Opened

    T = TypeVar("T", bound=Opened)

_RECEIVE_BYTES = 65536


class Connection:
    """Requests, streams and subscriptions over one socket, which is opened when it is needed.

    Args:
        socket_path: As `Client` has it.
        timeout: As `Client` has it.
    """

    def __init__(self, socket_path: str | None, timeout: float | None) -> None:
        self._path = paths.check_socket_path(socket_path) if socket_path else None
        self._timeout = timeout
        self._router = Router()
        self._open: tuple[socket.socket, Session] | None = None

    def close(self) -> None:
        """Close the socket; the daemon cancels what was asked on it. May be called twice."""
        self._lose(ConnectionLost("the connection was closed"))

    def open(self, method: str, params: Params) -> int:
        """Send a request.

        Returns:
            Its id, for `next`, `cancel` and `abandon`.
        """
        self.connect()
        id, data = self._router.open(method, params)
        self._send(data)
        return id

    def opened(self, made: T) -> T:
        """Take a stream or a subscription, which begins at once."""
        return made.__enter__()

    def reply(self, id: int, on_progress: OnProgress | None = None) -> Any:
        """Wait for the result of request `id`. Whatever interrupts the wait cancels it."""
        try:
            while (message := self.next(id)).kind != REPLY:
                if message.kind == ERROR:
                    raise message.value
                if message.kind == PROGRESS and on_progress is not None:
                    on_progress(message.value)
        finally:
            self.abandon(id)
        return message.value

    def next(self, id: int) -> Message:
        """Wait for the next message for request `id`."""
        box = self._router.mailbox(id)
        while not box.messages:
            self._read(self._timeout)
        return box.messages.popleft()

    def cancel(self, id: int) -> None:
        """Ask the daemon to cancel `id`; its answer still comes."""
        self._send(self._router.cancel(id))

    def abandon(self, id: int) -> None:
        """Cancel `id` if it is still open, and throw away what still comes for it."""
        # A connection that breaks here took the request with it.
        with suppress(HybriddError):
            self._send(self._router.abandon(id))

    def subscribe(self, topics: tuple[str, ...]) -> tuple[Mailbox, int]:
        """Subscribe to events.

        Returns:
            Where they arrive, and the catalog's revision.
        """
        id = self.open("events.subscribe", {"topics": [*topics]})
        mailbox = self._router.subscribing(id)
        result = self.reply(id)
        return mailbox, int(result.get("revision") or 0)

    def next_event(self, mailbox: Mailbox) -> Message:
        """Wait, without limit, for the next event or the end of a subscription."""
        while not mailbox.messages:
            self._read(None)
        return mailbox.messages.popleft()

    def unsubscribe(self, mailbox: Mailbox) -> None:
        """Give a subscription up, if it is still one; does not wait for the answer."""
        with suppress(HybriddError):
            self._send(self._router.unsubscribe(mailbox))

    def connect(self) -> None:
        """Connect, if that is not done.

        Raises:
            DaemonNotRunning: Nobody listens.
        """
        if self._open is not None:
            return
        path = self._path or paths.socket_path()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._timeout)
            connection.connect(path)
        except BaseException as exc:
            connection.close()
            if isinstance(exc, TimeoutError):
                raise _silent(self._timeout) from exc
            if isinstance(exc, OSError):
                raise connect_error(exc, path) from exc
            raise
        self._open = connection, self._router.begin()

    def _send(self, data: bytes) -> None:
        if self._open is None or not data:
            return
        connection, _ = self._open
        try:
            connection.settimeout(self._timeout)
            connection.sendall(data)
        except TimeoutError as exc:
            # Half a line may have left; nothing can follow it.
            raise self._lose(_silent(self._timeout)) from exc
        except OSError:
            # The daemon may have said why it closed: that is still to be read, and reading ends it.
            return
        except BaseException:
            self.close()
            raise

    def _read(self, timeout: float | None) -> None:
        """Wait for bytes and put what they say into the mailboxes."""
        if self._open is None:
            raise ConnectionLost("the connection was closed")
        connection, session = self._open
        try:
            connection.settimeout(timeout)
            data = connection.recv(_RECEIVE_BYTES)
            self._router.deliver(session.receive(data))
        except TimeoutError as exc:
            raise _silent(timeout) from exc
        except OSError as exc:
            self._lose(ConnectionLost(f"the connection to the daemon broke: {exc.strerror}"))
        except ConnectionLost as exc:
            self._lose(exc)
        except BaseException:
            self.close()
            raise
        else:
            if not data:
                self._lose(ConnectionLost("the daemon closed the connection before it answered"))

    def _lose(self, error: HybriddError) -> HybriddError:
        """Drop the socket; everything that was open on it ends with `error`."""
        if self._open is not None:
            self._open[0].close()
            self._open = None
        self._router.fail(error)
        return error


def _silent(timeout: float | None) -> RequestTimeout:
    return RequestTimeout(f"the daemon was silent for {timeout or 0:g} s", seconds=timeout)
