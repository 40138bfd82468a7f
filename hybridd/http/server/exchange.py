"""One request and its answer, as a handler sees them.

`Exchange` is what `server/connection` offers to whatever answers; `Body` is an answer's body that
is sent piece by piece. Neither knows what the pieces are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .request import Request

Headers = Sequence[tuple[str, str]]


class Body(Protocol):
    """A body that is sent piece by piece."""

    @property
    def blocked(self) -> bool:
        """Whether bytes wait that the client has not taken: what comes should be gathered."""
        ...

    def send_now(self, data: bytes) -> None:
        """Send a piece without waiting; what the kernel has no room for waits for `drain`."""
        ...

    async def drain(self) -> None:
        """Return once all of it is the kernel's.

        Raises:
            Stalled: The client reads nothing.
        """
        ...


class Exchange(Protocol):
    """One request being answered."""

    @property
    def request(self) -> Request:
        """Its head."""
        ...

    @property
    def begun(self) -> bool:
        """Whether an answer's head was sent."""
        ...

    async def read(self) -> bytes:
        """The request's body, decompressed.

        Raises:
            Problem: It is too large, too slow, or not what its headers say.
        """
        ...

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer. One to HEAD goes without its body."""
        ...

    async def begin(self, status: int, headers: Headers) -> Body:
        """Send the head of an answer whose body comes in pieces; `end` closes it."""
        ...

    async def end(self) -> None:
        """Send what is left of the body, and its end."""
        ...
