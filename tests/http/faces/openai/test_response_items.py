"""Items of a response's input become messages."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.core.options import MESSAGES
from hybridd.http.faces.openai.response_items import conversation
from hybridd.wire.errors import InvalidParams, Unsupported

USER = {"role": "user", "content": "Hi"}


def said(*items: Any, instructions: Any = None) -> list[dict[str, Any]]:
    """The messages that these items are, which the protocol takes."""
    made = conversation(instructions, list(items))
    return MESSAGES.check(made) if made else made


def called(name: str, arguments: Any = "{}", **more: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": f"call_{name}",
        "name": name,
        "arguments": arguments,
        "status": "completed",
        **more,
    }


def call(name: str, arguments: Any = "{}", id: str | None = None) -> dict[str, Any]:
    return {
        "id": id or f"call_{name}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def thought(text: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "in short"}],
        "content": [{"type": "reasoning_text", "text": text}],
        "encrypted_content": None,
    }


def test_texts() -> None:
    assert conversation("Be short.", "Hi") == [{"role": "system", "content": "Be short."}, USER]
    assert conversation(None, "Hi") == [USER]
    assert conversation("", "") == []
    assert conversation([{"role": "developer", "content": "Hm"}], "") == [
        {"role": "system", "content": "Hm"}
    ]


def test_messages_of_every_role_and_shape() -> None:
    picture = "data:image/png;base64,AA=="
    parts = [
        {"type": "input_text", "text": "Look:"},
        {"type": "input_image", "image_url": picture, "detail": "auto"},
    ]
    answer = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }
    assert said(
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "D"}]},
        {"role": "system", "content": "S"},
        {"role": "user", "content": parts},
        answer,
        {"role": "user", "content": None},
    ) == [
        {"role": "system", "content": "D\n\nS"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": picture}},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "user", "content": ""},
    ]


def test_what_was_thought_said_and_called_is_one_message() -> None:
    items = [
        USER,
        thought("I look"),
        {"role": "assistant", "content": "One moment."},
        called("look", '{"at":"it"}'),
        called("wait"),
        {"type": "function_call_output", "call_id": "call_look", "output": "found"},
        {
            "type": "function_call_output",
            "call_id": "call_wait",
            "output": [{"type": "input_text", "text": "done"}],
        },
        thought("it is"),
        thought(" there"),
        called("look"),
    ]
    assert said(*items) == [
        USER,
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "I look",
            "tool_calls": [call("look", '{"at":"it"}'), call("wait")],
        },
        {"role": "tool", "tool_call_id": "call_look", "content": "found"},
        {
            "role": "tool",
            "tool_call_id": "call_wait",
            "content": [{"type": "text", "text": "done"}],
        },
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "it is there",
            "tool_calls": [call("look")],
        },
    ]


def test_a_thought_between_calls_begins_a_message() -> None:
    made = said(called("look"), thought("more"), called("wait"))
    assert [message.get("reasoning_content") for message in made] == [None, "more"]


def test_hidden_thoughts_and_servers_doings_are_left_out() -> None:
    hidden = {"type": "reasoning", "summary": [], "encrypted_content": "xyz"}
    search = {"type": "web_search_call", "action": {"type": "search", "query": "q"}}
    assert said(hidden, search, {"role": "assistant", "content": "A"}) == [
        {"role": "assistant", "content": "A"}
    ]


def test_calls_in_namespaces_have_the_names_that_models_were_told() -> None:
    [message] = said(called("read", namespace="mcp__files__"))
    assert message["tool_calls"] == [call("mcp__files__read", id="call_read")]


def test_other_shapes_of_calls_and_outputs() -> None:
    custom = {"type": "custom_tool_call", "call_id": "call_p", "name": "patch", "input": "+a"}
    assert said(
        custom,
        {"type": "custom_tool_call_output", "call_id": "call_p", "output": "done"},
        called("look", None, call_id=None),
        {"type": "function_call_output", "output": {"content": "no", "success": False}},
    ) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call("patch", {"input": "+a"}, "call_p")],
        },
        {"role": "tool", "tool_call_id": "call_p", "content": "done"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "no"},
    ]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"type": "picture"}, "input[0].type"),
        ({}, "input[0].type"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": 5}, "input[0].content"),
        ({"role": "user", "content": ["Hi"]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"type": "function_call", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call_output", "output": 5}, "input[0].output"),
    ],
)
def test_what_is_wrong_is_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        said(item)
    assert caught.value.data["field"] == field


@pytest.mark.parametrize(
    ("item", "capability"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "item_reference"),
        ({"type": "compaction", "encrypted_content": "x"}, "compaction"),
        ({"role": "user", "content": [{"type": "input_file"}]}, "content_parts"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "content_parts",
        ),
    ],
)
def test_what_cannot_be_done_is_named(item: dict[str, Any], capability: str) -> None:
    with pytest.raises(Unsupported) as caught:
        said(item)
    assert caught.value.data["capability"] == capability
