"""One connection's conversation, sans-IO: requests out as bytes, bytes in as messages.

Theory of operation
-------------------
The session numbers requests, remembers which are open, and turns what the daemon sends into
`Message`s that are addressed to a request (`id`) or to a subscription. Whoever moves the bytes
keeps one mailbox per address and drops what nobody waits for any more.

- A request is open from `request()` until its `REPLY` or `ERROR`; each open request gets exactly
  one of the two, whatever the daemon sends (`close()` gives the rest an `ERROR`).
- An error without an id means that the daemon could not tell which request was meant. It only
  sends that for a line that it refused, which is no longer a conversation: every open request
  fails with that error.
- An event may overtake the reply to its own `events.subscribe`; it is held back until then, so
  that a reader of messages always learns of a subscription before its first event.
"""

from __future__ import annotations

import json

from hybridd.wire import protocol
from hybridd.wire.errors import HybriddError, InvalidParams, from_wire
from hybridd.wire.framing import LineDecoder, encode_line
from hybridd.wire.types import Delta, Event, Progress

from .errors import ConnectionLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The daemon is trusted, and embeddings or ten thousand models make long lines; this only keeps a
# foreign program behind the socket's name from filling the memory.
MAX_REPLY_BYTES = 1024 * 1024 * 1024
# Events held back for subscriptions whose reply is on its way; more means a foreign program.
MAX_HELD_BACK = 10_000

REPLY = "reply"
ERROR = "error"
DELTA = "delta"
PROGRESS = "progress"
EVENT = "event"
LOST = "lost"

_SUBSCRIBE = "events.subscribe"


class Message:
    """Something for one request (`id`) or one `subscription`.

    `value` is, by `kind`: the result of a REPLY, a `HybriddError`, a `Delta`, a `Progress`, an
    `Event`, or the number of LOST events.
    """

    __slots__ = ("id", "kind", "subscription", "value")

    def __init__(
        self, kind: str, value: Any, id: int | None = None, subscription: str | None = None
    ) -> None:
        self.kind = kind
        self.value = value
        self.id = id
        self.subscription = subscription

    def __repr__(self) -> str:
        address = self.id if self.subscription is None else self.subscription
        return f"Message({self.kind}, {address!r}, {self.value!r})"


class Session:
    """The state of one connection. Owned by one client, thrown away with its socket.

    Args:
        last_id: The last id of the client's connection before, so that a mailbox of that one is
            never taken for one of this.
    """

    def __init__(self, last_id: int = 0) -> None:
        self._decoder = LineDecoder(MAX_REPLY_BYTES)
        self.last_id = last_id
        self._open: dict[int, str] = {}
        self._subscriptions: set[str] = set()
        self._held_back: list[Message] = []

    @property
    def open_requests(self) -> frozenset[int]:
        """Ids that have no reply yet."""
        return frozenset(self._open)

    def request(self, method: str, params: dict[str, Any]) -> tuple[int, bytes]:
        """Open a request.

        Returns:
            Its id and the bytes to send.

        Raises:
            InvalidParams: `params` is nothing that JSON can say; no request was opened.
        """
        id = self.last_id + 1
        try:
            data = encode_line(protocol.request(id, method, params))
        except (ValueError, TypeError, RecursionError) as exc:
            raise InvalidParams(
                f"{method}: JSON cannot carry a parameter: {exc}", field="params", reason=str(exc)
            ) from None
        self.last_id = id
        self._open[id] = method
        return id, data

    def cancel(self, id: int) -> bytes:
        """The bytes that ask the daemon to cancel `id`; none when it has been answered."""
        if id not in self._open:
            return b""
        return encode_line(protocol.notification(protocol.CANCEL_REQUEST, {"id": id}))

    def forget(self, subscription: str) -> None:
        """Drop further events of a subscription that was given up."""
        self._subscriptions.discard(subscription)

    def receive(self, data: bytes) -> list[Message]:
        """Take received bytes.

        Returns:
            What they complete, in order.

        Raises:
            ConnectionLost: The other side does not speak the protocol; `close()` is next.
        """
        self._decoder.feed(data)
        messages: list[Message] = []
        try:
            while (line := self._decoder.next_line()) is not None:
                parsed = json.loads(line)
                for one in parsed if isinstance(parsed, list) else [parsed]:
                    self._take(one, messages)
        except (ValueError, HybriddError, RecursionError) as exc:
            raise ConnectionLost(f"what listens on the socket is no hybridd: {exc}") from exc
        return messages

    def close(self, error: HybriddError) -> list[Message]:
        """End the conversation: every open request fails with `error`."""
        failed = [Message(ERROR, error, id) for id in self._open]
        self._open.clear()
        self._held_back.clear()
        return failed

    def _take(self, message: Any, out: list[Message]) -> None:
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        method = message.get("method")
        if method is None:
            self._take_response(message, out)
            return
        params = message.get("params")
        if not isinstance(params, dict):
            raise ValueError(f"{method} without parameters")
        if method in (protocol.STREAM, protocol.PROGRESS):
            if params.get("id") in self._open:
                out.append(
                    Message(DELTA, Delta.from_notification(params), params["id"])
                    if method == protocol.STREAM
                    else Message(PROGRESS, Progress.from_wire(params), params["id"])
                )
        elif method in (protocol.EVENT, protocol.EVENTS_LOST):
            self._take_event(method, params, out)
        # Other notifications are from a newer daemon: adding is always allowed.

    def _take_response(self, message: dict[str, Any], out: list[Message]) -> None:
        id = message.get("id")
        failed = message.get("error")
        if id is None and failed is not None:
            out += self.close(from_wire(failed))
            return
        if isinstance(id, bool) or not isinstance(id, int):
            return
        method = self._open.pop(id, None)
        if method is None:
            return
        if failed is not None:
            out.append(Message(ERROR, from_wire(failed), id))
            return
        result = message.get("result")
        out.append(Message(REPLY, result, id))
        if method == _SUBSCRIBE and isinstance(result, dict):
            subscription = str(result.get("subscription"))
            self._subscriptions.add(subscription)
            out += [m for m in self._held_back if m.subscription == subscription]
            self._held_back = [m for m in self._held_back if m.subscription != subscription]

    def _take_event(self, method: str, params: dict[str, Any], out: list[Message]) -> None:
        subscription = str(params.get("subscription"))
        if method == protocol.EVENT:
            made = Message(EVENT, Event.from_wire(params), subscription=subscription)
        else:
            made = Message(LOST, int(params.get("count") or 0), subscription=subscription)
        if subscription in self._subscriptions:
            out.append(made)
        elif _SUBSCRIBE in self._open.values() and len(self._held_back) < MAX_HELD_BACK:
            self._held_back.append(made)
