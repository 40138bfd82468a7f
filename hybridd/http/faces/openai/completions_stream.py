"""Chunks of completions as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.http.faces.api import SSE
from hybridd.http.faces.openai import logprobs
from hybridd.http.faces.openai.chat_stream import DONE
from hybridd.http.faces.openai.errors import error
from hybridd.http.faces.openai.options import usage as usage_of
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line, encode_text

_AFTER_TEXT = b',"logprobs":null,"finish_reason":null}]}\n\n'


class CompletionWriter:
    """See `api.Writer`.

    Args:
        echoed: What comes before each choice's text; empty where nothing does.
        alternatives: How many are told with each token; None where nothing is.
        answers: Choices of each prompt.
        usage: Whether what it cost is told at the end.
    """

    media_type = SSE

    def __init__(
        self,
        id: str,
        created: int,
        model: str,
        echoed: Sequence[str],
        alternatives: int | None,
        *,
        answers: int,
        usage: bool,
    ) -> None:
        self._fields = {
            "id": id,
            "object": "text_completion",
            "created": created,
            "model": model,
        }
        self._echoed = echoed
        self._alternatives = alternatives
        self._answers = answers
        self._usage = usage
        self._results: dict[int, Mapping[str, Any]] = {}
        self._offsets = [len(text) for text in echoed]
        begun = encode_line(self._fields).removesuffix(b"}\n")
        self._before_text = [
            b'data: %b,"choices":[{"index":%d,"text":' % (begun, index)
            for index in range(len(echoed))
        ]

    def begin(self) -> bytes:
        """The prompts, where they are echoed."""
        return b"".join(
            self._before_text[index] + encode_text(text) + _AFTER_TEXT
            for index, text in enumerate(self._echoed)
            if text
        )

    def waiting(self, why: str) -> bytes:
        """A comment."""
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        """One chunk; nothing for tokens that brought no text yet."""
        if not delta.logprobs:
            if not delta.text:
                return b""
            return self._before_text[index] + encode_text(delta.text) + _AFTER_TEXT
        told = logprobs.of_completion(delta.logprobs, self._alternatives or 0, self._offsets[index])
        self._offsets[index] += len(delta.text)
        return self._chunk(index, delta.text, logprobs=told)

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """Why this choice ended."""
        self._results[index] = result
        return self._chunk(index, "", finish_reason=result.get("finish_reason") or "stop")

    def finish(self) -> bytes:
        """What it cost, where that was asked for, and the end."""
        if not self._usage:
            return DONE
        results = [self._results[index] for index in sorted(self._results)]
        told = {"choices": [], "usage": usage_of(results, self._answers)}
        return events.data({**self._fields, **told}) + DONE

    def error(self, problem: Problem) -> bytes:
        """What went wrong, as clients raise it; nothing follows."""
        return events.data(error(problem))

    def _chunk(self, index: int, text: str, **more: Any) -> bytes:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **more}
        return events.data({**self._fields, "choices": [choice]})
