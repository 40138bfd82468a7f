"""Server-sent events, as the HTML standard writes them."""

from __future__ import annotations

from typing import Any

from hybridd.wire.framing import encode_line


def event(name: str, value: Any) -> bytes:
    """One event with a name; its data is JSON, which has no line breaks."""
    return b"event: %b\ndata: %b\n" % (name.encode(), encode_line(value))


def data(value: Any) -> bytes:
    """One event without a name."""
    return b"data: %b\n" % encode_line(value)


def comment(text: str) -> bytes:
    """A line that no client reads as an event: it keeps the connection alive."""
    return b": %b\n\n" % " ".join(text.split()).encode("utf-8", "replace")
