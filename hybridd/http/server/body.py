"""An answer's body on its way, piece by piece: each is sent from where it came up.

A piece becomes a chunk by hand: `h11` wrote the head and knows that chunks follow, and what it
would add to each costs half as much as the write itself.
"""

from __future__ import annotations

import trio

from hybridd.host.byte_stream import ByteStream
from hybridd.http.server.limits import Limits


class Stalled(Exception):
    """The client reads nothing, or too little of what comes."""


class BodyWriter:
    """See the module's text and `exchange.Body`.

    Args:
        chunked: Whether pieces are framed (RFC 9112, 7.1); HTTP/1.0 knows no chunks.
    """

    def __init__(self, stream: ByteStream, limits: Limits, *, chunked: bool) -> None:
        self._stream = stream
        self._limits = limits
        self._chunked = chunked
        self._left = bytearray()
        self._draining = False

    @property
    def blocked(self) -> bool:
        """Whether bytes wait that the client has not taken."""
        return bool(self._left) or self._draining

    def send_now(self, data: bytes) -> None:
        """Send a piece without waiting; the rest waits for `drain`."""
        if not data:
            return  # an empty chunk would be the body's end
        framed = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if not self.blocked:
            sent = self._stream.send_now(framed)
            if sent == len(framed):
                return
            framed = framed[sent:]
        self._left += framed

    async def drain(self) -> None:
        """Return once all of it is the kernel's.

        Raises:
            Stalled: The client reads nothing for too long.
        """
        while self._left:
            taken, self._left, self._draining = bytes(self._left), bytearray(), True
            left = memoryview(taken)
            while left:
                with trio.move_on_after(self._limits.slow_s) as scope:
                    left = left[await self._stream.send_some(left) :]
                if scope.cancelled_caught:
                    raise Stalled
            self._draining = False
