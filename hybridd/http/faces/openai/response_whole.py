"""A response object and its items, as far as they are known. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.http.faces.openai import logprobs
from hybridd.http.faces.openai.tools import namespaces

# Of the request, as the response repeats it.
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
# What it is here, whatever was asked for.
_FIXED: Mapping[str, Any] = {
    "background": False,
    "previous_response_id": None,
    "store": False,
    "truncation": "disabled",
}


class Response:
    """One response: what does not change of it, and its shapes from begin to end.

    Args:
        body: The request's fields.
        alternatives: How many are told with each token; None where nothing is.
    """

    def __init__(
        self,
        id: str,
        created: int,
        model: str,
        body: Mapping[str, Any],
        alternatives: int | None = None,
    ) -> None:
        self.id = id
        self._name = id.removeprefix("resp_")
        self._alternatives = alternatives
        self._namespaces = namespaces(body.get("tools"))
        self._fields = {
            "id": id,
            "object": "response",
            "created_at": created,
            "model": model,
            **{name: body.get(name, default) for name, default in _REPEATED.items()},
            **_FIXED,
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
        said, status = result["message"], status_of(result)
        output: list[dict[str, Any]] = []
        if said.get("reasoning"):
            output.append(self.reasoning(0, said["reasoning"], "completed"))
        if said.get("content") or not said.get("tool_calls"):
            told = self.logprobs(result.get("logprobs") or ())
            output.append(self.message(len(output), said.get("content") or "", "completed", told))
        for call in said.get("tool_calls") or ():
            output.append(self.call(len(output), call, "completed"))
        # Where it was cut, that was in the last one.
        output[-1]["status"] = status
        return self.shown(status, output, result)

    def logprobs(self, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Log probabilities as the part of a text has them."""
        told: list[dict[str, Any]] = logprobs.of_chat(entries, self._alternatives or 0)["content"]
        return told

    # ---------------------------------------------------------------- items

    def message(
        self, number: int, text: str, status: str, told: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """The item of a text; without content while it is in progress.

        Args:
            told: What `logprobs` made of its tokens.
        """
        return {
            "type": "message",
            "id": f"msg_{self._name}_{number}",
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [part(text, told)],
        }

    def reasoning(self, number: int, text: str, status: str) -> dict[str, Any]:
        """The item of a model's thinking; without content while it is in progress."""
        content = [] if status == "in_progress" else [{"type": "reasoning_text", "text": text}]
        return {
            "type": "reasoning",
            "id": f"rs_{self._name}_{number}",
            "summary": [],
            "content": content,
            "status": status,
        }

    def call(self, number: int, call: Mapping[str, Any], status: str) -> dict[str, Any]:
        """The item of a tool call; without arguments while it is in progress.

        Args:
            call: As the model made it: by the name that it was told.
        """
        function = call.get("function") or {}
        name = function.get("name") or ""
        shown = {
            "type": "function_call",
            "id": f"fc_{self._name}_{number}",
            "call_id": call.get("id") or f"call_{self._name}_{number}",
            "name": name,
            "arguments": "" if status == "in_progress" else function.get("arguments") or "",
            "status": status,
        }
        if name in self._namespaces:
            shown["namespace"], shown["name"] = self._namespaces[name]
        return shown


def part(text: str, told: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The content part of a text."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(told)}


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
        "output_tokens_details": {"reasoning_tokens": spent.get("reasoning_tokens", 0)},
        "total_tokens": prompt + completion,
    }
