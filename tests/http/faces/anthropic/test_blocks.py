"""What Anthropic's messages and tools become."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.anthropic import tools
from hybridd.http.faces.anthropic.blocks import conversation
from hybridd.wire.errors import InvalidParams, Unsupported

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def test_texts_stay_texts() -> None:
    said = [user("Hi"), {"role": "assistant", "content": "Yes?"}, user([text("a"), text("b")])]
    assert conversation("Be kind.", said) == [
        {"role": "system", "content": "Be kind."},
        user("Hi"),
        {"role": "assistant", "content": "Yes?"},
        user("a\nb"),
    ]


def test_system_blocks_lose_their_cache_marks_and_the_line_for_the_bill() -> None:
    system = [
        text("x-anthropic-billing-header: cc_version=2.1; cch=a3f;"),
        text("You are careful.", cache_control={"type": "ephemeral"}),
        text("Here is the place."),
    ]
    assert conversation(system, [user("Hi")])[0] == {
        "role": "system",
        "content": "You are careful.\n\nHere is the place.",
    }
    assert conversation([], [user("Hi")]) == [user("Hi")]


def test_a_system_message_at_the_beginning_is_of_the_system_and_later_of_the_user() -> None:
    said = [
        {"role": "system", "content": "First."},
        user("Hi"),
        {"role": "system", "content": "Then."},
    ]
    assert conversation(None, said) == [
        {"role": "system", "content": "First."},
        user("Hi\nThen."),
    ]


def test_tools_results_are_messages_of_their_own_before_what_the_user_says() -> None:
    said = [
        user("Look."),
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I look.", "signature": "s"},
                {"type": "redacted_thinking", "data": "…"},
                text("Looking."),
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "ä"}},
                {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
            ],
        },
        user(
            [
                {"type": "tool_result", "tool_use_id": "t1", "content": "a cat"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [text("this:"), {"type": "image", "source": PNG}],
                },
                text("And?"),
            ]
        ),
    ]
    assert conversation(None, said)[1:] == [
        {
            "role": "assistant",
            "content": "Looking.",
            "reasoning_content": "I look.",
            "tool_calls": [
                {
                    "id": "t1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "ä"}'},
                },
                {"id": "t2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "a cat"},
        {"role": "tool", "tool_call_id": "t2", "content": [text("this:"), PICTURE]},
        user("And?"),
    ]


def test_a_result_without_content_is_empty() -> None:
    said = [user([{"type": "tool_result", "tool_use_id": "t"}])]
    assert conversation(None, said) == [{"role": "tool", "tool_call_id": "t", "content": ""}]


def test_pictures_become_data_urls() -> None:
    said = [user([{"type": "image", "source": PNG}, text("What?")])]
    assert conversation(None, said) == [user([PICTURE, text("What?")])]


def test_turns_of_one_role_become_one() -> None:
    said = [
        user("a"),
        user([text("b"), {"type": "image", "source": PNG}]),
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "1"}, text("x")]},
        {"role": "assistant", "content": [text("y")]},
        user("c"),
    ]
    assert conversation(None, said) == [
        user([text("a"), text("b"), PICTURE]),
        {"role": "assistant", "content": "x\ny", "reasoning_content": "1"},
        user("c"),
    ]


def test_what_their_servers_did_is_left_out() -> None:
    said = [
        user("Search."),
        {
            "role": "assistant",
            "content": [
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                text("Found."),
            ],
        },
        user("Where?"),
    ]
    assert conversation(None, said)[1] == {"role": "assistant", "content": "Found."}


def test_documents_of_text_are_read() -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "data": "words"}}
    assert conversation(None, [user([document])]) == [user("T\nwords")]


@pytest.mark.parametrize(
    ("system", "messages", "field"),
    [
        (None, [], "messages"),
        (None, None, "messages"),
        (None, ["Hi"], "messages[0]"),
        (None, [{"role": "robot", "content": "Hi"}], "messages[0]"),
        (None, [user(None)], "messages[0].content"),
        (None, [user([{"text": "no type"}])], "messages[0].content[0]"),
        (None, [user([{"type": "text"}])], "messages[0].content[0]"),
        (None, [user([{"type": "hologram"}])], "messages[0].content[0]"),
        (None, [user([{"type": "tool_result"}])], "messages[0].content[0].tool_use_id"),
        (
            None,
            [user([{"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}])],
            "messages[0].content[0].source",
        ),
        (
            None,
            [user("Hi"), {"role": "assistant", "content": [{"type": "tool_use", "id": "1"}]}],
            "messages[1].content[0]",
        ),
        ([{"type": "image"}], [user("Hi")], "system[0]"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(system: Any, messages: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        conversation(system, messages)
    assert refused.value.data["field"] == field


@pytest.mark.parametrize(
    ("messages", "capability"),
    [
        ([user("Hi"), {"role": "assistant", "content": "Well,"}], "prefill"),
        ([user([{"type": "document", "source": {"type": "base64"}}])], "documents"),
    ],
)
def test_what_cannot_be_done_yet_is_refused_by_name(messages: Any, capability: str) -> None:
    with pytest.raises(Unsupported) as refused:
        conversation(None, messages)
    assert refused.value.data["capability"] == capability


TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}


def test_tools_become_functions_and_those_of_their_servers_are_left_out() -> None:
    given = [
        {**TOOL, "cache_control": {"type": "ephemeral"}},
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "custom", "name": "wait", "input_schema": {}},
    ]
    assert tools.offered(given, {"type": "auto"}) == [
        {
            "type": "function",
            "function": {
                "name": "look",
                "description": "Looks.",
                "parameters": {"type": "object"},
            },
        },
        {"type": "function", "function": {"name": "wait", "parameters": {}}},
    ]
    assert tools.offered(given, {"type": "none"}) is None
    assert tools.offered(given[1:2], None) is None
    assert tools.offered(None, None) is None


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "look"}])
def test_a_forced_tool_is_not_supported_yet(choice: dict[str, str]) -> None:
    with pytest.raises(Unsupported) as refused:
        tools.offered([TOOL], choice)
    assert refused.value.data["capability"] == "tool_choice"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ("look", "tools"),
        (["look"], "tools[0]"),
        ([{"input_schema": {}}], "tools[0].name"),
        ([{"name": "look"}], "tools[0].input_schema"),
    ],
)
def test_what_is_no_tool_is_refused_by_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        tools.offered(given, None)
    assert refused.value.data["field"] == field
