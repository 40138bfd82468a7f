"""A whole message, usage and errors in Anthropic's shapes. Pure; knows no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.http.faces.shared.tool_arguments import as_object
from hybridd.http.problems import Problem

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message(id: str, result: Mapping[str, Any], most: int | None = None) -> dict[str, Any]:
    """The body of a whole answer.

    Args:
        id: Of the message.
        result: Of a `chat`.
        most: So many tokens were asked for.
    """
    said = result.get("message") or {}
    calls = said.get("tool_calls") or []
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": result.get("model"),
        "content": _content(id, said, calls),
        "stop_reason": stop_reason(result, called=bool(calls), most=most),
        "stop_sequence": None,
        "usage": usage(result.get("usage") or {}),
    }


def _content(
    id: str, said: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.get("reasoning"):
        blocks.append({"type": "thinking", "thinking": said["reasoning"], "signature": ""})
    if said.get("content") or not (blocks or calls):
        blocks.append({"type": "text", "text": said.get("content") or ""})
    for index, call in enumerate(calls):
        function = call.get("function") or {}
        blocks.append(
            {
                "type": "tool_use",
                "id": call.get("id") or f"toolu_{id.removeprefix('msg_')}_{index}",
                "name": function.get("name") or "",
                "input": as_object(function.get("arguments")),
            }
        )
    return blocks


def stop_reason(result: Mapping[str, Any], *, called: bool, most: int | None) -> str:
    """Why it ended. Whether it was a stop string is not known: that is `end_turn` too.

    Args:
        result: Of a `chat`.
        called: Whether tools were called.
        most: So many tokens were asked for; fewer that end for their length filled the context.
    """
    if result.get("finish_reason") != "length":
        return "tool_use" if called else "end_turn"
    generated = (result.get("usage") or {}).get("completion_tokens", 0)
    return "max_tokens" if most is None or generated >= most else "model_context_window_exceeded"


def usage(counted: Mapping[str, Any]) -> dict[str, int]:
    """Tokens; those of the prompt that were cached are counted apart, and clients add them up."""
    cached = counted.get("cached_tokens", 0)
    return {
        "input_tokens": max(0, counted.get("prompt_tokens", 0) - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": counted.get("completion_tokens", 0),
    }


def error_body(problem: Problem) -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}}`."""
    usual = "invalid_request_error" if problem.status < 500 else "api_error"
    message = problem.message
    if problem.kind == "context_exceeded":
        # Claude Code looks for these words to shorten the conversation by itself.
        tokens, most = problem.data.get("prompt_tokens"), problem.data.get("context_length")
        message = f"prompt is too long: {tokens} tokens > {most} maximum; {message}"
    return {
        "type": "error",
        "error": {"type": _TYPES.get(problem.status, usual), "message": message},
    }
