"""What a connection runs on: a byte stream whose peer can end its half, and the limits it keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

import trio

from hybridd.host.sockets import wait_hangup


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings a connection keeps to; see `core/keys`, section server."""

    max_line_bytes: int
    slow_bytes: int
    slow_s: float


class Wire(Protocol):
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


class SocketWire:
    """A connected Unix socket as a `connection.Wire`."""

    def __init__(self, connected: trio.socket.SocketType) -> None:
        self._socket = connected

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
        """Return once the peer has closed its socket."""
        await wait_hangup(self._socket)

    async def aclose(self) -> None:
        """Close the socket."""
        self._socket.close()
        await trio.lowlevel.checkpoint()
