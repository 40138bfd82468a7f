"""What a part of an answer brings: one type from an engine's step to a client's loop.

An engine makes a `Delta` of each token; it crosses the worker's channel, the daemon's relay and
the client's socket. `Delta.merged` is all there is to know of how parts become a whole: each of
them uses it. Knows no request and no connection.
"""

from __future__ import annotations

from .framing import encode_line, encode_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self

_NOTHING: dict[str, Any] = {}


class Delta:
    """Text, reasoning, tool calls and log probabilities of one or more tokens.

    A value: nothing changes one once it is made. Fields that are empty are None, but for `text`.

    Attributes:
        text: What the answer goes on with.
        tokens: How many were generated for it; also those that brought no text yet.
        reasoning: What the model's thinking goes on with.
        tool_calls: Fragments of calls in OpenAI's shape: each names its call by `index` (its
            number in this list where it does not), and only `function.arguments` comes in pieces.
        logprobs: An entry a token.
        raw: What it was read from: a `$/stream` notification's params, with a client.
    """

    __slots__ = ("logprobs", "raw", "reasoning", "text", "tokens", "tool_calls")

    def __init__(
        self,
        text: str = "",
        tokens: int = 0,
        reasoning: str | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        logprobs: list[dict[str, Any]] | None = None,
        raw: dict[str, Any] = _NOTHING,
    ) -> None:
        self.text = text
        self.tokens = tokens
        self.reasoning = reasoning or None
        self.tool_calls = tool_calls or None
        self.logprobs = logprobs or None
        self.raw = raw

    # ------------------------------------------------------------------ parts and wholes

    @classmethod
    def merged(cls, deltas: Sequence[Self]) -> Self:
        """What these bring, one after the other. However they are grouped, it is the same.

        Fragments of one tool call become one, which carries its `index`.
        """
        if len(deltas) == 1 and not deltas[0].tool_calls:
            return deltas[0]
        calls: dict[int, dict[str, Any]] = {}
        for each in deltas:
            for position, fragment in enumerate(each.tool_calls or ()):
                index = fragment.get("index", position)
                _add_fragment(calls.setdefault(index, {"index": index}), fragment)
        return cls(
            "".join([each.text for each in deltas]),
            sum([each.tokens for each in deltas]),
            "".join([each.reasoning for each in deltas if each.reasoning]),
            [calls[index] for index in sorted(calls)],
            [entry for each in deltas if each.logprobs for entry in each.logprobs],
        )

    def message(self) -> dict[str, Any]:
        """The assistant's message, where this is the whole of an answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {name: value for name, value in call.items() if name != "index"}
                for call in self.tool_calls
            ]
        return message

    # ------------------------------------------------------------------ on the wire

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> Self:
        """The delta of an object with these fields; others stay reachable in `raw`."""
        get = fields.get
        return cls(
            get("text") or "",
            get("tokens") or 0,
            get("reasoning"),
            get("tool_calls"),
            get("logprobs"),
            fields,
        )

    @classmethod
    def from_notification(cls, params: dict[str, Any]) -> Self:
        """The delta of a `$/stream` notification, which has its tokens beside it."""
        carried = params.get("delta")
        delta = cls.from_wire(carried if isinstance(carried, dict) else {})
        delta.tokens, delta.raw = params.get("tokens") or 0, params
        return delta

    def to_wire(self) -> dict[str, Any]:
        """All of it as one object, as a worker's frame has it; fields that are None are left out.

        A new one each time: the caller may add to it.
        """
        fields: dict[str, Any] = {"text": self.text, "tokens": self.tokens}
        if self.reasoning or self.tool_calls or self.logprobs:
            fields |= self._rest()
        return fields

    def encoded(self) -> bytes:
        """The JSON of a notification's `delta`: without tokens, and without fields that are empty.

        By hand, since it is made for every token: encoding the text alone takes half the time.
        """
        text = b'{"text":' + encode_text(self.text) if self.text else b"{"
        if not (self.reasoning or self.tool_calls or self.logprobs):
            return text + b"}"
        rest = encode_line(self._rest()).removesuffix(b"\n")
        return text + b"," + rest[1:] if self.text else rest

    def _rest(self) -> dict[str, Any]:
        """What most tokens do not bring, where this one does."""
        fields = {
            "reasoning": self.reasoning,
            "tool_calls": self.tool_calls,
            "logprobs": self.logprobs,
        }
        return {name: value for name, value in fields.items() if value is not None}

    # ------------------------------------------------------------------ as a record

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.to_wire().items())
        return f"Delta({shown})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Delta) and self.to_wire() == other.to_wire()

    __hash__ = None  # type: ignore[assignment]  # it holds lists


def _add_fragment(call: dict[str, Any], fragment: Mapping[str, Any]) -> None:
    """Add a fragment to the tool call that it is of, in place."""
    for key, value in fragment.items():
        if key != "function":
            call[key] = value
            continue
        function = call.setdefault("function", {})
        for name, part in value.items():
            function[name] = function.get(name, "") + part if name == "arguments" else part
