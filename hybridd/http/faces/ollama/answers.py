"""What Ollama's clients read: the pieces of an answer, its numbers, times and errors. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hybridd.http.faces.shared.tool_arguments import as_object
from hybridd.http.problems import Problem

_NS = 1_000_000_000


def timestamp(seconds: float) -> str:
    """A time as RFC 3339, in UTC.

    Args:
        seconds: Since the epoch.
    """
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def error_body(problem: Problem) -> dict[str, Any]:
    """`{"error": "…"}`."""
    return {"error": problem.message}


def done(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the last line says of how it ended; durations are in nanoseconds."""
    used, took = result.get("usage") or {}, result.get("timings") or {}
    return {
        "done": True,
        "done_reason": "length" if result.get("finish_reason") == "length" else "stop",
        "total_duration": nanoseconds(took.get("total_s")),
        "load_duration": nanoseconds(took.get("load_s")),
        "prompt_eval_count": used.get("prompt_tokens", 0),
        "prompt_eval_duration": nanoseconds(took.get("prompt_s")),
        "eval_count": used.get("completion_tokens", 0),
        "eval_duration": nanoseconds(took.get("generation_s")),
    }


def nanoseconds(seconds: float | None) -> int:
    """A duration as Ollama writes it."""
    return round((seconds or 0) * _NS)


def tool_calls(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Calls with their arguments as objects."""
    made = []
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        named: dict[str, Any] = {"id": call["id"]} if call.get("id") else {}
        named["function"] = {
            "index": index,
            "name": function.get("name") or "",
            "arguments": as_object(function.get("arguments")),
        }
        made.append(named)
    return made


def logprobs(entries: Sequence[Mapping[str, Any]], alternatives: int) -> list[dict[str, Any]]:
    """Tokens with their probabilities.

    Args:
        alternatives: So many of each token's were asked for.
    """
    told = []
    for entry in entries:
        made = _token(entry)
        if alternatives:
            others = entry.get("top_logprobs") or []
            made["top_logprobs"] = [_token(other) for other in others[:alternatives]]
        told.append(made)
    return told


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("token", "logprob", "bytes") if name in entry}
