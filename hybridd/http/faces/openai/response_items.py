"""The items of a response's input as the protocol's messages. Pure.

Items are smaller than messages: what the assistant thought, said and called are three, and become
one message again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.http.faces.openai.messages import Message, part, with_one_system
from hybridd.http.faces.openai.tools import full_name
from hybridd.wire.errors import Unsupported

_ROLES = ("system", "developer", "user", "assistant")
# What a server did: its outcome stands in what the assistant said of it.
_LEFT_OUT = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
        *("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"),
        *("tool_search_call", "tool_search_output", "ghost_snapshot"),
    }
)
# What only the server knows that wrote it.
_KEPT_ELSEWHERE = frozenset({"item_reference", "compaction", "compaction_summary"})


def conversation(
    instructions: str | Sequence[Mapping[str, Any]] | None,
    input: str | Sequence[Mapping[str, Any]],
) -> list[Message]:
    """The messages that instructions and input are.

    Raises:
        InvalidParams, Unsupported: An item that is none, or that no model here takes.
    """
    turns = _Turns()
    if isinstance(instructions, str):
        if instructions:
            turns.messages.append({"role": "system", "content": instructions})
    else:
        turns.add_all(instructions or (), "instructions")
    if not isinstance(input, str):
        turns.add_all(input, "input")
    elif input:
        turns.messages.append({"role": "user", "content": input})
    return with_one_system(turns.messages)


class _Turns:
    """Messages as they grow, item by item."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._thought = ""

    def add_all(self, items: Sequence[Mapping[str, Any]], where: str) -> None:
        for index, item in enumerate(items):
            self._add(item, f"{where}[{index}]")

    def _add(self, item: Mapping[str, Any], where: str) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            self._message(item, where)
        elif kind == "reasoning":
            self._thought += _thought(item)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, where)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            answer = _content(_output(item.get("output")), f"{where}.output")
            named = {"tool_call_id": item["call_id"]} if _is_text(item.get("call_id")) else {}
            self.messages.append({"role": "tool", **named, "content": answer})
        elif kind in _KEPT_ELSEWHERE:
            raise Unsupported(
                f"responses are not kept here ({where} is of type {kind}); send the items "
                "themselves",
                capability=str(kind),
            )
        elif kind not in _LEFT_OUT:
            raise bad(f"{where}.type", f"is no item that is known: {str(kind)[:40]}")

    def _message(self, item: Mapping[str, Any], where: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise bad(f"{where}.role", f"must be one of {', '.join(_ROLES)}")
        content = _content(item.get("content"), f"{where}.content")
        if role == "assistant":
            self._assistant()["content"] = content
        else:
            self.messages.append({"role": role, "content": content})

    def _call(self, item: Mapping[str, Any], where: str) -> None:
        name = item.get("name")
        if not _is_text(name):
            raise bad(f"{where}.name", "must be the name of the tool that was called")
        arguments: Any = item.get("arguments")
        if item.get("type") == "custom_tool_call":
            arguments = {"input": item.get("input")}
        function = {
            "name": full_name(item.get("namespace"), str(name)),
            "arguments": arguments if isinstance(arguments, (str, Mapping)) else "{}",
        }
        call: dict[str, Any] = {"type": "function", "function": function}
        if _is_text(item.get("call_id")):
            call = {"id": item["call_id"], **call}
        last = self.messages[-1] if self.messages else None
        # Calls that follow what was said, or each other, are of one message.
        joined = last is not None and last["role"] == "assistant" and not self._thought
        message = last if joined and last is not None else self._assistant()
        message.setdefault("tool_calls", []).append(call)

    def _assistant(self) -> Message:
        """A new message of the assistant's, with what was thought before it."""
        message: Message = {"role": "assistant", "content": ""}
        if self._thought:
            message["reasoning_content"] = self._thought
        self._thought = ""
        self.messages.append(message)
        return message


def _thought(item: Mapping[str, Any]) -> str:
    """The text of a reasoning item; where it is hidden, a summary is no substitute."""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    texts = [each.get("text") for each in parts if isinstance(each, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def _output(output: Any) -> Any:
    """What a tool answered; some clients wrap it with whether that went well."""
    return output.get("content") if isinstance(output, Mapping) else output


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise bad(where, "must be a text or a list of parts")
    made = []
    for index, each in enumerate(content):
        if not isinstance(each, Mapping):
            raise bad(f"{where}[{index}]", "must be an object with a type")
        made.append(part(each, f"{where}[{index}]"))
    return made


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
