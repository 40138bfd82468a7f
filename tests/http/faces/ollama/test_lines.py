"""A streamed answer of Ollama's, line by line, and that it says what the whole one does."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from hybridd.http.faces.ollama import lines
from hybridd.http.faces.ollama.lines import MESSAGE, RESPONSE, LineWriter, Shape
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta

NOW = 1796125731.25
RESULT: dict[str, Any] = {
    "model": "lab/m:Q4_0",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 20, "completion_tokens": 3, "cached_tokens": 8},
    "timings": {"total_s": 1.5, "load_s": 0.25, "prompt_s": 0.125, "generation_s": 1.0},
}
NUMBERS = {
    "done_reason": "stop",
    "total_duration": 1_500_000_000,
    "load_duration": 250_000_000,
    "prompt_eval_count": 20,
    "prompt_eval_duration": 125_000_000,
    "eval_count": 3,
    "eval_duration": 1_000_000_000,
}


def streamed(shape: Shape, deltas: list[Delta], alternatives: int = 0) -> list[dict[str, Any]]:
    writer = LineWriter(shape, "m", alternatives, now=lambda: NOW)
    parts = [writer.begin(), *(writer.delta(0, d) for d in deltas)]
    data = b"".join([*parts, writer.end(0, RESULT), writer.finish()])
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_each_line_of_a_message_brings_text_and_the_last_brings_the_numbers() -> None:
    first, second, last = streamed(MESSAGE, [Delta("Hel", 1), Delta("", 1), Delta('"lo"\n', 1)])
    stamp = "2026-12-01T11:48:51.250000Z"
    assert first == {
        "model": "m",
        "created_at": stamp,
        "message": {"role": "assistant", "content": "Hel"},
        "done": False,
    }
    assert second["message"] == {"role": "assistant", "content": '"lo"\n'}
    assert last == {
        "model": "m",
        "created_at": stamp,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        **NUMBERS,
    }
    assert datetime.fromisoformat(stamp).timestamp() == NOW


def test_a_response_has_its_text_by_another_name() -> None:
    first, last = streamed(RESPONSE, [Delta("Hi", 1)])
    assert first == {
        "model": "m",
        "created_at": "2026-12-01T11:48:51.250000Z",
        "response": "Hi",
        "done": False,
    }
    assert (last["response"], last["done"]) == ("", True)
    assert "message" not in last


DELTAS = [
    [Delta("Hello", 1), Delta(" there", 1)],
    [Delta("", 1, "Hm."), Delta("Yes ☃", 1), Delta("", 1)],
    [
        Delta("Looking.", 1),
        Delta("", 1, None, [{"index": 0, "id": "c1", "function": {"name": "look"}}]),
        Delta("", 1, None, [{"index": 0, "function": {"arguments": '{"at":'}}]),
        Delta("", 1, None, [{"index": 0, "function": {"arguments": ' "x"}'}}]),
        Delta("", 1, None, [{"index": 1, "function": {"name": "wait"}}]),
    ],
]


@pytest.mark.parametrize("deltas", DELTAS)
def test_a_stream_makes_the_message_that_would_have_come_whole(deltas: list[Delta]) -> None:
    message: dict[str, Any] = {}
    for line in streamed(MESSAGE, deltas):
        for name, value in line["message"].items():
            message[name] = value if name == "role" else message.get(name, type(value)()) + value
    result = {**RESULT, "message": Delta.merged(deltas).message()}
    assert message == lines.answer(MESSAGE, "m", NOW, result, 0)["message"]


def test_a_whole_message_has_everything_in_one_object() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at":"x"}'}}
    said = {"role": "assistant", "content": "Hi", "reasoning": "Hm.", "tool_calls": [call]}
    assert lines.answer(MESSAGE, "m", NOW, {**RESULT, "message": said}, 0) == {
        "model": "m",
        "created_at": "2026-12-01T11:48:51.250000Z",
        "message": {
            "role": "assistant",
            "content": "Hi",
            "thinking": "Hm.",
            "tool_calls": [
                {"id": "c", "function": {"index": 0, "name": "look", "arguments": {"at": "x"}}}
            ],
        },
        "done": True,
        **NUMBERS,
    }


@pytest.mark.parametrize(
    "result", [{**RESULT, "text": "Hi"}, {**RESULT, "message": {"content": "Hi"}}]
)
def test_a_whole_response_comes_of_a_chat_or_of_a_plain_prompt(result: dict[str, Any]) -> None:
    assert lines.answer(RESPONSE, "m", NOW, result, 0)["response"] == "Hi"


def test_the_reason_is_length_where_it_was() -> None:
    cut = {**RESULT, "text": "Hi", "finish_reason": "length"}
    assert lines.answer(RESPONSE, "m", NOW, cut, 0)["done_reason"] == "length"


def test_log_probabilities_come_with_their_tokens() -> None:
    other = {"id": 2, "token": "b", "bytes": [98], "logprob": -2.0}
    entry = {"id": 1, "token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": [other]}
    line, _last = streamed(MESSAGE, [Delta("a", 1, logprobs=[entry])], alternatives=1)
    told = {"token": "a", "bytes": [97], "logprob": -0.1}
    assert line["logprobs"] == [
        {**told, "top_logprobs": [{"token": "b", "bytes": [98], "logprob": -2.0}]}
    ]
    line, _last = streamed(MESSAGE, [Delta("a", 1, logprobs=[entry])])
    assert line["logprobs"] == [told]


def test_waiting_is_a_line_without_text() -> None:
    line = json.loads(LineWriter(RESPONSE, "m", now=lambda: NOW).waiting("loading"))
    assert (line["response"], line["done"]) == ("", False)


def test_an_error_in_the_middle_is_a_line() -> None:
    writer = LineWriter(MESSAGE, "m")
    assert writer.error(Problem(500, "worker_died", "its process ended")) == (
        b'{"error":"its process ended"}\n'
    )
