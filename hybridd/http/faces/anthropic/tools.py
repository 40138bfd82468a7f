"""Anthropic's tools and how they may be chosen, as the protocol has them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.wire.errors import Unsupported


def offered(tools: object, choice: object) -> list[dict[str, Any]] | None:
    """The protocol's `tools`; None where there are none, or the choice is to use none.

    Tools that Anthropic's servers run, or whose schema only their models know (`web_search_…`,
    `bash_…`), have a `type` of their own and are left out: no model here was told of them.

    Raises:
        InvalidParams: A tool without a name or a schema.
        Unsupported: The choice is to force a tool.
    """
    forced = _choice(choice)
    if tools is None:
        tools = []
    if not isinstance(tools, list):
        raise bad("tools", "must be a list of tools")
    made = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    known = [tool for tool in made if tool is not None]
    return None if forced == "none" else known or None


def _choice(choice: object) -> str:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    if kind is None or kind == "auto":
        return "auto"
    if kind == "none":
        return "none"
    if kind in ("any", "tool"):
        raise Unsupported(
            "forcing a tool (tool_choice) is not supported yet; leave it out or send auto",
            capability="tool_choice",
        )
    raise bad("tool_choice", "must be an object whose type is auto, none, any or tool")


def _tool(tool: object, where: str) -> dict[str, Any] | None:
    if not isinstance(tool, Mapping):
        raise bad(where, "must be an object with name and input_schema")
    if tool.get("type") not in (None, "custom"):
        return None
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str) or not name:
        raise bad(f"{where}.name", "must be a text")
    if not isinstance(schema, Mapping):
        raise bad(f"{where}.input_schema", "must be a JSON Schema")
    function: dict[str, Any] = {"name": name, "parameters": dict(schema)}
    if isinstance(tool.get("description"), str):
        function = {"name": name, "description": tool["description"], "parameters": dict(schema)}
    return {"type": "function", "function": function}
