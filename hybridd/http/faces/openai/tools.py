"""Tools as the protocol has them, and how they may be chosen. Pure.

A model calls functions by one name. Where a client has put them in namespaces, the model is told
the namespace before the name, and the client gets both back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.core.fields import Field, ListOf, OneOf, Struct, Text
from hybridd.core.requests import ANY_OBJECT
from hybridd.wire.errors import Unsupported

FIELDS: Mapping[str, Field] = {
    "tools": ListOf(Struct({}, open=True, what="a tool"), max_length=512),
    "tool_choice": OneOf((Text(1, 64), ANY_OBJECT)),
}
# Of a function, what a chat template is told.
_TOLD = ("name", "description", "parameters")


def offered(tools: Sequence[Mapping[str, Any]] | None, choice: Any) -> list[dict[str, Any]] | None:
    """The tools that the model is offered; None where there are none.

    Functions alone: tools of other types are run by servers, or by models that were trained for
    them.

    Raises:
        InvalidParams: A function without a name.
        Unsupported: One of them has to be called.
    """
    only = _chosen(choice)
    made = [
        {"type": "function", "function": function}
        for function in _functions(tools or (), "tools")
        if only is None or function["name"] in only
    ]
    return made or None


def full_name(namespace: Any, name: str) -> str:
    """What a model is told that a function is called."""
    if not isinstance(namespace, str) or not namespace:
        return name
    return namespace + name if namespace.endswith("_") else f"{namespace}__{name}"


def namespaces(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, tuple[str, str]]:
    """The namespace and the own name of each function in one, by what the model is told."""
    return {
        full_name(group["name"], function["name"]): (group["name"], function["name"])
        for group in tools or ()
        if _is_group(group)
        for function in _members(group)
        if isinstance(function.get("name"), str)
    }


def _functions(tools: Sequence[Any], where: str) -> Iterator[dict[str, Any]]:
    for index, tool in enumerate(tools):
        at = f"{where}[{index}]"
        if _is_group(tool):
            for function in _functions(_members(tool), f"{at}.tools"):
                yield {**function, "name": full_name(tool["name"], function["name"])}
        elif tool.get("type") == "function" or (not tool.get("type") and tool.get("function")):
            # In a chat they are wrapped, in a response they are not.
            yield _function(tool.get("function", tool), at)


def _function(given: Any, where: str) -> dict[str, Any]:
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str) or not name:
        raise bad(where, "must be a function with a name")
    return {key: given[key] for key in _TOLD if given.get(key) is not None}


def _is_group(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") == "namespace" and isinstance(tool.get("name"), str)


def _members(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    members = group.get("tools")
    if not isinstance(members, list):
        return []
    return [each for each in members if isinstance(each, dict) and not _is_group(each)]


def _chosen(choice: Any) -> set[str] | None:
    """The names of those that are offered; None is all."""
    if choice == "none":
        return set()
    if choice in (None, "auto"):
        return None
    if isinstance(choice, Mapping) and choice.get("type") == "auto":
        return None
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)  # a chat wraps it, a response does not
        names = allowed.get("tools") if isinstance(allowed, Mapping) else None
        if isinstance(names, list) and allowed.get("mode", "auto") == "auto":
            return set(map(_allowed_name, names))
    raise Unsupported(
        "forcing a tool (tool_choice) is not supported yet; leave it out or send auto",
        capability="tool_choice",
    )


def _allowed_name(tool: Any) -> str:
    if not isinstance(tool, Mapping):
        return ""
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    return full_name(tool.get("namespace"), name) if isinstance(name, str) else ""
