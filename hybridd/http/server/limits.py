"""What a client may take of time and memory before its connection ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection.

    Attributes:
        head_bytes: Of a request's line and headers.
        body_bytes: Of a body, as it is sent and as it is when decompressed.
        idle_s: Between two requests.
        head_s: From a request's first byte to the end of its headers.
        body_s: For a body, from the end of the headers; a body of `body_bytes` on a slow disk's or
            network's way is still there in time.
        slow_s: A client that reads nothing for so long is given up.
        slow_bytes: So is one that lets so much pile up.
        linger_s: After a refused body: how long input is thrown away so that the answer is not
            lost to a reset.
    """

    head_bytes: int = 64 * 1024
    body_bytes: int = 32 * 1024 * 1024
    idle_s: float = 75.0
    head_s: float = 15.0
    body_s: float = 60.0
    slow_s: float = 60.0
    slow_bytes: int = 8 * 1024 * 1024
    linger_s: float = 1.0
