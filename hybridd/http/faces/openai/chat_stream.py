"""Chunks of a chat as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import SSE
from hybridd.http.faces.openai import logprobs
from hybridd.http.faces.openai.errors import error
from hybridd.http.faces.openai.options import usage as usage_of
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line, encode_text

DONE = b"data: [DONE]\n\n"
_AFTER_TEXT = b'},"finish_reason":null}]}\n\n'


class ChatWriter:
    """See `api.Writer`.

    Args:
        choices: How many answers there are.
        alternatives: How many are told with each token; None where nothing is.
        usage: Whether what it cost is told at the end.
    """

    media_type = SSE

    def __init__(
        self,
        id: str,
        created: int,
        model: str,
        choices: int,
        alternatives: int | None,
        *,
        usage: bool,
    ) -> None:
        self._fields = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._alternatives = alternatives
        self._usage = usage
        self._calls: list[set[int]] = [set() for _ in range(choices)]  # begun, of each choice
        self._results: dict[int, Mapping[str, Any]] = {}
        # What every chunk of a choice begins with, encoded once.
        begun = encode_line(self._fields).removesuffix(b"}\n")
        self._before_text = [
            b'data: %b,"choices":[{"index":%d,"delta":{"content":' % (begun, index)
            for index in range(choices)
        ]

    def begin(self) -> bytes:
        """Who speaks, for each choice."""
        said = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(index, said) for index in range(len(self._before_text)))

    def waiting(self, why: str) -> bytes:
        """A comment."""
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        """One chunk; nothing for tokens that brought no text yet."""
        if not (delta.reasoning or delta.tool_calls or delta.logprobs):
            if not delta.text:
                return b""
            return self._before_text[index] + encode_text(delta.text) + _AFTER_TEXT
        said: dict[str, Any] = {}
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.text or delta.logprobs:
            said["content"] = delta.text
        if delta.tool_calls:
            said["tool_calls"] = [
                self._fragment(index, fragment.get("index", position), fragment)
                for position, fragment in enumerate(delta.tool_calls)
            ]
        more: dict[str, Any] = {}
        if delta.logprobs:
            more["logprobs"] = logprobs.of_chat(delta.logprobs, self._alternatives or 0)
        return self._chunk(index, said, **more)

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """Why this choice ended; one that ended by itself with calls ended for them."""
        self._results[index] = result
        reason = str(result.get("finish_reason") or "stop")
        if self._calls[index] and reason == "stop":
            reason = "tool_calls"
        return self._chunk(index, {}, finish_reason=reason)

    def finish(self) -> bytes:
        """What it cost, where that was asked for, and the end."""
        if not self._usage:
            return DONE
        results = [self._results[index] for index in sorted(self._results)]
        told: dict[str, Any] = {
            "choices": [],
            "usage": usage_of(results, len(results)),
            "timings": results[0].get("timings"),
        }
        return events.data({**self._fields, **told}) + DONE

    def error(self, problem: Problem) -> bytes:
        """What went wrong, as clients raise it; nothing follows."""
        return events.data(error(problem))

    def _fragment(self, index: int, number: int, fragment: Mapping[str, Any]) -> dict[str, Any]:
        """A part of a call; the first one has all that clients look for only there."""
        begun = self._calls[index]
        if number in begun:
            return {"index": number, **fragment}
        begun.add(number)
        return {"index": number, **tool_call(str(self._fields["id"]), index, number, fragment)}

    def _chunk(self, index: int, said: Mapping[str, Any], **more: Any) -> bytes:
        choice = {"index": index, "delta": said, "finish_reason": None, **more}
        return events.data({**self._fields, "choices": [choice]})


def tool_call(id: str, choice: int, number: int, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as clients need it: with a type, an id, and arguments that are a text."""
    made = {"type": "function", **call}
    made["id"] = call.get("id") or f"call_{id.rpartition('-')[2]}_{choice}_{number}"
    made["function"] = {"arguments": "", **(call.get("function") or {})}
    return made
