"""A streamed response, in the order of events that clients insist on.

The response is created, then its items come one after the other: each is added, its part is added,
grows by deltas and is done, then the item is done. Last comes the response as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import SSE
from hybridd.http.faces.openai.errors import error
from hybridd.http.faces.openai.response_whole import Response, part, status_of
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line, encode_text

# What grows of an item, as the names of events have it.
_GROWING = {
    "message": "output_text",
    "reasoning": "reasoning_text",
    "call": "function_call_arguments",
}


class _Item:
    """The item that is open: a text, a thought, or one tool call.

    Attributes:
        kind: `message`, `reasoning` or `call`.
        shown: The item as it was added.
        call: A call's first fragment; which of the model's calls it is stands in `call_number`.
        told: Log probabilities of a text's tokens.
        delta_head: What a delta's event begins with, but for the sequence number.
    """

    def __init__(self, kind: str, number: int, shown: Mapping[str, Any]) -> None:
        self.kind = kind
        self.number = number
        self.shown = shown
        self.pieces: list[str] = []
        self.call: Mapping[str, Any] = {}
        self.call_number: int | None = None
        self.told: list[dict[str, Any]] = []
        self.name = f"response.{_GROWING[kind]}"
        self.place: dict[str, Any] = {"item_id": shown["id"], "output_index": number}
        if kind != "call":
            self.place["content_index"] = 0
        self.delta_head = self._head()

    def _head(self) -> bytes:
        name = f"{self.name}.delta".encode()
        more: dict[str, Any] = {"logprobs": []} if self.kind == "message" else {}
        place = encode_line({**self.place, **more})[1:-2].replace(b"%", b"%%")
        return b'event: %b\ndata: {"type":"%b","sequence_number":%%d,%b,"delta":' % (
            name,
            name,
            place,
        )


class ResponseWriter:
    """See `api.Writer`; for one ask."""

    media_type = SSE

    def __init__(self, response: Response) -> None:
        self._response = response
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: _Item | None = None
        self._result: Mapping[str, Any] = {}

    def begin(self) -> bytes:
        """It is created, and in progress."""
        shown = {"response": self._response.shown("in_progress")}
        return self._event("response.created", shown) + self._event("response.in_progress", shown)

    def waiting(self, why: str) -> bytes:
        """A comment."""
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        """What grows; opens the items that it belongs to."""
        item = self._open
        if not (delta.reasoning or delta.tool_calls or delta.logprobs):
            if not delta.text:
                return b""
            if item is not None and item.kind == "message":
                return self._grow(item, delta.text)
        made = []
        if delta.reasoning:
            made.append(self._grow_in("reasoning", delta.reasoning))
        if delta.text:
            made.append(self._text(delta))
        for position, fragment in enumerate(delta.tool_calls or ()):
            made.append(self._fragment(fragment.get("index", position), fragment))
        return b"".join(made)

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """The last item is done; an answer without any has an empty text."""
        self._result = result
        opened = b"" if self._open or self._output else self._begin("message")
        return opened + self._close(status_of(result))

    def finish(self) -> bytes:
        """The response as a whole."""
        status = status_of(self._result)
        whole = self._response.shown(status, self._output, self._result)
        return self._event(f"response.{status}", {"response": whole})

    def error(self, problem: Problem) -> bytes:
        """The response has failed; nothing follows."""
        told = error(problem)["error"]
        failed = {"code": told["code"], "message": told["message"]}
        whole = self._response.shown("failed", self._output, error=failed)
        return self._event("response.failed", {"response": whole})

    # ---------------------------------------------------------------- items

    def _grow_in(self, kind: str, text: str) -> bytes:
        """The open item grows if it is of this kind; else a new one does."""
        before = b""
        if self._open is None or self._open.kind != kind:
            before = self._close() + self._begin(kind)
        assert self._open is not None
        return before + self._grow(self._open, text)

    def _grow(self, item: _Item, text: str) -> bytes:
        item.pieces.append(text)
        return item.delta_head % self._next() + encode_text(text) + b"}\n\n"

    def _text(self, delta: Delta) -> bytes:
        if not delta.logprobs:
            return self._grow_in("message", delta.text)
        before = b""
        if self._open is None or self._open.kind != "message":
            before = self._close() + self._begin("message")
        item = self._open
        assert item is not None
        told = self._response.logprobs(delta.logprobs)
        item.told += told
        item.pieces.append(delta.text)
        grown = {**item.place, "logprobs": told, "delta": delta.text}
        return before + self._event(f"{item.name}.delta", grown)

    def _begin(self, kind: str) -> bytes:
        number = len(self._output)
        shape = self._response.message if kind == "message" else self._response.reasoning
        item = self._open = _Item(kind, number, shape(number, "", "in_progress"))
        empty = part("") if kind == "message" else {"type": "reasoning_text", "text": ""}
        return self._added(item) + self._event(
            "response.content_part.added", {**item.place, "part": empty}
        )

    def _fragment(self, number: int, fragment: Mapping[str, Any]) -> bytes:
        """A part of a call; the first one has its name."""
        before = b""
        if self._open is None or self._open.call_number != number:
            before = self._close()
            place = len(self._output)
            shown = self._response.call(place, fragment, "in_progress")
            self._open = _Item("call", place, shown)
            self._open.call, self._open.call_number = fragment, number
            before += self._added(self._open)
        arguments = (fragment.get("function") or {}).get("arguments") or ""
        return before + self._grow(self._open, arguments) if arguments else before

    def _added(self, item: _Item) -> bytes:
        added = {"output_index": item.number, "item": item.shown}
        return self._event("response.output_item.added", added)

    def _close(self, status: str = "completed") -> bytes:
        """The open item is done.

        Args:
            status: Whether it is whole.
        """
        item, self._open = self._open, None
        if item is None:
            return b""
        text = "".join(item.pieces)
        if item.kind == "call":
            function = {**(item.call.get("function") or {}), "arguments": text}
            whole = self._response.call(item.number, {**item.call, "function": function}, status)
            told = {**item.place, "name": whole["name"], "arguments": text}
            done = self._event(f"{item.name}.done", told)
        elif item.kind == "message":
            whole = self._response.message(item.number, text, status, item.told)
            done = self._part_done(item, {"text": text, "logprobs": item.told}, whole)
        else:
            whole = self._response.reasoning(item.number, text, status)
            done = self._part_done(item, {"text": text}, whole)
        self._output.append(whole)
        ended = {"output_index": item.number, "item": whole}
        return done + self._event("response.output_item.done", ended)

    def _part_done(self, item: _Item, told: Mapping[str, Any], whole: Mapping[str, Any]) -> bytes:
        done = self._event(f"{item.name}.done", {**item.place, **told})
        closed = {**item.place, "part": whole["content"][0]}
        return done + self._event("response.content_part.done", closed)

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        return events.event(name, {"type": name, "sequence_number": self._next(), **fields})

    def _next(self) -> int:
        number = self._sequence
        self._sequence += 1
        return number
