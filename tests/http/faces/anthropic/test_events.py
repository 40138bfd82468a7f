"""The order and the bytes of a streamed message, and that it says what the whole one does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridd.http.faces.anthropic import answers
from hybridd.http.faces.anthropic.events import MessageWriter
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.errors import ContextExceeded

RESULT: dict[str, Any] = {
    "model": "lab/m:Q4_0",
    "message": {"role": "assistant"},
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 20, "completion_tokens": 3, "cached_tokens": 8},
}


def events(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Each event's name and data."""
    read = []
    for part in data.decode().split("\n\n"):
        lines = [line for line in part.split("\n") if line and not line.startswith(":")]
        if lines:
            name, text = lines
            assert name.startswith("event: ")
            assert text.startswith("data: ")
            read.append((name[7:], json.loads(text[6:])))
    return read


def streamed(deltas: list[Delta], result: dict[str, Any] = RESULT) -> bytes:
    writer = MessageWriter("msg_1", "lab/m:Q4_0")
    parts = [writer.begin(), *(writer.delta(0, d) for d in deltas)]
    return b"".join([*parts, writer.end(0, result), writer.finish()])


def names(data: bytes) -> list[str]:
    return [
        name if "block" not in name else f"{name} {fields['index']}"
        for name, fields in events(data)
    ]


def rebuilt(data: bytes) -> dict[str, Any]:
    """The message that a client makes of the events."""
    message: dict[str, Any] = {}
    for name, fields in events(data):
        assert fields["type"] == name
        if name == "message_start":
            message = fields["message"]
        elif name == "content_block_start":
            assert fields["index"] == len(message["content"])
            message["content"].append({**fields["content_block"], "json": ""})
        elif name == "content_block_delta":
            block, delta = message["content"][fields["index"]], fields["delta"]
            field = {
                "text_delta": "text",
                "thinking_delta": "thinking",
                "signature_delta": "signature",
                "input_json_delta": "json",
            }[delta["type"]]
            source = "partial_json" if field == "json" else field
            block[field] += delta[source]
        elif name == "message_delta":
            message |= fields["delta"] | {"usage": fields["usage"]}
    for block in message["content"]:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text or "{}")
    return message


def test_text_comes_in_the_order_that_clients_insist_on() -> None:
    data = streamed([Delta("Hel", 1), Delta("lo", 1)])
    assert names(data) == [
        "message_start",
        "content_block_start 0",
        "ping",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "message_delta",
        "message_stop",
    ]
    assert events(data)[6][1] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 3,
        },
    }


def test_thinking_is_signed_with_nothing_before_the_text_begins() -> None:
    data = streamed([Delta("", 1, "Let me "), Delta("", 1, "see."), Delta("Four", 1)])
    assert names(data)[1:10] == [
        "content_block_start 0",
        "ping",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_stop 1",
    ]
    assert events(data)[5][1]["delta"] == {"type": "signature_delta", "signature": ""}


@pytest.mark.parametrize(
    "deltas",
    [
        [Delta("Hello", 1)],
        [],
        [Delta("", 1, "Hm."), Delta('Yes ☃ \n"quoted"', 2)],
        [Delta("both", 2, "at once")],
        [
            Delta("Looking.", 1),
            Delta("", 1, None, [{"index": 0, "id": "c1", "function": {"name": "look"}}]),
            Delta("", 1, None, [{"index": 0, "function": {"arguments": '{"at":'}}]),
            Delta("", 1, None, [{"index": 0, "function": {"arguments": ' "x"}'}}]),
            Delta("", 1, None, [{"index": 1, "function": {"name": "wait", "arguments": "{}"}}]),
        ],
        [
            Delta(
                "",
                4,
                "Both.",
                [
                    {"id": "a", "function": {"name": "one", "arguments": '{"n":1}'}},
                    {"id": "b", "function": {"name": "two"}},
                ],
            )
        ],
    ],
)
def test_a_stream_makes_the_message_that_would_have_come_whole(deltas: list[Delta]) -> None:
    whole = {**RESULT, "message": Delta.merged(deltas).message()}
    assert rebuilt(streamed(deltas)) == answers.message("msg_1", whole)


def test_each_call_is_a_block_of_its_own_and_the_reason_to_stop() -> None:
    calls = [{"index": i, "id": f"c{i}", "function": {"name": "f"}} for i in range(2)]
    message = rebuilt(streamed([Delta("", 1, None, calls)]))
    assert message["stop_reason"] == "tool_use"
    assert [b["id"] for b in message["content"]] == ["c0", "c1"]
    cut = rebuilt(streamed([Delta("", 1, None, calls)], {**RESULT, "finish_reason": "length"}))
    assert cut["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("most", "reason"),
    [(None, "max_tokens"), (3, "max_tokens"), (64_000, "model_context_window_exceeded")],
)
def test_a_full_context_is_told_from_a_limit_that_was_asked_for(
    most: int | None, reason: str
) -> None:
    cut = {**RESULT, "finish_reason": "length"}
    assert answers.message("msg_1", cut, most)["stop_reason"] == reason
    told = MessageWriter("msg_1", "m", most).end(0, cut)
    assert rebuilt(MessageWriter("msg_1", "m").begin() + told)["stop_reason"] == reason


def test_waiting_is_a_comment_of_one_line() -> None:
    said = MessageWriter("msg_1", "m").waiting("loading m,\nevent: error")
    assert said == b": loading m, event: error\n\n"
    assert events(said) == []


def test_an_error_in_the_middle_is_an_event() -> None:
    writer = MessageWriter("msg_1", "m")
    writer.begin()
    [(name, fields)] = events(writer.error(Problem(429, "busy", "too much waits")))
    assert name == "error"
    assert fields["error"] == {"type": "rate_limit_error", "message": "too much waits"}


def test_a_prompt_that_is_too_long_says_so_in_the_words_that_claude_code_looks_for() -> None:
    error = ContextExceeded("the prompt is long", prompt_tokens=9000, context_length=4096)
    body = answers.error_body(Problem.of(error))
    assert body["error"] == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 9000 tokens > 4096 maximum; the prompt is long",
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (507, "api_error"),
    ],
)
def test_errors_have_anthropics_types(status: int, kind: str) -> None:
    assert answers.error_body(Problem(status, "x", "it failed")) == {
        "type": "error",
        "error": {"type": kind, "message": "it failed"},
    }


def test_arguments_that_are_no_object_are_not_lost() -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": '{"cut": "o'}}
    whole = answers.message("msg_1", {**RESULT, "message": {"tool_calls": [call]}})
    assert whole["content"][0]["input"] == {"arguments": '{"cut": "o'}
