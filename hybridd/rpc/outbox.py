"""What one connection has to send: replies in order, deltas merged, events last.

Sans-IO. Deltas of a request that were not taken yet are merged into one notification, so a reader
that is a little late costs nothing but its own latency. Events wait in their subscriptions and are
taken only when nothing else waits: they may be lost, replies may not.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Any

from hybridd.service.events import Subscription
from hybridd.wire import protocol
from hybridd.wire.framing import encode_line

# One write of this size keeps the loop's other tasks waiting for well under a millisecond.
CHUNK_BYTES = 64 * 1024
# What a small JSON envelope costs, so that many tiny deltas count as well.
_ENVELOPE_BYTES = 96

Id = int | str


class _Deltas:
    """Deltas of one request that wait to be sent as one."""

    __slots__ = ("id", "logprobs", "numbers", "text", "tokens")

    def __init__(self, id: Id, numbers: Iterator[int]) -> None:
        self.id = id
        self.numbers = numbers
        self.text: list[str] = []
        self.tokens = 0
        self.logprobs: list[dict[str, Any]] = []


class Outbox:
    """See the module's text."""

    def __init__(self) -> None:
        self._waiting: deque[bytes | _Deltas] = deque()
        self._open: dict[Id, _Deltas] = {}
        self._numbers: dict[Id, Iterator[int]] = {}
        self._progress: dict[Id, dict[str, Any]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self.pending_bytes = 0

    def put(self, line: bytes) -> None:
        """Add an encoded message."""
        self._waiting.append(line)
        self.pending_bytes += len(line)

    def finish(self, id: Id, *pieces: bytes) -> None:
        """Add a request's encoded response, whole or in pieces; nothing of it can follow."""
        if (progress := self._progress.pop(id, None)) is not None:
            self.put(encode_line(protocol.notification(protocol.PROGRESS, progress)))
        for piece in pieces:
            self.put(piece)
        # Deltas that still wait keep their place; the id is free for another request.
        self._open.pop(id, None)
        self._numbers.pop(id, None)

    def delta(self, id: Id, text: str, tokens: int, logprobs: list[dict[str, Any]] | None) -> None:
        """Add what a step brought for a stream."""
        waiting = self._open.get(id)
        if waiting is None:
            numbers = self._numbers.setdefault(id, itertools.count())
            waiting = self._open[id] = _Deltas(id, numbers)
            self._waiting.append(waiting)
            self.pending_bytes += _ENVELOPE_BYTES
        waiting.text.append(text)
        waiting.tokens += tokens
        self.pending_bytes += len(text)
        if logprobs:
            waiting.logprobs += logprobs
            self.pending_bytes += _ENVELOPE_BYTES * len(logprobs)

    def progress(self, id: Id, params: dict[str, Any]) -> None:
        """Add progress; only the newest of a request is kept."""
        self._progress[id] = {"id": id, **params}

    def attach(self, subscription: Subscription) -> None:
        """Send this subscription's events from now on."""
        self._subscriptions[subscription.name] = subscription

    def detach(self, name: str) -> bool:
        """Forget a subscription; whether it was ours."""
        return self._subscriptions.pop(name, None) is not None

    @property
    def subscriptions(self) -> list[str]:
        """Names of the attached subscriptions."""
        return list(self._subscriptions)

    @property
    def ready(self) -> bool:
        """Whether `take` would return something."""
        return bool(
            self._waiting or self._progress or any(s.waiting for s in self._subscriptions.values())
        )

    def take(self) -> bytes:
        """The next bytes to send, about `CHUNK_BYTES` at most unless one message is larger."""
        parts: list[bytes] = []
        size = 0
        while self._waiting and size < CHUNK_BYTES:
            head = self._waiting.popleft()
            if isinstance(head, _Deltas):
                line = self._encode(head)
            else:
                line = head
                self.pending_bytes -= len(head)
            parts.append(line)
            size += len(line)
        while self._progress and size < CHUNK_BYTES:
            params = self._progress.pop(next(iter(self._progress)))
            parts.append(encode_line(protocol.notification(protocol.PROGRESS, params)))
            size += len(parts[-1])
        for subscription in self._subscriptions.values():
            while subscription.waiting and size < CHUNK_BYTES:
                parts.append(_event_line(subscription))
                size += len(parts[-1])
        return b"".join(parts)

    def _encode(self, waiting: _Deltas) -> bytes:
        text = "".join(waiting.text)
        self.pending_bytes -= _ENVELOPE_BYTES * (1 + len(waiting.logprobs)) + len(text)
        if self._open.get(waiting.id) is waiting:
            del self._open[waiting.id]
        delta: dict[str, Any] = {}
        if text:
            delta["text"] = text
        if waiting.logprobs:
            delta["logprobs"] = waiting.logprobs
        seq = next(waiting.numbers)
        params = {"id": waiting.id, "seq": seq, "tokens": waiting.tokens, "delta": delta}
        return encode_line(protocol.notification(protocol.STREAM, params))


def _event_line(subscription: Subscription) -> bytes:
    event, lost = subscription.take()
    if event is not None:
        return encode_line(protocol.notification(protocol.EVENT, event))
    params = {"subscription": subscription.name, "count": lost}
    return encode_line(protocol.notification(protocol.EVENTS_LOST, params))
