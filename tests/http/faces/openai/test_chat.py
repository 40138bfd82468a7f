"""Chat bodies become asks, and results become chat completions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hybridd.wire.errors import HybriddError, InvalidParams, ModelNotFound, Unsupported
from tests.http.faces.openai.support import (
    CALL,
    ENTRY,
    QUESTION,
    SHOWN_ENTRY,
    asked,
    chatted,
    models,
    replied,
)
from tests.http.faces.support import TIMINGS, USAGE

PATH = "/chat/completions"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


async def test_a_plain_answer() -> None:
    value = await replied(PATH, models(chatted()), {"model": "m", "messages": QUESTION})
    assert value == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "lab/m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 3,
            "total_tokens": 23,
            "prompt_tokens_details": {"cached_tokens": 8},
        },
        "timings": TIMINGS,
    }


async def test_thoughts_and_calls_stand_beside_the_text() -> None:
    unnamed = {"function": {"name": "wait"}}
    result = chatted("", reasoning="hm", tool_calls=[CALL, unnamed])
    value = await replied(PATH, models(result), {"model": "m", "messages": QUESTION})
    [choice] = value["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            CALL,
            {
                "id": "call_1_0_1",
                "type": "function",
                "function": {"name": "wait", "arguments": ""},
            },
        ],
    }


async def test_a_cut_answer_with_calls_says_that_it_was_cut() -> None:
    result = chatted("", tool_calls=[CALL], finish_reason="length")
    value = await replied(PATH, models(result), {"model": "m", "messages": QUESTION})
    assert value["choices"][0]["finish_reason"] == "length"


async def test_several_answers_draw_by_seeds_of_their_own() -> None:
    warm = {**USAGE, "cached_tokens": 20, "reasoning_tokens": 2}
    answers = {7: chatted("A"), 8: chatted("B", usage=warm), 9: chatted("C", usage=warm)}
    daemon = models(chatted())
    daemon.answer = lambda ask: answers[ask.options["seed"]]
    body = {"model": "m", "messages": QUESTION, "n": 3, "seed": 7}
    value = await replied(PATH, daemon, body)
    assert [choice["index"] for choice in value["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in value["choices"]] == ["A", "B", "C"]
    assert value["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


@pytest.mark.parametrize("seed", [{}, {"seed": -1}])
async def test_without_a_seed_nothing_is_drawn_alike(seed: dict[str, int]) -> None:
    daemon = models(chatted())
    await replied(PATH, daemon, {"model": "m", "messages": QUESTION, "n": 2, **seed})
    assert [ask.options.get("seed", -1) for ask in daemon.asked] == [-1, -1]


async def test_log_probabilities_with_as_many_alternatives_as_asked_for() -> None:
    body = {"model": "m", "messages": QUESTION, "logprobs": True, "top_logprobs": 1}
    value = await replied(PATH, models(chatted(logprobs=[ENTRY])), body)
    assert value["choices"][0]["logprobs"] == {"content": [SHOWN_ENTRY]}
    del body["top_logprobs"]
    daemon = models(chatted(logprobs=[ENTRY]))
    value = await replied(PATH, daemon, body)
    assert daemon.asked[0].options["logprobs"] == 1
    assert value["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        ({"max_tokens": 64_000_000_000}, {"max_tokens": 2**31 - 1}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"max_tokens": -1}, {}),
        ({"max_tokens": None, "temperature": None, "stop": None}, {}),
        ({"temperature": 0, "top_p": 0.5, "min_p": 0.1}, None),
        ({"top_k": -1}, {"top_k": 0}),
        ({"repetition_penalty": 1.5}, {"repeat_penalty": 1.5}),
        ({"repetition_penalty": 1.5, "repeat_penalty": 1.25}, {"repeat_penalty": 1.25}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, None),
        ({"stop": ["a", "b", "c", "d", "e", "f"]}, None),
        ({"stop": "a"}, None),
        ({"logit_bias": {"42": -100}}, None),
        ({"seed": -7}, {"seed": -1}),
        ({"seed": 7}, None),
        ({"typical_p": 0.9, "ignore_eos": True}, None),
        ({"user": "u", "metadata": {"a": "b"}, "store": True, "unheard_of": 1}, {}),
        ({"response_format": {"type": "text"}, "top_logprobs": 0, "logprobs": False}, {}),
    ],
)
async def test_options(sent: dict[str, Any], options: dict[str, Any] | None) -> None:
    ask = await asked(PATH, {"messages": QUESTION, **sent})
    assert ask.options == (sent if options is None else options)


@pytest.mark.parametrize(
    ("sent", "keepalive"),
    [
        ({}, None),
        ({"keep_alive": "5m"}, 300),
        ({"keepalive": 60}, 60),
        ({"keep_alive": -1, "keepalive": 60}, math.inf),
        ({"keep_alive": None, "keepalive": "1h"}, 3600),
    ],
)
async def test_hybridds_own_wishes(sent: dict[str, Any], keepalive: float | None) -> None:
    own = {"load_options": {"context_length": 512}, "timeout": "90s"}
    ask = await asked(PATH, {"messages": QUESTION, **own, **sent})
    assert (ask.kind, ask.model, ask.autoload) == ("chat", "m", True)
    assert (ask.keepalive, ask.timeout_s) == (keepalive, 90)
    assert ask.load_options == {"context_length": 512}


async def test_a_model_need_not_be_loaded_for_it() -> None:
    daemon = models(chatted())
    await replied(PATH, daemon, {"model": "m", "messages": QUESTION}, autoload="false")
    assert not daemon.asked[0].autoload


@pytest.mark.parametrize(
    ("sent", "arguments"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"enable_thinking": False}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True, "a": 1}},
            {"enable_thinking": True, "a": 1},
        ),
    ],
)
async def test_template_arguments(sent: dict[str, Any], arguments: dict[str, Any]) -> None:
    ask = await asked(PATH, {"messages": QUESTION, **sent})
    assert ask.request["chat_template_kwargs"] == arguments


@pytest.mark.parametrize(
    ("sent", "tools"),
    [
        ({"tools": [TOOL]}, [TOOL]),
        ({"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True}, [TOOL]),
        ({"tools": [TOOL], "tool_choice": "none"}, None),
        ({"tools": []}, None),
        ({"tools": None, "tool_choice": None, "functions": None, "function_call": None}, None),
    ],
)
async def test_tools(sent: dict[str, Any], tools: list[Any] | None) -> None:
    ask = await asked(PATH, {"messages": QUESTION, **sent})
    assert ask.request["tools"] == tools


@pytest.mark.parametrize(
    ("sent", "capability"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": SCHEMA}, "response_format"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": TOOL}, "tool_choice"),
        ({"functions": [{"name": "look"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "content_parts"),
        (
            {"messages": [{"role": "assistant", "function_call": {"name": "look"}}]},
            "functions",
        ),
    ],
)
async def test_what_cannot_be_done_is_named(sent: dict[str, Any], capability: str) -> None:
    with pytest.raises(Unsupported) as caught:
        await replied(PATH, models(chatted()), {"model": "m", "messages": QUESTION, **sent})
    assert caught.value.data["capability"] == capability


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "function", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [""]}, "stop"),
        ({"logit_bias": {"the": 1}}, "logit_bias.the"),
        ({"seed": 1.5}, "seed"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"load_options": {"contxt": 1}}, "load_options.contxt"),
        ({"keepalive": "soon"}, "keepalive"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
    ],
)
async def test_a_bad_field_is_named(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await replied(PATH, models(chatted()), {"model": "m", "messages": QUESTION, **sent})
    assert caught.value.data["field"] == field
    assert field in caught.value.message


async def test_an_unknown_model_is_told_before_a_stream_begins() -> None:
    daemon = models(chatted())
    body = {"model": "none", "messages": QUESTION, "stream": True}
    with pytest.raises(ModelNotFound):
        await replied(PATH, daemon, body)


async def test_a_failure_of_one_answer_is_that_of_all() -> None:
    daemon = models(chatted())

    def fail(_ask: object) -> dict[str, Any]:
        raise HybriddError("it broke")

    daemon.answer = fail
    with pytest.raises(HybriddError, match="it broke"):
        await replied(PATH, daemon, {"model": "m", "messages": QUESTION, "n": 4})
