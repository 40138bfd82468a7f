"""Ollama's messages as the conversation that the protocol's `chat` takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.backends.data_urls import bad

# How the base64 of a picture begins, by its kind: Ollama's clients do not say which it is.
_PICTURES = (("iVBOR", "png"), ("/9j/", "jpeg"), ("R0lGOD", "gif"), ("UklGR", "webp"))
_ROLES = ("system", "user", "assistant", "tool", "developer")


def conversation(messages: object) -> list[dict[str, Any]]:
    """The protocol's `messages`.

    Raises:
        InvalidParams: What is no conversation; `field` names the part.
    """
    if not isinstance(messages, list):
        raise bad("messages", "must be a list of messages")
    calls = _Calls()
    return [_message(message, f"messages[{i}]", calls) for i, message in enumerate(messages)]


def prompt(system: str | None, text: str, images: object) -> list[dict[str, Any]]:
    """The conversation that a `generate` request is for a model with a chat template."""
    said = [{"role": "user", "content": _content(text, images, "images")}]
    return [{"role": "system", "content": system}, *said] if system else said


def _message(message: object, where: str, calls: _Calls) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise bad(where, "must be an object with role and content")
    role = message.get("role")
    role = role.lower() if isinstance(role, str) else role
    if role not in _ROLES:
        raise bad(f"{where}.role", f"must be one of {', '.join(_ROLES)}")
    content = message.get("content")
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise bad(f"{where}.content", "must be a text")
    made = {
        "role": role,
        "content": _content(content, message.get("images"), f"{where}.images"),
    }
    if isinstance(message.get("thinking"), str) and message["thinking"]:
        made["reasoning_content"] = message["thinking"]
    if message.get("tool_calls"):
        made["tool_calls"] = calls.made(message["tool_calls"], f"{where}.tool_calls")
    if role == "tool":
        made |= calls.answered(message)
    return made


def _content(text: str, images: object, where: str) -> str | list[dict[str, Any]]:
    if images is None or images == []:
        return text
    if not isinstance(images, list):
        raise bad(where, "must be a list of pictures in base64")
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for i, image in enumerate(images):
        url = _data_url(image, f"{where}[{i}]")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _data_url(image: object, where: str) -> str:
    if isinstance(image, str):
        if image.startswith("data:"):
            return image
        for beginning, kind in _PICTURES:
            if image.startswith(beginning):
                return f"data:image/{kind};base64,{image}"
    raise bad(where, "must be a PNG, JPEG, WebP or GIF picture in base64")


class _Calls:
    """Ties tools' results to the calls that they answer: Ollama's clients mostly name the tool."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[str, str]] = []  # ids and tools' names, in the order of the calls

    def made(self, given: object, where: str) -> list[dict[str, Any]]:
        """The calls of a message, each with an id."""
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise bad(where, "must be a list of calls")
        self._open = []
        made = []
        for i, call in enumerate(given):
            function = call.get("function") if isinstance(call, Mapping) else None
            name = function.get("name") if isinstance(function, Mapping) else None
            if not isinstance(function, Mapping) or not isinstance(name, str):
                raise bad(f"{where}[{i}]", "must be an object whose function has a name")
            arguments = function.get("arguments")
            if arguments is None:
                arguments = {}
            if not isinstance(arguments, (Mapping, str)):
                raise bad(f"{where}[{i}].function.arguments", "must be an object")
            id = call.get("id") if isinstance(call.get("id"), str) else f"call_{self._count}"
            self._count += 1
            self._open.append((id, name))
            described = {"name": name, "arguments": arguments}
            made.append({"id": id, "type": "function", "function": described})
        return made

    def answered(self, message: Mapping[str, Any]) -> dict[str, str]:
        """Which call a tool's message answers: the one it names, else the first of its tool."""
        id, tool = message.get("tool_call_id"), message.get("tool_name")
        for call in self._open:
            if id == call[0] or (not id and tool in (None, "", call[1])):
                self._open.remove(call)
                return {"tool_call_id": call[0], "name": call[1]}
        named = {"tool_call_id": id, "name": tool}
        return {key: value for key, value in named.items() if isinstance(value, str)}
