"""The items of a response's input as the protocol's messages, and its tools. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridd.wire.errors import InvalidParams, Unsupported

_TEXTS = frozenset({"input_text", "output_text", "text", "refusal", "summary_text"})
# What is of use to the servers that wrote it alone.
_LEFT_OUT = frozenset({"reasoning", "item_reference", "web_search_call", "compaction"})

Message = dict[str, Any]


def conversation(
    instructions: str | Sequence[Mapping[str, Any]] | None,
    input: str | Sequence[Mapping[str, Any]],
) -> list[Message]:
    """The messages that instructions and input are.

    Raises:
        InvalidParams, Unsupported: An item that is none, or that no model here takes.
    """
    messages: list[Message] = []
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    elif instructions:
        messages += _messages(instructions, "instructions")
    if isinstance(input, str):
        return [*messages, {"role": "user", "content": input}] if input else messages
    return messages + _messages(input, "input")


def tools(given: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Functions in the shape that chat templates know; other types are servers' own.

    A namespace is a group of functions.
    """
    found: list[dict[str, Any]] = []
    for tool in given or ():
        if tool.get("type") == "namespace":
            inside = tool.get("tools")
            found += tools([t for t in inside if isinstance(t, dict)] if inside else ())
        elif tool.get("type") == "function":
            kept = {k: v for k, v in tool.items() if k not in ("type", "strict") and v is not None}
            function = kept.get("function")
            found.append(
                {"type": "function", "function": function if isinstance(function, dict) else kept}
            )
    return found


def _messages(items: Sequence[Mapping[str, Any]], where: str) -> list[Message]:
    messages: list[Message] = []
    for index, item in enumerate(items):
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            messages.append(_message(item, f"{where}.{index}"))
        elif kind == "function_call":
            _add_call(messages, item)
        elif kind == "function_call_output":
            content = _content(item.get("output"), f"{where}.{index}.output")
            messages.append(
                {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
            )
        elif kind not in _LEFT_OUT:
            field, reason = f"{where}.{index}.type", f"is no item that is known: {str(kind)[:40]}"
            raise InvalidParams(f"{field} {reason}", field=field, reason=reason)
    return messages


def _message(item: Mapping[str, Any], where: str) -> Message:
    role = item.get("role")
    if role not in ("system", "developer", "user", "assistant"):
        field, reason = f"{where}.role", "takes system, developer, user or assistant"
        raise InvalidParams(f"{field} {reason}", field=field, reason=reason)
    return {"role": role, "content": _content(item.get("content"), f"{where}.content")}


def _add_call(messages: list[Message], item: Mapping[str, Any]) -> None:
    """Calls that follow each other are of one message."""
    call = {
        "id": item.get("call_id"),
        "type": "function",
        "function": {"name": item.get("name"), "arguments": item.get("arguments") or "{}"},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append(call)


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """A text, or parts; parts that are all text become one."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        reason = "takes a text or a list of parts"
        raise InvalidParams(f"{where} {reason}", field=where, reason=reason)
    parts = [_part(part, f"{where}.{index}") for index, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, dict):
        raise InvalidParams(f"{where} takes an object", field=where, reason="no object")
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": str(part.get("text") or part.get("refusal") or "")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise Unsupported(
        f"content parts of type {str(kind)[:40]} are not supported ({where}); send input_text and "
        "input_image with an image_url",
        capability="content_parts",
    )
