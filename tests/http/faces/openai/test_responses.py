"""Bodies of responses become asks, and results become responses."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.wire.errors import InvalidParams, Unsupported
from tests.http.faces.openai.support import (
    CALL,
    ENTRY,
    SHOWN_ENTRY,
    asked,
    chatted,
    models,
    replied,
)

PATH = "/responses"
TOOLS = [
    {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False},
    {"type": "namespace", "name": "mcp__a", "tools": [{"type": "function", "name": "read"}]},
    {"type": "web_search", "external_web_access": True},
]
# As Codex sends it, shortened.
CODEX = {
    "instructions": "You are Codex.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "Sandboxed."}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Hi"}],
            "id": "m1",
        },
    ],
    "tools": TOOLS,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"summary": "auto"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"a": "b"},
}


async def test_a_whole_response() -> None:
    body = {"model": "m", "input": "Hi", "max_output_tokens": 9, "store": True}
    value = await replied(PATH, models(chatted()), body)
    assert value == {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": "lab/m",
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": 9,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "output": [
            {
                "type": "message",
                "id": "msg_1_0",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
                ],
            }
        ],
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 23,
        },
    }


async def test_thought_text_and_calls_are_items() -> None:
    called = {"id": "call_b", "function": {"name": "mcp__a__read", "arguments": "{}"}}
    result = chatted("Hello", reasoning="hm", tool_calls=[CALL, called], finish_reason="length")
    value = await replied(PATH, models(result), {"model": "m", "input": "Hi", "tools": TOOLS})
    assert value["status"] == "incomplete"
    assert value["incomplete_details"] == {"reason": "max_output_tokens"}
    reasoning, message, first, second = value["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["content"][0]["text"] == "Hello"
    assert first == {
        "type": "function_call",
        "id": "fc_1_2",
        "call_id": "call_a",
        "name": "look",
        "arguments": '{"at":"it"}',
        "status": "completed",
    }
    assert second == {
        "type": "function_call",
        "id": "fc_1_3",
        "call_id": "call_b",
        "namespace": "mcp__a",
        "name": "read",
        "arguments": "{}",
        "status": "incomplete",
    }


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 1}, [SHOWN_ENTRY]),
        ({"top_logprobs": 1}, [SHOWN_ENTRY]),
        ({"include": ["message.output_text.logprobs"]}, [{**SHOWN_ENTRY, "top_logprobs": []}]),
    ],
)
async def test_log_probabilities(sent: dict[str, Any], shown: list[Any]) -> None:
    daemon = models(chatted(logprobs=[ENTRY]))
    value = await replied(PATH, daemon, {"model": "m", "input": "Hi", **sent})
    assert value["output"][0]["content"][0]["logprobs"] == shown
    assert daemon.asked[0].options == {"logprobs": 1}


async def test_what_codex_sends() -> None:
    ask = await asked(PATH, CODEX)
    assert ask.kind == "chat"
    assert ask.options == {}
    assert ask.request == {
        "messages": [
            {"role": "system", "content": "You are Codex.\n\nSandboxed."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        "tools": [
            {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "mcp__a__read"}},
        ],
        "chat_template_kwargs": {},
    }


async def test_nothing_at_all_loads_the_model() -> None:
    ask = await asked(PATH, {"input": "", "max_output_tokens": 1})
    assert ask.request["messages"] == [{"role": "user", "content": ""}]
    assert ask.options == {"max_tokens": 1}


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ({"max_output_tokens": 2**40}, {"max_tokens": 2**31 - 1}),
        ({"seed": 3, "top_k": 5, "stop": "x"}, {"seed": 3, "top_k": 5, "stop": "x"}),
        (
            {
                "text": {"format": {"type": "text"}, "verbosity": "low"},
                "truncation": "auto",
                "service_tier": "flex",
                "previous_response_id": None,
                "conversation": None,
                "background": False,
                "max_tool_calls": 5,
            },
            {},
        ),
    ],
)
async def test_options(sent: dict[str, Any], options: dict[str, Any]) -> None:
    assert (await asked(PATH, {"input": "Hi", **sent})).options == options


@pytest.mark.parametrize(
    ("reasoning", "arguments"),
    [
        ({"effort": "high", "summary": "auto"}, {"reasoning_effort": "high"}),
        ({"effort": "none"}, {"enable_thinking": False}),
        ({"effort": None}, {}),
        (None, {}),
    ],
)
async def test_effort(reasoning: Any, arguments: dict[str, Any]) -> None:
    ask = await asked(PATH, {"input": "Hi", "reasoning": reasoning})
    assert ask.request["chat_template_kwargs"] == arguments


@pytest.mark.parametrize(
    ("sent", "capability"),
    [
        ({"previous_response_id": "resp_0"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "response_format"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_what_cannot_be_done_is_named(sent: dict[str, Any], capability: str) -> None:
    with pytest.raises(Unsupported) as caught:
        await replied(PATH, models(chatted()), {"model": "m", "input": "Hi", **sent})
    assert caught.value.data["capability"] == capability


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"seed": "x"}, "seed"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"tools": [5]}, "tools.0"),
        ({"text": 5}, "text"),
        ({"text": {"format": "json"}}, "text.format"),
    ],
)
async def test_a_bad_field_is_named(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await replied(PATH, models(chatted()), {"model": "m", "input": "Hi", **sent})
    assert caught.value.data["field"] == field
