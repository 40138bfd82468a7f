"""A connected socket over memory, for faces that are tested without one."""

from __future__ import annotations

import trio


class MemoryStream:
    """The twin of a socket: bytes both ways, half-close, hang-up, a kernel buffer that fills.

    Args:
        room: Bytes that the peer's side holds unread before `send_some` waits.
    """

    def __init__(self, room: int = 256 * 1024) -> None:
        self.room = room
        self.closed = False
        self._to_daemon = bytearray()
        self._to_client = bytearray()
        self._ended = False
        self._hung_up = False
        self._changed = trio.Event()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ------------------------------------------------------------ the daemon's side

    async def receive_some(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._to_daemon and not self._ended:
            await self._changed.wait()
        data = bytes(self._to_daemon[:max_bytes])
        del self._to_daemon[:max_bytes]
        return data

    def send_now(self, data: bytes | memoryview) -> int:
        if self._hung_up:
            return 0
        sent = bytes(data[: max(0, self.room - len(self._to_client))])
        self._to_client += sent
        self._wake()
        return len(sent)

    async def send_some(self, data: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while len(self._to_client) >= self.room and not self._hung_up:
            await self._changed.wait()
        if self._hung_up:
            raise trio.BrokenResourceError("the client is gone")
        sent = bytes(data[: self.room - len(self._to_client)])
        self._to_client += sent
        self._wake()
        return len(sent)

    async def wait_hangup(self) -> None:
        while not self._hung_up:
            await self._changed.wait()

    async def aclose(self) -> None:
        self.closed = True
        self._wake()
        await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------ the client's side

    def feed(self, data: bytes) -> None:
        assert not self._ended
        self._to_daemon += data
        self._wake()

    def shutdown_write(self) -> None:
        self._ended = True
        self._wake()

    def hang_up(self) -> None:
        self._ended = self._hung_up = True
        self._wake()

    @property
    def unread_by_daemon(self) -> int:
        return len(self._to_daemon)

    async def read(self) -> bytes:
        """What is there; b"" once the daemon closed."""
        while not self._to_client and not self.closed:
            await self._changed.wait()
        data = bytes(self._to_client)
        self._to_client.clear()
        self._wake()
        return data
