"""A streamed answer as Ollama's clients read it: a JSON object a line, the last one `done`.

The two shapes, a message's and a response's, differ in where the text stands; all else is one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridd.http.faces.api import NDJSON
from hybridd.http.faces.ollama import answers
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line, encode_text


@dataclass(frozen=True, slots=True)
class Shape:
    """Where an answer's parts stand.

    Attributes:
        before, after: What stands around the text of a line.
        fields: The same for any part of an answer, as an object.
        whole: The text and the reasoning of a result.
    """

    before: bytes
    after: bytes
    fields: Callable[[Mapping[str, Any]], dict[str, Any]]
    whole: Callable[[Mapping[str, Any]], tuple[str, Mapping[str, Any]]]


def _message(more: Mapping[str, Any]) -> dict[str, Any]:
    text = more.get("content", "")
    return {"message": {"role": "assistant", "content": text, **more}}


def _response(more: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "response": more.get("content", ""),
        **{k: v for k, v in more.items() if k != "content"},
    }


def _of_message(result: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    said = result.get("message") or {}
    return said.get("content") or "", said


def _of_either(result: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    return _of_message(result) if "message" in result else (result.get("text") or "", {})


MESSAGE = Shape(
    b'"message":{"role":"assistant","content":', b'},"done":false}\n', _message, _of_message
)
RESPONSE = Shape(b'"response":', b',"done":false}\n', _response, _of_either)


def answer(
    shape: Shape, model: str, created: float, result: Mapping[str, Any], alternatives: int
) -> dict[str, Any]:
    """The body of a whole answer.

    Args:
        model: As the request named it, which is how Ollama answers.
        created: Seconds since the epoch.
        alternatives: So many were asked for of each token, where log probabilities were.
    """
    text, said = shape.whole(result)
    parts: dict[str, Any] = {"content": text}
    if said.get("reasoning"):
        parts["thinking"] = said["reasoning"]
    if said.get("tool_calls"):
        parts["tool_calls"] = answers.tool_calls(said["tool_calls"])
    made = {
        "model": model,
        "created_at": answers.timestamp(created),
        **shape.fields(parts),
        **answers.done(result),
    }
    if result.get("logprobs"):
        made["logprobs"] = answers.logprobs(result["logprobs"], alternatives)
    return made


class LineWriter:
    """See `api.Writer`; for one ask. Tool calls are sent once they are whole.

    Args:
        model: As the request named it, which is how Ollama answers.
        alternatives: So many were asked for of each token, where log probabilities were.
        now: Seconds since the epoch.
    """

    media_type = NDJSON

    def __init__(
        self,
        shape: Shape,
        model: str,
        alternatives: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._shape = shape
        self._model = model
        self._alternatives = alternatives
        self._now = now
        self._calls: list[Delta] = []
        self._before = b'{"model":' + encode_text(model) + b',"created_at":"'
        self._between = b'Z",' + shape.before
        self._second = -1
        self._date = b""

    def begin(self) -> bytes:
        """Nothing: Ollama's first line brings text."""
        return b""

    def waiting(self, why: str) -> bytes:
        """A line without text, which says nothing of why: there are no comments in this format."""
        return self._text("")

    def delta(self, index: int, delta: Delta) -> bytes:
        """A line of what came; tool calls wait for their end."""
        if delta.tool_calls:
            self._calls.append(Delta(tool_calls=delta.tool_calls))
        if delta.reasoning or delta.logprobs:
            parts: dict[str, Any] = {"content": delta.text}
            if delta.reasoning:
                parts["thinking"] = delta.reasoning
            return self._line(parts, delta.logprobs)
        return self._text(delta.text) if delta.text else b""

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """The tool calls, then the line that is `done`."""
        called = b""
        if self._calls:
            whole = Delta.merged(self._calls).tool_calls or []
            called = self._line({"tool_calls": answers.tool_calls(whole)})
        last = {
            "model": self._model,
            "created_at": answers.timestamp(self._now()),
            **self._shape.fields({}),
            **answers.done(result),
        }
        return called + encode_line(last)

    def finish(self) -> bytes:
        """Nothing: the line that is `done` was the last."""
        return b""

    def error(self, problem: Problem) -> bytes:
        """The error as a line; clients raise it."""
        return encode_line(answers.error_body(problem))

    def _text(self, text: str) -> bytes:
        now = self._now()
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        stamp = self._date + b"%06d" % int((now - second) * 1e6)
        return self._before + stamp + self._between + encode_text(text) + self._shape.after

    def _line(
        self, parts: Mapping[str, Any], logprobs: list[dict[str, Any]] | None = None
    ) -> bytes:
        fields = {
            "model": self._model,
            "created_at": answers.timestamp(self._now()),
            **self._shape.fields(parts),
            "done": False,
        }
        if logprobs:
            fields["logprobs"] = answers.logprobs(logprobs, self._alternatives)
        return encode_line(fields)
