"""Which tools a model is offered, and by which names."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.openai.tools import full_name, namespaces, offered
from hybridd.wire.errors import InvalidParams, Unsupported

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
CHAT_SHAPE = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": True},
}
FLAT = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": SCHEMA,
    "strict": True,
}
OFFERED = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA},
}
GROUP = {
    "type": "namespace",
    "name": "mcp__files__",
    "tools": [{"type": "function", "name": "read"}, {"type": "custom", "name": "patch"}],
}


def test_both_shapes_of_a_function_are_one() -> None:
    assert offered([CHAT_SHAPE], None) == offered([FLAT], None) == [OFFERED]


def test_what_servers_run_is_left_out() -> None:
    tools = [FLAT, {"type": "web_search"}, {"type": "custom", "name": "apply_patch"}, {}]
    assert offered(tools, "auto") == [OFFERED]
    assert offered(tools[1:], "auto") is None


def test_functions_of_a_namespace_are_told_with_it() -> None:
    read = {"type": "function", "function": {"name": "mcp__files__read"}}
    assert offered([FLAT, GROUP], None) == [OFFERED, read]
    assert namespaces([FLAT, GROUP])["mcp__files__read"] == ("mcp__files__", "read")
    assert "look" not in namespaces([FLAT, GROUP])


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("mcp__a__", "mcp__a__f"), ("a", "a__f"), (None, "f"), ("", "f"), (5, "f")],
)
def test_full_names(namespace: Any, name: str) -> None:
    assert full_name(namespace, "f") == name


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", None),
        ({"type": "auto"}, ["look", "mcp__files__read"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "x"}]},
            None,
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": [FLAT]}, ["look"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CHAT_SHAPE]}},
            ["look"],
        ),
    ],
)
def test_a_choice_of_some(choice: Any, names: list[str] | None) -> None:
    made = offered([FLAT, GROUP], choice)
    assert (made and [tool["function"]["name"] for tool in made]) == names


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "look"}},
        {"type": "function", "name": "look"},
        {"type": "allowed_tools", "mode": "required", "tools": [FLAT]},
        {"type": "allowed_tools", "tools": 5},
    ],
)
def test_a_call_cannot_be_forced(choice: Any) -> None:
    with pytest.raises(Unsupported) as caught:
        offered([FLAT], choice)
    assert caught.value.data["capability"] == "tool_choice"


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "function"}, "tools[0]"),
        ({"type": "function", "function": {}}, "tools[0]"),
        ({"type": "function", "function": {"name": ""}}, "tools[0]"),
        (
            {"type": "namespace", "name": "a", "tools": [{"type": "function"}]},
            "tools[0].tools[0]",
        ),
    ],
)
def test_a_function_has_a_name(tool: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        offered([tool], None)
    assert caught.value.data["field"] == field


@pytest.mark.parametrize("members", [None, 5, [5], [{"type": "namespace", "name": "b"}]])
def test_an_empty_namespace_offers_nothing(members: Any) -> None:
    assert offered([{"type": "namespace", "name": "a", "tools": members}], None) is None
