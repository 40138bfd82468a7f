"""Puts a stream's deltas together into the result that the unstreamed call would have given.

Sans-IO and shared by both clients. A streamed reply carries no text (the deltas did), so the
typed result is only whole after this.
"""

from __future__ import annotations

from hybridd.wire.types import ChatCompletion, Completion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hybridd.wire.types import Delta


class Collector:
    """Collects the deltas of one stream."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[dict[str, Any]] = []
        self.tokens = 0

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        self._text.append(delta.text)
        self.tokens += delta.tokens
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for position, call in enumerate(delta.tool_calls or []):
            _merge_call(self._tool_calls.setdefault(call.get("index", position), {}), call)
        self._logprobs += delta.logprobs or []

    def completion(self, result: dict[str, Any]) -> Completion:
        """The result of a streamed `generate`."""
        return Completion.from_wire(
            self._whole({**result, "text": result.get("text") or self.text})
        )

    def chat_completion(self, result: dict[str, Any]) -> ChatCompletion:
        """The result of a streamed `chat`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self._reasoning:
            message["reasoning"] = "".join(self._reasoning)
        if self._tool_calls:
            calls = [self._tool_calls[index] for index in sorted(self._tool_calls)]
            message["tool_calls"] = [
                {k: v for k, v in call.items() if k != "index"} for call in calls
            ]
        said = result.get("message")
        if isinstance(said, dict):
            message.update({k: v for k, v in said.items() if v})
        return ChatCompletion.from_wire(self._whole({**result, "message": message}))

    def _whole(self, result: dict[str, Any]) -> dict[str, Any]:
        if self._logprobs:
            result.setdefault("logprobs", self._logprobs)
        return result


def _merge_call(call: dict[str, Any], fragment: dict[str, Any]) -> None:
    """Add a fragment of a tool call, in OpenAI's shape: only `arguments` comes in pieces."""
    for key, value in fragment.items():
        if key != "function":
            call[key] = value
            continue
        function = call.setdefault("function", {})
        for name, part in value.items():
            function[name] = function.get(name, "") + part if name == "arguments" else part
