"""A response object and its items, as far as they are known. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Of the request, as the response repeats it.
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": None,
    "store": False,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "truncation": "disabled",
}


class Response:
    """One response: what does not change of it, and its shapes from begin to end.

    Args:
        body: The request's fields.
    """

    def __init__(self, id: str, created: int, model: str, body: Mapping[str, Any]) -> None:
        self.id = id
        self.name = id.removeprefix("resp_")
        self._fields = {
            "id": id,
            "object": "response",
            "created_at": created,
            "model": model,
            **{name: body.get(name, default) for name, default in _REPEATED.items()},
        }

    def shown(
        self,
        status: str,
        output: Sequence[Mapping[str, Any]] = (),
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The response as it is now."""
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            **self._fields,
            "status": status,
            "output": list(output),
            "error": error,
            "incomplete_details": incomplete,
            "usage": usage(result) if result is not None else None,
        }

    def of_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """The whole response of a chat's result."""
        message = result["message"]
        output: list[dict[str, Any]] = []
        if message.get("reasoning"):
            output.append(self.reasoning(len(output), message["reasoning"]))
        if message.get("content") or not message.get("tool_calls"):
            output.append(self.message(len(output), message.get("content") or ""))
        for call in message.get("tool_calls") or ():
            output.append(self.call(len(output), call))
        return self.shown(status_of(result), output, result)

    # ---------------------------------------------------------------- items

    def message(self, number: int, text: str, status: str = "completed") -> dict[str, Any]:
        """The item of a text; without content while it is in progress."""
        return {
            "type": "message",
            "id": f"msg_{self.name}_{number}",
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [part(text)],
        }

    def reasoning(self, number: int, text: str, status: str = "completed") -> dict[str, Any]:
        """The item of a model's thinking."""
        content = [] if status == "in_progress" else [{"type": "reasoning_text", "text": text}]
        return {
            "type": "reasoning",
            "id": f"rs_{self.name}_{number}",
            "summary": [],
            "content": content,
            "status": status,
        }

    def call(
        self, number: int, call: Mapping[str, Any], status: str = "completed"
    ) -> dict[str, Any]:
        """The item of a tool call; without arguments while it is in progress."""
        function = call.get("function") or {}
        return {
            "type": "function_call",
            "id": f"fc_{self.name}_{number}",
            "call_id": call.get("id") or f"call_{self.name}_{number}",
            "name": function.get("name") or "",
            "arguments": "" if status == "in_progress" else function.get("arguments") or "",
            "status": status,
        }


def part(text: str) -> dict[str, Any]:
    """The content part of a text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def status_of(result: Mapping[str, Any]) -> str:
    """Whether it ended by itself."""
    return "incomplete" if result.get("finish_reason") == "length" else "completed"


def usage(result: Mapping[str, Any]) -> dict[str, Any]:
    """What it cost."""
    spent = result.get("usage", {})
    prompt, completion = spent.get("prompt_tokens", 0), spent.get("completion_tokens", 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": spent.get("cached_tokens", 0)},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
