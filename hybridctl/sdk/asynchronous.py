"""The asynchronous client, under trio and asyncio: `async_methods` over an `async_connection`."""

from __future__ import annotations

from .async_connection import Connection
from .async_methods import AsyncMethods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class AsyncClient(AsyncMethods):
    """A connection to the daemon for any number of tasks at once, inside `async with`.

    It connects on entering, and again at the next call after the connection was lost. Every
    method raises `DaemonNotRunning`, `ConnectionLost` or the typed error of the daemon.
    Cancelling a task that waits for an answer cancels its request in the daemon.

        async with AsyncClient() as client:
            async with client.chat(model, messages, stream=True) as stream:
                async for delta in stream:
                    print(delta.text, end="")

    Args:
        socket_path: The daemon's socket; by default the one that the environment names.
        timeout: The longest silence, in seconds, that a call or a stream bears before it raises
            `RequestTimeout` and cancels its request; None waits. Events are waited for without
            limit. A load without `on_progress` is silent until it is done.
    """

    def __init__(self, socket_path: str | None = None, timeout: float | None = None) -> None:
        self._connection = Connection(socket_path, timeout)

    async def __aenter__(self) -> Self:
        await self._connection.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.stop()
