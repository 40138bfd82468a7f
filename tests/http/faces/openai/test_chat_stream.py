"""Chunks of a chat, as OpenAI's clients read them."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.api import SSE
from hybridd.http.faces.openai.chat_stream import ChatWriter
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from tests.http.faces.openai.support import (
    ENTRY,
    QUESTION,
    SHOWN_ENTRY,
    chatted,
    events,
    streamed,
    written,
)
from tests.http.faces.support import TIMINGS, USAGE

PATH = "/chat/completions"
KNOWN = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "lab/m",
}
AWKWARD = 'a "quote"\\\n\u2028 🦊 % {}'


def writer(choices: int = 1, alternatives: int | None = None, *, usage: bool = False) -> ChatWriter:
    return ChatWriter("chatcmpl-1", 0, "lab/m", choices, alternatives, usage=usage)


def chunk(delta: dict[str, Any], index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": None, **more}
    return {**KNOWN, "choices": [choice]}


BEGUN = {"role": "assistant", "content": ""}


async def test_a_stream_from_begin_to_end() -> None:
    answer = await streamed(PATH, {"messages": QUESTION})
    assert answer.writer.media_type == SSE
    assert [ask.kind for ask in answer.asks] == ["chat"]
    deltas = [Delta("Hel", 1), Delta("", 1), Delta(AWKWARD, 2)]
    assert events(written(answer.writer, deltas, chatted(""))) == [
        chunk(BEGUN),
        chunk({"content": "Hel"}),
        chunk({"content": AWKWARD}),
        chunk({}, finish_reason="stop"),
        "[DONE]",
    ]


def test_a_lone_surrogate_is_written_too() -> None:
    [told] = events(writer().delta(0, Delta("\ud800", 1)))
    assert told == chunk({"content": "\ud800"})


async def test_what_it_cost_is_told_where_it_is_asked_for() -> None:
    body = {"messages": QUESTION, "stream_options": {"include_usage": True}}
    answer = await streamed(PATH, body)
    told = events(written(answer.writer, [Delta("Hi", 1)], chatted("")))
    assert told[-2:] == [
        {
            **KNOWN,
            "choices": [],
            "usage": {
                "prompt_tokens": 20,
                "completion_tokens": 3,
                "total_tokens": 23,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            "timings": TIMINGS,
        },
        "[DONE]",
    ]


@pytest.mark.parametrize("options", [None, {}, {"include_usage": None}, {"include_usage": False}])
async def test_otherwise_it_is_not(options: Any) -> None:
    answer = await streamed(PATH, {"messages": QUESTION, "stream_options": options})
    told = events(written(answer.writer, [], chatted("")))
    assert "usage" not in str(told)


async def test_choices_come_in_any_mix() -> None:
    body = {"messages": QUESTION, "n": 2, "seed": 1, "stream_options": {"include_usage": True}}
    answer = await streamed(PATH, body)
    assert [ask.options["seed"] for ask in answer.asks] == [1, 2]
    made = answer.writer
    warm = chatted("", usage={**USAGE, "cached_tokens": 20})
    data = [made.begin(), made.delta(1, Delta("B", 1)), made.delta(0, Delta("A", 1))]
    data += [made.end(1, warm), made.end(0, chatted("", finish_reason="length")), made.finish()]
    told = events(b"".join(data))
    assert told[:6] == [
        chunk(BEGUN, 0),
        chunk(BEGUN, 1),
        chunk({"content": "B"}, 1),
        chunk({"content": "A"}, 0),
        chunk({}, 1, finish_reason="stop"),
        chunk({}, 0, finish_reason="length"),
    ]
    assert told[6]["usage"]["prompt_tokens"] == 20
    assert told[6]["usage"]["completion_tokens"] == 6
    assert told[6]["usage"]["prompt_tokens_details"] == {"cached_tokens": 8}


def test_thoughts_come_as_reasoning_content() -> None:
    told = events(written(writer(), [Delta("", 1, "hm"), Delta("so", 1, "!")], chatted("")))
    assert told[1:3] == [
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning_content": "!", "content": "so"}),
    ]


def test_calls_come_in_fragments() -> None:
    deltas = [
        Delta("", 1, None, [{"index": 0, "id": "call_a", "function": {"name": "look"}}]),
        Delta("", 1, None, [{"index": 0, "function": {"arguments": "{}"}}]),
        # Without ids, numbered by their place.
        Delta("", 1, None, [{"function": {}}, {"function": {"name": "wait", "arguments": "{"}}]),
    ]
    told = events(written(writer(), deltas, chatted("")))
    calls = [choice["delta"]["tool_calls"] for each in told[1:4] for choice in each["choices"]]
    first = {"name": "look", "arguments": ""}
    second = {"name": "wait", "arguments": "{"}
    assert calls == [
        [{"index": 0, "id": "call_a", "type": "function", "function": first}],
        [{"index": 0, "function": {"arguments": "{}"}}],
        [
            {"index": 0, "function": {}},
            {"index": 1, "id": "call_1_0_1", "type": "function", "function": second},
        ],
    ]
    assert told[4] == chunk({}, finish_reason="tool_calls")


def test_of_several_choices_only_the_one_that_called_says_so() -> None:
    call = Delta("", 1, None, [{"index": 0, "id": "a", "function": {"name": "look"}}])
    told = events(written(writer(2), [(1, call)], chatted(""), chatted("")))
    reasons = [each["choices"][0]["finish_reason"] for each in told[3:5]]
    assert reasons == ["stop", "tool_calls"]


def test_log_probabilities() -> None:
    told = events(writer(alternatives=1).delta(0, Delta("He", 1, None, None, [ENTRY])))
    assert told == [chunk({"content": "He"}, logprobs={"content": [SHOWN_ENTRY]})]


def test_waiting_is_a_comment() -> None:
    assert writer().waiting("loading m,\n40 %") == b": loading m, 40 %\n\n"


def test_an_error_in_the_middle_is_the_last_event() -> None:
    problem = Problem(500, "worker_died", "it died", data={"model": "m"})
    [told] = events(writer().error(problem))
    assert told == {
        "error": {
            "message": "it died",
            "type": "server_error",
            "param": None,
            "code": "worker_died",
            "hybridd": {"kind": "worker_died", "model": "m"},
        }
    }
