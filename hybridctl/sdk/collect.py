"""Puts a stream's deltas together into the result that the unstreamed call would have given.

Sans-IO and shared by both clients. A streamed reply carries no text (the deltas did), so the
typed result is only whole after this.
"""

from __future__ import annotations

from hybridd.wire.types import ChatCompletion, Completion, Delta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Collector:
    """Collects the deltas of one stream."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self.tokens = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return self._merged().text

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        self._deltas.append(delta)
        self.tokens += delta.tokens

    def completion(self, result: dict[str, Any]) -> Completion:
        """The result of a streamed `generate`."""
        return Completion.from_wire(
            self._whole({**result, "text": result.get("text") or self.text})
        )

    def chat_completion(self, result: dict[str, Any]) -> ChatCompletion:
        """The result of a streamed `chat`."""
        message = self._merged().message()
        said = result.get("message")
        if isinstance(said, dict):
            message.update({k: v for k, v in said.items() if v})
        return ChatCompletion.from_wire(self._whole({**result, "message": message}))

    def _merged(self) -> Delta:
        merged = Delta.merged(self._deltas)
        self._deltas = [merged]
        return merged

    def _whole(self, result: dict[str, Any]) -> dict[str, Any]:
        if logprobs := self._merged().logprobs:
            result.setdefault("logprobs", logprobs)
        return result
