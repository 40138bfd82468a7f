"""What LM Studio adds to OpenAI's answers: `stats`, `model_info` and `runtime`.

Knows nothing of OpenAI's shapes but that an answer is an object, and that an event of a stream may
have no choices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.api import Answer, Ask, Call, Handler, Reply, Streamed, Writer
from hybridd.http.faces.lmstudio import catalog
from hybridd.http.faces.lmstudio.requests import as_openai
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem

_STOP_REASONS = {"stop": "eosFound", "length": "maxPredictedTokensReached"}
# What is added of a model and a result.
_Adding = Callable[[Mapping[str, Any]], dict[str, Any]]


def added(handler: Handler) -> Handler:
    """The same handler, whose answers have what LM Studio adds."""

    async def answer(call: Call) -> Answer:
        results: list[dict[str, Any]] = []

        async def infer(ask: Ask) -> dict[str, Any]:
            # A copy: what writes the answer may take it apart.
            result = await call.infer(ask)
            results.append(dict(result))
            return result

        made = await handler(replace(call, body=as_openai(call.body or {}), infer=infer))
        adding = await _adding(call)
        if isinstance(made, Streamed):
            return Streamed(made.asks, _Writer(made.writer, adding))
        if isinstance(made, Reply) and isinstance(made.value, dict) and results:
            return replace(made, value={**made.value, **adding(results[0])})
        return made

    return answer


def of(
    result: Mapping[str, Any], record: ModelRecord | None, loaded: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What is added to an answer.

    Args:
        result: Of the (first) generation.
        record: The model; None where its files are gone.
        loaded: What is known of it in memory; None where it was not there beforehand.
    """
    took = result.get("timings") or {}
    made: dict[str, Any] = {
        "stats": {
            "tokens_per_second": took.get("generation_tokens_per_s"),
            "time_to_first_token": took.get("first_token_s"),
            "generation_time": took.get("generation_s"),
            "stop_reason": _STOP_REASONS.get(str(result.get("finish_reason")), "toolCalls"),
        }
    }
    if record is not None:
        facts = record.facts
        made["model_info"] = {
            "arch": facts.architecture,
            "quant": facts.quantization,
            "format": facts.format,
            "context_length": (loaded or {}).get("context_length") or facts.context_length,
        }
    if loaded is not None:
        name, _, version = str(loaded.get("engine")).rpartition(" ")
        made["runtime"] = {
            "name": name or version,
            "version": version,
            "supported_formats": [loaded.get("format")],
        }
    return made


async def _adding(call: Call) -> _Adding:
    records, loaded = call.daemon.manager.listed(), await catalog.running(call)

    def adding(result: Mapping[str, Any]) -> dict[str, Any]:
        id = str(result.get("model"))
        return of(result, records.get(id), loaded.get(id))

    return adding


class _Writer:
    """A stream of OpenAI's whose last event but its end has what is added."""

    def __init__(self, inner: Writer, adding: _Adding) -> None:
        self.media_type = inner.media_type
        self._inner = inner
        self._adding = adding
        self._first: Mapping[str, Any] = {}
        self.begin = inner.begin
        self.waiting = inner.waiting
        # Called for each token: straight to the one that writes.
        self.delta = inner.delta

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        self._first = self._first or dict(result)
        return self._inner.end(index, result)

    def finish(self) -> bytes:
        told = {
            "object": "chat.completion.chunk",
            "model": self._first.get("model"),
            "choices": [],
            **self._adding(self._first),
        }
        return events.data(told) + self._inner.finish()

    def error(self, problem: Problem) -> bytes:
        return self._inner.error(problem)
