"""What one connection has to send: replies in order, deltas merged, events last.

Sans-IO. Deltas of a request that were not taken yet are merged into one notification, so a reader
that is a little late costs nothing but its own latency. Events wait in their subscriptions and are
taken only when nothing else waits: they may be lost, replies may not.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hybridd.daemon.events import Subscription
from hybridd.rpc.encoded import Pieces
from hybridd.wire import protocol
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line

# One write of this size keeps the loop's other tasks waiting for well under a millisecond.
CHUNK_BYTES = 64 * 1024
# What a small JSON envelope costs, so that many tiny deltas count as well.
_ENVELOPE_BYTES = 96

Id = int | str


class _Stream:
    """One request's stream: its next number, and the deltas that wait to be sent as one.

    What all its lines begin with is encoded once.
    """

    __slots__ = ("deltas", "pending_bytes", "prefix", "seq")

    def __init__(self, id: Id) -> None:
        line = encode_line(protocol.notification(protocol.STREAM, {"id": id}))
        self.prefix = line.removesuffix(b"}}\n") + b',"seq":'
        self.seq = 0
        self.deltas: list[Delta] = []
        self.pending_bytes = 0  # of the deltas, about as large as their line will be

    def take(self) -> bytes:
        """The line of all that waits."""
        deltas = self.deltas
        delta = deltas[0] if len(deltas) == 1 else Delta.merged(deltas)
        line = b'%b%d,"tokens":%d,"delta":%b}}\n' % (
            self.prefix,
            self.seq,
            delta.tokens,
            delta.encoded(),
        )
        self.seq += 1
        self.deltas = []
        self.pending_bytes = 0
        return line


class Outbox:
    """See the module's text."""

    def __init__(self) -> None:
        self._waiting: deque[bytes | Pieces | _Stream] = deque()
        self._streams: dict[Id, _Stream] = {}
        self._progress: dict[Id, dict[str, Any]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self.pending_bytes = 0

    def put(self, line: bytes | Pieces) -> None:
        """Add an encoded message."""
        self._waiting.append(line)
        self.pending_bytes += line.size if isinstance(line, Pieces) else len(line)

    def put_back(self, rest: bytes) -> None:
        """Return the end of what `take` gave, to be sent before all else."""
        self._waiting.appendleft(rest)
        self.pending_bytes += len(rest)

    def finish(self, id: Id, line: bytes | Pieces) -> None:
        """Add a request's encoded response; nothing of it can follow."""
        if (progress := self._progress.pop(id, None)) is not None:
            self.put(encode_line(protocol.notification(protocol.PROGRESS, progress)))
        self.put(line)
        # Deltas that still wait keep their place; the id is free for another request.
        self._streams.pop(id, None)

    def delta(self, id: Id, delta: Delta) -> None:
        """Add what a step brought for a stream."""
        stream = self._streams.get(id)
        if stream is None:
            stream = self._streams[id] = _Stream(id)
        size = len(delta.text)
        if delta.reasoning or delta.tool_calls or delta.logprobs:
            size += _size_of_rest(delta)
        if not stream.deltas:
            self._waiting.append(stream)
            size += _ENVELOPE_BYTES
        stream.deltas.append(delta)
        stream.pending_bytes += size
        self.pending_bytes += size

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
            line = self._next()
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

    def _next(self) -> bytes:
        """What waits first, or the next piece of it."""
        head = self._waiting[0]
        if isinstance(head, Pieces):
            if (line := next(head.rest, None)) is not None:
                self.pending_bytes -= len(line)
                return line
            line = b""
        elif isinstance(head, _Stream):
            self.pending_bytes -= head.pending_bytes
            line = head.take()
        else:
            line = head
            self.pending_bytes -= len(head)
        self._waiting.popleft()
        return line


def _size_of_rest(delta: Delta) -> int:
    """Bytes of what is not text in a delta's JSON, about."""
    calls = sum(_ENVELOPE_BYTES + len(str(call)) for call in delta.tool_calls or ())
    return calls + len(delta.reasoning or "") + _ENVELOPE_BYTES * len(delta.logprobs or ())


def _event_line(subscription: Subscription) -> bytes:
    event, lost = subscription.take()
    if event is not None:
        return encode_line(protocol.notification(protocol.EVENT, event))
    params = {"subscription": subscription.name, "count": lost}
    return encode_line(protocol.notification(protocol.EVENTS_LOST, params))
