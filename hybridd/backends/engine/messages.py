"""Chat messages in OpenAI's shapes, brought to the one form that templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.backends.data_urls import SENSES, bad, check, url_of
from hybridd.wire.errors import InvalidParams, Unsupported

_KEPT = ("name", "tool_call_id", "reasoning", "reasoning_content")


def normalize(
    messages: object, format_name: str, pictures: list[str] | None = None
) -> list[dict[str, Any]]:
    """Check messages and reduce each to role, content and what else templates use.

    Content is a string, of several text parts joined by newlines; where it has pictures it is a
    list of `{type: "text", text}` and `{type: "image"}`. A tool call's arguments become an object
    where they are one as JSON text, which is what templates of the Hugging Face kind expect.

    Args:
        pictures: Gets the data URLs, in order; None for a model that reads text only.

    Raises:
        InvalidParams: No messages, or one that is none; `field` names it.
        Unsupported: A part that the model does not read.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidParams(
            "messages must be a list of at least one message", field="messages", reason="empty"
        )
    checked = [_message(m, f"messages[{i}]", format_name, pictures) for i, m in enumerate(messages)]
    check(pictures or [])
    return checked


def _message(
    message: object, where: str, format_name: str, pictures: list[str] | None
) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise bad(where, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise bad(f"{where}.role", "must be a string such as user")
    content = _content(message, where, format_name, pictures)
    checked: dict[str, Any] = {"role": role, "content": content}
    checked.update({k: message[k] for k in _KEPT if isinstance(message.get(k), str)})
    if message.get("tool_calls"):
        checked["tool_calls"] = _tool_calls(message["tool_calls"], where)
    return checked


def _content(
    message: Mapping[str, Any], where: str, format_name: str, pictures: list[str] | None
) -> str | list[dict[str, str]]:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, Sequence):
        raise bad(f"{where}.content", "must be a string or a list of parts")
    parts = [
        _part(part, f"{where}.content[{i}]", format_name, pictures)
        for i, part in enumerate(content)
    ]
    if any(part["type"] == "image" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _part(part: object, where: str, format_name: str, pictures: list[str] | None) -> dict[str, str]:
    if not isinstance(part, Mapping):
        raise bad(where, "must be an object with a type")
    kind = part.get("type")
    if kind in ("text", "input_text") and isinstance(part.get("text"), str):
        return {"type": "text", "text": str(part["text"])}
    sense = SENSES.get(kind) if isinstance(kind, str) else None
    if sense == "vision" and pictures is not None:
        pictures.append(url_of(part, where))
        return {"type": "image"}
    if sense is not None:
        takes = "text only" if pictures is None else "text and pictures only"
        raise Unsupported(
            f"this model takes {takes}; {where} is of type {kind}",
            capability=sense,
            format=format_name,
        )
    raise bad(where, "must be a text part: {type: text, text: …}")


def _tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(c, Mapping) for c in calls):
        raise bad(f"{where}.tool_calls", "must be a list of objects")
    return [_tool_call(call) for call in calls]


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return dict(call)
    if not isinstance(arguments, dict):
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}
