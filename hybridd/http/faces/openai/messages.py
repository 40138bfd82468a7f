"""A chat's messages as the protocol takes them: null is left out, parts are text or what a model
may see or hear. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.core.fields import Choice, Field, ListOf, OneOf, Struct, Text
from hybridd.core.options import NULL
from hybridd.wire.errors import Unsupported

Message = dict[str, Any]

_OBJECTS = ListOf(Struct({}, open=True), max_length=10_000)
_FIELDS: Mapping[str, Field] = {
    "role": Choice(("system", "developer", "user", "assistant", "tool")),
    "content": OneOf((Text(), _OBJECTS, NULL)),
    "name": OneOf((Text(0, 256), NULL)),
    "tool_calls": OneOf((_OBJECTS, NULL)),
    "tool_call_id": OneOf((Text(), NULL)),
    "reasoning_content": OneOf((Text(), NULL)),
}
MESSAGES = ListOf(
    Struct(_FIELDS, required=("role",), open=True, what="a message with role and content"),
    min_length=1,
    max_length=10_000,
)
# Of a message, what the protocol knows beside role and content.
_KEPT = ("name", "tool_call_id", "reasoning_content", "reasoning")
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
# A model that cannot see or hear is known later, by its files.
_SENSED = frozenset({"image_url", "input_audio"})


def conversation(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The protocol's `messages`.

    Args:
        messages: As `MESSAGES` takes them.

    Raises:
        InvalidParams: A part or a call that is none; `field` names it.
        Unsupported: What no model here takes.
    """
    return with_one_system([_message(m, f"messages[{i}]") for i, m in enumerate(messages)])


def with_one_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation, begun by one message of the system's at most.

    Few chat templates know a developer: others leave out what it says, or fail. It is the system
    to all of them, also to those that call it developer. Nor do many take a second one.
    """
    told = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
    begun = list(takewhile(_is_plain_system, told))
    if len(begun) < 2:
        return told
    text = "\n\n".join(_text(message["content"]) for message in begun)
    return [{"role": "system", "content": text}, *told[len(begun) :]]


def _is_plain_system(message: Message) -> bool:
    content = message["content"]
    return message["role"] == "system" and (
        isinstance(content, str) or all(each["type"] == "text" for each in content)
    )


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(each["text"] for each in content)


def _message(message: Mapping[str, Any], where: str) -> Message:
    if message.get("function_call"):
        raise deprecated_functions(f"{where}.function_call")
    made: Message = {"role": message["role"], "content": _content(message, where)}
    made |= {name: message[name] for name in _KEPT if isinstance(message.get(name), str)}
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [_call(c, f"{where}.tool_calls[{i}]") for i, c in enumerate(calls)]
    return made


def _content(message: Mapping[str, Any], where: str) -> str | list[dict[str, Any]] | None:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        # With calls alone, or with nothing but a refusal.
        return str(message.get("refusal") or "")
    if isinstance(content, list):
        return [part(each, f"{where}.content[{i}]") for i, each in enumerate(content)]
    if content is None:
        raise bad(f"{where}.content", "must be a text or a list of parts")
    return str(content)


def part(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A content part as the protocol has them.

    Raises:
        InvalidParams: A text without text.
        Unsupported: Of a type that no model here takes.
    """
    kind = given.get("type")
    if isinstance(kind, str) and kind in _TEXTS:
        text = given.get(_TEXTS[kind])
        if not isinstance(text, str):
            raise bad(f"{where}.{_TEXTS[kind]}", "must be a text")
        return {"type": "text", "text": text}
    if kind == "input_image" and given.get("image_url"):
        url = given["image_url"]
        return {"type": "image_url", "image_url": {"url": url} if isinstance(url, str) else url}
    if kind in _SENSED:
        return {"type": kind, kind: given.get(kind)}
    raise Unsupported(
        f"content parts of type {str(kind)[:40]} ({where}) are not supported; send text and "
        "pictures as data: URLs",
        capability="content_parts",
    )


def _call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    function = call.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str):
        raise bad(f"{where}.function", "must be an object with name and arguments")
    arguments = function.get("arguments")
    if not isinstance(arguments, (str, Mapping)):
        arguments = "{}"
    described = {"name": name, "arguments": arguments}
    made: dict[str, Any] = {"type": "function", "function": described}
    return {"id": call["id"], **made} if isinstance(call.get("id"), str) else made


def deprecated_functions(field: str) -> Unsupported:
    """What is said of the shape that tools had before."""
    return Unsupported(
        f"functions ({field}) were replaced by tools; send tools and tool_calls",
        capability="functions",
    )
