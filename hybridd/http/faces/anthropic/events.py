"""A streamed message as Anthropic's clients read it: blocks that begin, grow and stop in turn.

Knows the order of events and their shapes; knows no request and no connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.anthropic.answers import error_body, stop_reason, usage
from hybridd.http.faces.api import SSE
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_text

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_END = b"}}\n\n"


def event(name: str, fields: Mapping[str, Any]) -> bytes:
    """One event whose data is an object of the type `name`."""
    return events.event(name, {"type": name, **fields})


class MessageWriter:
    """See `api.Writer`; for one ask.

    A block is open while what comes is of its kind; what is of another kind closes it. The first
    one is followed by a `ping`, as Anthropic sends it.

    Args:
        id: Of the message.
        model: As the answer names it.
        most: So many tokens were asked for.
    """

    media_type = SSE

    def __init__(self, id: str, model: str, most: int | None = None) -> None:
        self._id = id
        self._model = model
        self._most = most
        self._index = -1
        self._open: str | None = None  # the kind of the block that is open
        self._prefix = b""  # of each delta of that block, up to its text
        self._call: int | None = None  # which of the model's tool calls that block is
        self._called = False

    def begin(self) -> bytes:
        """`message_start`. What the prompt costs is known only later, in `message_delta`."""
        message: dict[str, Any] = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage({}),
        }
        return event("message_start", {"message": message})

    def waiting(self, why: str) -> bytes:
        """A comment, which the clients' readers of events skip."""
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        """Deltas of the blocks that this belongs to; opens them where they are not."""
        if delta.text and self._open == "text" and not (delta.reasoning or delta.tool_calls):
            return self._prefix + encode_text(delta.text) + _END
        made = []
        if delta.reasoning:
            made.append(self._grow("thinking", delta.reasoning))
        if delta.text:
            made.append(self._grow("text", delta.text))
        for position, fragment in enumerate(delta.tool_calls or ()):
            made.append(self._call_fragment(fragment.get("index", position), fragment))
        return b"".join(made)

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """Close the last block and say why it ended. A message has at least one block."""
        opened = self._begin_block("text", {"text": ""}) if self._index < 0 else b""
        reason = stop_reason(result, called=self._called, most=self._most)
        return (
            opened
            + self._stop_block()
            + event(
                "message_delta",
                {
                    "delta": {"stop_reason": reason, "stop_sequence": None},
                    "usage": usage(result.get("usage") or {}),
                },
            )
        )

    def finish(self) -> bytes:
        """`message_stop`."""
        return event("message_stop", {})

    def error(self, problem: Problem) -> bytes:
        """The error as an event of its own; clients raise it."""
        return event("error", error_body(problem))

    # ------------------------------------------------------------------ blocks

    def _grow(self, kind: str, text: str) -> bytes:
        opened = b"" if self._open == kind else self._begin_block(kind, _EMPTY[kind])
        return opened + self._prefix + encode_text(text) + _END

    def _call_fragment(self, call: int, fragment: Mapping[str, Any]) -> bytes:
        function = fragment.get("function") or {}
        opened = b""
        if self._open != "tool_use" or self._call != call:
            block: dict[str, Any] = {
                "id": fragment.get("id") or f"toolu_{self._id.removeprefix('msg_')}_{call}",
                "name": function.get("name") or "",
                "input": {},
            }
            opened = self._begin_block("tool_use", block)
            self._call, self._called = call, True
        arguments = function.get("arguments")
        return opened + (self._prefix + encode_text(arguments) + _END if arguments else b"")

    def _begin_block(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        stopped = self._stop_block()
        self._index += 1
        self._open = kind
        name, field = _DELTAS[kind]
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%s","%s":' % (self._index, name, field)
        )
        started = event(
            "content_block_start",
            {"index": self._index, "content_block": {"type": kind, **fields}},
        )
        return stopped + started + (_PING if self._index == 0 else b"")

    def _stop_block(self) -> bytes:
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            # What the clients send back unread; there is nobody to check it.
            delta = {"type": "signature_delta", "signature": ""}
            signed = event("content_block_delta", {"index": self._index, "delta": delta})
        self._open = None
        return signed + event("content_block_stop", {"index": self._index})


# What a block is when it begins, and what its deltas are called.
_EMPTY: Mapping[str, Mapping[str, Any]] = {
    "text": {"text": ""},
    "thinking": {"thinking": "", "signature": ""},
}
_DELTAS: Mapping[str, tuple[bytes, bytes]] = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}
