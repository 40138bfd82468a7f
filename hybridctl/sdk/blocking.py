"""The blocking client: `blocking_methods` over a `blocking_connection`."""

from __future__ import annotations

from .blocking_connection import Connection
from .blocking_methods import Methods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Client(Methods):
    """A connection to the daemon; one thread's at a time.

    It connects at the first call or on entering it as a context manager, and again after the
    connection was lost. Every method raises `DaemonNotRunning`, `ConnectionLost` or the typed
    error of the daemon. Ctrl-C while waiting closes the connection, which cancels its requests.

    Args:
        socket_path: The daemon's socket; by default the one that the environment names.
        timeout: The longest silence of the daemon, in seconds, that a call or a stream bears
            before it raises `RequestTimeout` and cancels its request; None waits. Events are
            waited for without limit. A load without `on_progress` is silent until it is done.
    """

    def __init__(self, socket_path: str | None = None, timeout: float | None = None) -> None:
        self._connection = Connection(socket_path, timeout)

    def __enter__(self) -> Self:
        self._connection.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the daemon cancels what was asked on it."""
        self._connection.close()
