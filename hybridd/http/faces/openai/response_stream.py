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
from hybridd.wire.framing import encode_text


class _Item:
    """The item that is open: of a text, of reasoning, or of one tool call."""

    def __init__(self, kind: str, number: int, shown: dict[str, Any]) -> None:
        self.kind = kind
        self.number = number
        self.shown = shown
        self.pieces: list[str] = []
        self.call: dict[str, Any] = {}

    @property
    def place(self) -> dict[str, Any]:
        """Where its events belong."""
        return {"item_id": self.shown["id"], "output_index": self.number}


class ResponseWriter:
    """See `api.Writer`; for one ask."""

    media_type = SSE

    def __init__(self, response: Response) -> None:
        self._response = response
        self._sequence = 0
        self._output: list[dict[str, Any]] = []
        self._open: _Item | None = None
        self._call: int | None = None  # which of the model's calls the open item is
        self._text_head = b""
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
        made = []
        if delta.reasoning:
            made.append(self._grow("reasoning", delta.reasoning))
        if delta.text:
            made.append(self._grow("message", delta.text))
        for position, fragment in enumerate(delta.tool_calls or ()):
            made.append(self._fragment(fragment.get("index", position), fragment))
        return b"".join(made)

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """The last item is done; an answer without any has an empty text."""
        self._result = result
        opened = b"" if self._open or self._output else self._begin("message")
        return opened + self._close()

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

    def _grow(self, kind: str, text: str) -> bytes:
        before = b""
        if self._open is None or self._open.kind != kind:
            before = self._close() + self._begin(kind)
        assert self._open is not None
        self._open.pieces.append(text)
        head = self._text_head % self._next()
        return before + head + encode_text(text) + b"}\n\n"

    def _begin(self, kind: str) -> bytes:
        number = len(self._output)
        shape = self._response.message if kind == "message" else self._response.reasoning
        item = self._open = _Item(kind, number, shape(number, "", "in_progress"))
        name = "output_text" if kind == "message" else "reasoning_text"
        empty = part("") if kind == "message" else {"type": "reasoning_text", "text": ""}
        self._text_head = (
            b'event: response.%b.delta\ndata: {"type":"response.%b.delta","sequence_number":%%d,'
            b'"item_id":%b,"output_index":%d,"content_index":0,%b"delta":'
            % (
                name.encode(),
                name.encode(),
                encode_text(item.shown["id"]).replace(b"%", b"%%"),
                number,
                b'"logprobs":[],' if kind == "message" else b"",
            )
        )
        added = {"output_index": number, "item": item.shown}
        return self._event("response.output_item.added", added) + self._event(
            "response.content_part.added", {**item.place, "content_index": 0, "part": empty}
        )

    def _fragment(self, number: int, fragment: Mapping[str, Any]) -> bytes:
        before = b""
        if self._open is None or self._call != number:
            before = self._close()
            shown = self._response.call(len(self._output), fragment, "in_progress")
            self._open = _Item("call", len(self._output), shown)
            self._open.call = dict(fragment)
            self._call = number
            added = {"output_index": self._open.number, "item": shown}
            before += self._event("response.output_item.added", added)
        arguments = (fragment.get("function") or {}).get("arguments") or ""
        if not arguments:
            return before
        self._open.pieces.append(arguments)
        told = {**self._open.place, "delta": arguments}
        return before + self._event("response.function_call_arguments.delta", told)

    def _close(self) -> bytes:
        """The open item is done."""
        item, self._open, self._call = self._open, None, None
        if item is None:
            return b""
        text = "".join(item.pieces)
        if item.kind == "call":
            function = {"name": item.shown["name"], "arguments": text}
            whole = self._response.call(
                item.number, {"id": item.shown["call_id"], "function": function}
            )
            told = {**item.place, "name": item.shown["name"], "arguments": text}
            done = self._event("response.function_call_arguments.done", told)
        else:
            message = item.kind == "message"
            shape = self._response.message if message else self._response.reasoning
            whole = shape(item.number, text)
            place = {**item.place, "content_index": 0}
            name = "output_text" if message else "reasoning_text"
            more: dict[str, Any] = {"logprobs": []} if message else {}
            done = self._event(f"response.{name}.done", {**place, "text": text, **more})
            closed = {**place, "part": whole["content"][0]}
            done += self._event("response.content_part.done", closed)
        self._output.append(whole)
        ended = {"output_index": item.number, "item": whole}
        return done + self._event("response.output_item.done", ended)

    def _event(self, name: str, fields: Mapping[str, Any]) -> bytes:
        return events.event(name, {"type": name, "sequence_number": self._next(), **fields})

    def _next(self) -> int:
        number = self._sequence
        self._sequence += 1
        return number
