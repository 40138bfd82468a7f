"""Bodies as current clients were seen to send them, shortened, and what is made of each."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.wire.errors import Unsupported
from tests.http.faces.openai.support import QUESTION, asked, chatted, models, replied, streamed

# Keywords that agents' tools were seen with.
PARAMETERS = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "path": {
            "type": "string",
            "minLength": 1,
            "maxLength": 4096,
            "pattern": "^/",
            "default": "/",
        },
        "count": {"type": "integer", "exclusiveMinimum": 0, "maximum": 9007199254740991},
        "how": {"anyOf": [{"const": "fast"}, {"enum": ["slow"]}, {"type": ["string", "null"]}]},
        "at": {"type": "string", "format": "date"},
        "more": {"type": "object", "propertyNames": {"type": "string"}},
        "all": {"type": "array", "items": {"$ref": "#/$defs/one"}, "maxItems": 9, "minItems": 1},
    },
    "$defs": {"one": {"type": "number"}},
    "required": ["path"],
    "additionalProperties": False,
}
FUNCTION = {"name": "read", "description": "Reads.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
HISTORY = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": [{"type": "text", "text": "Look."}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "I look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
]
USAGE_TOLD = {"stream": True, "stream_options": {"include_usage": True}}
OPENCODE = {
    "messages": HISTORY,
    "max_tokens": 32000,
    "temperature": 0.55,
    "top_p": 1,
    "tools": [TOOL],
    "tool_choice": "auto",
    **USAGE_TOLD,
}
OPENCODE_TITLE = {"messages": QUESTION, "max_tokens": 32000, **USAGE_TOLD}
QWEN_CODE = {
    "messages": HISTORY,
    "tools": [{**TOOL, "function": {**FUNCTION, "strict": None}}],
    "metadata": {"sessionId": "s", "promptId": "p"},
    "max_tokens": 64000,
    **USAGE_TOLD,
}
AIDER = {"messages": QUESTION, "temperature": 0, "stream": True}
# Every option that is not set is sent as null.
NULLS = {
    "messages": [{"role": "user", "content": "Hi", "name": None, "tool_calls": None}],
    "stream": False,
    "tools": [],
    **dict.fromkeys(
        [
            *("stream_options", "tool_choice", "temperature", "top_p", "top_k", "max_tokens", "n"),
            *("max_completion_tokens", "stop", "seed", "logprobs", "top_logprobs", "logit_bias"),
            *("presence_penalty", "frequency_penalty", "response_format", "functions", "user"),
            *("function_call", "modalities", "reasoning_effort", "chat_template_kwargs", "timeout"),
            *("keep_alive", "load_options", "parallel_tool_calls", "audio", "metadata", "store"),
        ]
    ),
}


@pytest.mark.parametrize(
    ("body", "options", "tools"),
    [
        (OPENCODE, {"max_tokens": 32000, "temperature": 0.55, "top_p": 1}, [TOOL]),
        (OPENCODE_TITLE, {"max_tokens": 32000}, None),
        (QWEN_CODE, {"max_tokens": 64000}, [TOOL]),
        (AIDER, {"temperature": 0}, None),
        (NULLS, {}, None),
    ],
    ids=["opencode", "opencode's title", "Qwen Code", "aider", "nulls"],
)
async def test_chats(body: dict[str, Any], options: dict[str, Any], tools: Any) -> None:
    ask = await asked("/chat/completions", body)
    assert (ask.kind, ask.options, ask.request["tools"]) == ("chat", options, tools)
    assert [m["role"] for m in ask.request["messages"]] == [m["role"] for m in body["messages"]]
    assert (ask.load_options, ask.keepalive, ask.timeout_s) == (None, None, None)


async def test_an_agents_history_is_told_whole() -> None:
    messages = (await asked("/chat/completions", OPENCODE)).request["messages"]
    assert messages[:2] == HISTORY[:2]
    assert messages[2] == {**HISTORY[2], "content": ""}
    assert messages[3] == HISTORY[3]


async def test_a_title_and_a_task_at_once_are_streams_of_their_own() -> None:
    daemon = models(chatted())
    made = [
        await streamed("/chat/completions", body, daemon) for body in (OPENCODE_TITLE, OPENCODE)
    ]
    assert [len(each.asks) for each in made] == [1, 1]
    assert made[0].writer is not made[1].writer


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
NAMED = {"name": "Name", "schema": SCHEMA}
PICKED = {"type": "function", "function": {"name": "read"}}


@pytest.mark.parametrize(
    ("path", "body", "capability"),
    [
        (
            "/chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": {**NAMED, "strict": True}}},
            "response_format",
        ),
        ("/chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("/chat/completions", {"tools": [TOOL], "tool_choice": PICKED}, "tool_choice"),
        ("/chat/completions", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        (
            "/responses",
            {"text": {"format": {"type": "json_schema", **NAMED, "strict": True}}},
            "response_format",
        ),
    ],
    ids=["openai parse", "instructor JSON", "instructor tools", "pydantic-ai", "openai responses"],
)
async def test_structured_output_is_refused_by_name(
    path: str, body: dict[str, Any], capability: str
) -> None:
    said = {"messages": QUESTION} if path == "/chat/completions" else {"input": "Hi"}
    with pytest.raises(Unsupported) as caught:
        await replied(path, models(chatted()), {"model": "m", **said, **body})
    assert caught.value.data["capability"] == capability


async def test_what_lm_studios_road_of_codex_sends() -> None:
    loads = {"input": "", "max_output_tokens": 1, "stream": False}
    ask = await asked("/responses", loads)
    assert (ask.request["messages"], ask.options) == (
        [{"role": "user", "content": ""}],
        {"max_tokens": 1},
    )
