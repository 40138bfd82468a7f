"""A connected client as a stream of bytes, whichever face serves it and whichever socket it is on.

What a face needs beyond reading and writing: to send without a turn of the loop, and to learn that
the client is gone while nothing is read from it.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import Protocol

import trio


class ByteStream(Protocol):
    """A byte stream whose peer can end its half."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """b"" once the peer sends no more."""
        ...

    def send_now(self, data: bytes | memoryview) -> int:
        """Send without waiting; how many bytes, 0 when it would wait or has failed."""
        ...

    async def send_some(self, data: memoryview) -> int:
        """Send at least one byte; how many."""
        ...

    async def wait_hangup(self) -> None:
        """Return once the peer cannot receive any more."""
        ...

    async def aclose(self) -> None:
        """Close both halves."""
        ...


class SocketByteStream:
    """A connected stream socket.

    Args:
        half_close_is_leaving: Whether a peer that ended its half counts as gone. TCP cannot tell
            one that still reads from one that is gone before something is sent to it.
    """

    def __init__(
        self, connected: trio.socket.SocketType, *, half_close_is_leaving: bool = False
    ) -> None:
        self._socket = connected
        self._leaving = select.EPOLLRDHUP if half_close_is_leaving else 0

    async def receive_some(self, max_bytes: int) -> bytes:
        """b"" once the peer sends no more."""
        try:
            return await self._socket.recv(max_bytes)
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what the kernel has room for without waiting, which may be nothing."""
        try:
            # Written to by its descriptor, for a trio socket sends only with a turn of the loop.
            return os.write(self._socket.fileno(), data)
        except OSError:
            return 0

    async def send_some(self, data: memoryview) -> int:
        """Send what the kernel has room for, at least one byte."""
        try:
            return await self._socket.send(data)
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    async def wait_hangup(self) -> None:
        """Return once the peer has closed its socket, whatever of it is still unread.

        A half-closed socket is readable for ever, and so is one with unread bytes: trio's own wait
        cannot tell. An epoll that asks for nothing else reports the hang-up, and its descriptor
        can be waited for.
        """
        with contextlib.closing(select.epoll()) as watch:
            watch.register(self._socket.fileno(), self._leaving)
            await trio.lowlevel.wait_readable(watch.fileno())

    async def aclose(self) -> None:
        """Close the socket."""
        self._socket.close()
        await trio.lowlevel.checkpoint()
