"""Completions, whole and streamed, and errors in llama-server's native shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import SSE
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_text

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "unavailable_error",
}
_MS = 1000


def error_body(problem: Problem) -> dict[str, Any]:
    """`{"error": {"code", "message", "type"}}`."""
    usual = "invalid_request_error" if problem.status < 500 else "server_error"
    error: dict[str, Any] = {
        "code": problem.status,
        "message": problem.message,
        "type": _TYPES.get(problem.status, usual),
    }
    if problem.kind == "unsupported":
        error["type"] = "not_supported_error"
    if problem.kind == "context_exceeded":
        error["type"] = "exceed_context_size_error"
        error["n_prompt_tokens"] = problem.data.get("prompt_tokens")
        error["n_ctx"] = problem.data.get("context_length")
    return {"error": error}


def completion(index: int, result: Mapping[str, Any]) -> dict[str, Any]:
    """One completion with everything that is told of it."""
    entries = result.get("logprobs") or []
    return {
        "index": index,
        "content": result.get("text") or "",
        **_tokens(entries),
        **ended(result),
    }


def ended(result: Mapping[str, Any]) -> dict[str, Any]:
    """How a completion ended. Whether it was a stop string is not known: that is `eos` too."""
    used, took = result.get("usage") or {}, result.get("timings") or {}
    cached = used.get("cached_tokens", 0)
    prompted, generated = used.get("prompt_tokens", 0), used.get("completion_tokens", 0)
    return {
        "id_slot": -1,
        "stop": True,
        "model": result.get("model"),
        "tokens_predicted": generated,
        "tokens_evaluated": prompted,
        "tokens_cached": cached,
        "truncated": False,
        "stop_type": "limit" if result.get("finish_reason") == "length" else "eos",
        "stopping_word": "",
        "timings": {
            "cache_n": cached,
            **_timings("prompt", prompted - cached, took.get("prompt_s")),
            **_timings("predicted", generated, took.get("generation_s")),
        },
    }


def _timings(what: str, tokens: int, seconds: float | None) -> dict[str, Any]:
    took = seconds or 0.0
    return {
        f"{what}_n": tokens,
        f"{what}_ms": took * _MS,
        f"{what}_per_token_ms": took * _MS / tokens if tokens else 0.0,
        f"{what}_per_second": tokens / took if took else 0.0,
    }


def _tokens(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The tokens, where they were asked for, with their probabilities."""
    if not entries:
        return {"tokens": []}
    return {"tokens": [e["id"] for e in entries], "completion_probabilities": entries}


class CompletionWriter:
    """See `api.Writer`; each event has its completion's index, and the last one's numbers."""

    media_type = SSE

    def __init__(self) -> None:
        self._before: dict[int, bytes] = {}

    def begin(self) -> bytes:
        """Nothing: the first event brings text."""
        return b""

    def waiting(self, why: str) -> bytes:
        """A comment."""
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        """One event of what came."""
        if delta.logprobs:
            told = {"index": index, "content": delta.text, **_tokens(delta.logprobs)}
            return events.data({**told, "stop": False, "id_slot": -1})
        if not delta.text:
            return b""
        before = self._before.get(index)
        if before is None:
            before = self._before[index] = b'data: {"index":%d,"content":' % index
        return before + encode_text(delta.text) + b',"tokens":[],"stop":false,"id_slot":-1}\n\n'

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        """The numbers of one completion."""
        return events.data({"index": index, "content": "", "tokens": [], **ended(result)})

    def finish(self) -> bytes:
        """Nothing: the last completion's numbers were the end."""
        return b""

    def error(self, problem: Problem) -> bytes:
        """The error as an event."""
        return events.data(error_body(problem))
