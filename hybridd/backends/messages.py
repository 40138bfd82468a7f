"""Chat messages in OpenAI's shapes, brought to the one form that templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.wire.errors import InvalidParams, Unsupported

_PARTS_OF = {
    "image_url": "vision",
    "image": "vision",
    "input_image": "vision",
    "video": "vision",
    "video_url": "vision",
    "input_audio": "audio",
    "audio": "audio",
}
_KEPT = ("name", "tool_call_id", "reasoning", "reasoning_content")


def normalize(messages: object, format_name: str) -> list[dict[str, Any]]:
    """Check messages and reduce each to role, content (a string) and what else templates use.

    Text parts are joined by newlines. A tool call's arguments become an object where they are one
    as JSON text, which is what templates of the Hugging Face kind expect.

    Raises:
        InvalidParams: No messages, or one that is none; `field` names it.
        Unsupported: A part that is no text.
    """
    if not isinstance(messages, list) or not messages:
        raise InvalidParams(
            "messages must be a list of at least one message", field="messages", reason="empty"
        )
    return [_message(m, f"messages[{i}]", format_name) for i, m in enumerate(messages)]


def _message(message: object, where: str, format_name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise _bad(where, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise _bad(f"{where}.role", "must be a string such as user")
    made: dict[str, Any] = {"role": role, "content": _content(message, where, format_name)}
    made.update({k: message[k] for k in _KEPT if isinstance(message.get(k), str)})
    if message.get("tool_calls"):
        made["tool_calls"] = _tool_calls(message["tool_calls"], where)
    return made


def _content(message: Mapping[str, Any], where: str, format_name: str) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, Sequence):
        raise _bad(f"{where}.content", "must be a string or a list of parts")
    return "\n".join(
        _part(part, f"{where}.content[{i}]", format_name) for i, part in enumerate(content)
    )


def _part(part: object, where: str, format_name: str) -> str:
    if not isinstance(part, Mapping):
        raise _bad(where, "must be an object with a type")
    kind = part.get("type")
    if kind in ("text", "input_text") and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in _PARTS_OF:
        raise Unsupported(
            f"this model takes text only; {where} is of type {kind}",
            capability=_PARTS_OF[kind],
            format=format_name,
        )
    raise _bad(where, "must be a text part: {type: text, text: …}")


def _tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or not all(isinstance(c, Mapping) for c in calls):
        raise _bad(f"{where}.tool_calls", "must be a list of objects")
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


def _bad(where: str, reason: str) -> InvalidParams:
    return InvalidParams(f"{where} {reason}", field=where, reason=reason)
