"""A streamed response, in the order of events that clients insist on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.http.faces.openai.response_stream import ResponseWriter
from hybridd.http.faces.openai.response_whole import Response
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from tests.http.faces.openai.support import (
    ENTRY,
    SHOWN_ENTRY,
    chatted,
    events,
    streamed,
    written,
)

BODY = {
    "tools": [
        {"type": "namespace", "name": "mcp__a", "tools": [{"type": "function", "name": "read"}]}
    ]
}
WHOLE = Response("resp_1", 0, "lab/m", BODY, 1)


def told(*deltas: Delta, **result: Any) -> list[Any]:
    """The events of a stream, numbered without a gap."""
    data = written(ResponseWriter(WHOLE), deltas, chatted("", **result))
    made = events(data)
    assert [each.pop("sequence_number") for each in made] == list(range(len(made)))
    return made


def types(made: list[Any]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in made]


def fragment(number: int, **function: str) -> Delta:
    more = {"id": f"call_{number}"} if "name" in function else {}
    return Delta("", 1, None, [{"index": number, **more, "function": function}])


async def test_a_text_from_begin_to_end() -> None:
    answer = await streamed("/responses", {"input": "Hi"})
    made = events(written(answer.writer, [Delta("Hel", 1), Delta('%"lo', 1)], chatted("")))
    assert types(made) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    place = {"item_id": "msg_1_0", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": 'Hel%"lo', "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1_0", "role": "assistant"}
    done = {**item, "status": "completed", "content": [part]}
    begun = {**item, "status": "in_progress", "content": []}
    assert made[2:9] == [
        {"type": f"response.{name}", "sequence_number": number, **told}
        for number, (name, told) in enumerate(
            [
                ("output_item.added", {"output_index": 0, "item": begun}),
                ("content_part.added", {**place, "part": {**part, "text": ""}}),
                ("output_text.delta", {**place, "logprobs": [], "delta": "Hel"}),
                ("output_text.delta", {**place, "logprobs": [], "delta": '%"lo'}),
                ("output_text.done", {**place, "text": 'Hel%"lo', "logprobs": []}),
                ("content_part.done", {**place, "part": part}),
                ("output_item.done", {"output_index": 0, "item": done}),
            ],
            start=2,
        )
    ]
    begin, end = made[0]["response"], made[9]["response"]
    assert (begin["id"], begin["status"], begin["output"]) == ("resp_1", "in_progress", [])
    assert begin["usage"] is None
    assert (end["id"], end["status"], end["output"]) == ("resp_1", "completed", [done])
    assert end["usage"]["total_tokens"] == 23


def test_a_thought_then_a_text() -> None:
    made = told(Delta("", 1, "h"), Delta("", 1, "m"), Delta("Hello", 1))
    assert types(made)[2:9] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert made[6]["text"] == "hm"
    reasoning, message = made[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert message["id"] == "msg_1_1"
    assert [each["output_index"] for each in made if "output_index" in each][-1] == 1


def test_calls_with_arguments_in_fragments() -> None:
    made = told(
        Delta("I look.", 1),
        fragment(0, name="look"),
        fragment(0, arguments='{"at":'),
        fragment(0, arguments='"it"}'),
        fragment(1, name="mcp__a__read", arguments="{}"),
    )
    assert types(made)[8:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    added = {
        "type": "function_call",
        "id": "fc_1_1",
        "call_id": "call_0",
        "name": "look",
        "arguments": "",
        "status": "in_progress",
    }
    assert made[8]["item"] == added
    assert made[9] == {
        "type": "response.function_call_arguments.delta",
        "item_id": "fc_1_1",
        "output_index": 1,
        "delta": '{"at":',
    }
    assert made[11] == {
        "type": "response.function_call_arguments.done",
        "item_id": "fc_1_1",
        "output_index": 1,
        "name": "look",
        "arguments": '{"at":"it"}',
    }
    message, first, second = made[-1]["response"]["output"]
    assert message["content"][0]["text"] == "I look."
    assert first == {**added, "arguments": '{"at":"it"}', "status": "completed"}
    assert (second["namespace"], second["name"], second["arguments"]) == ("mcp__a", "read", "{}")
    assert made[13]["item"]["namespace"] == "mcp__a"


def test_log_probabilities() -> None:
    delta = Delta("He", 1, None, None, [ENTRY])
    made = told(delta, delta)
    assert made[4]["logprobs"] == [SHOWN_ENTRY]
    assert made[4]["delta"] == "He"
    assert made[6]["logprobs"] == [SHOWN_ENTRY] * 2
    assert made[-1]["response"]["output"][0]["content"][0]["logprobs"] == [SHOWN_ENTRY] * 2


def test_nothing_is_an_empty_text() -> None:
    made = told(Delta("", 1))
    assert types(made)[2:4] == ["output_item.added", "content_part.added"]
    assert made[-1]["response"]["output"][0]["content"][0]["text"] == ""


@pytest.mark.parametrize("deltas", [[], [Delta("Hel", 1)]])
def test_a_cut_response_is_incomplete(deltas: list[Delta]) -> None:
    made = told(*deltas, finish_reason="length")
    assert types(made)[-1] == "incomplete"
    assert made[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert made[-1]["response"]["output"][0]["status"] == "incomplete"


def test_a_failure_in_the_middle() -> None:
    writer = ResponseWriter(WHOLE)
    data = [writer.begin(), writer.delta(0, Delta("Hel", 1))]
    problem = Problem(500, "worker_died", "it is gone")
    made = events(b"".join([*data, writer.error(problem)]))
    assert types(made)[-1] == "failed"
    response = made[-1]["response"]
    assert response["status"] == "failed"
    assert response["error"] == {"code": "worker_died", "message": "it is gone"}


def test_waiting_is_a_comment() -> None:
    assert ResponseWriter(WHOLE).waiting("loading m") == b": loading m\n\n"


DELTAS = some.lists(
    some.one_of(
        some.text(max_size=4).map(lambda text: Delta(text, 1)),
        some.text(max_size=4).map(lambda text: Delta("", 1, text)),
        some.tuples(some.text(max_size=4), some.text(max_size=4)).map(
            lambda both: Delta(both[0], 1, both[1])
        ),
        some.text(max_size=4).map(lambda text: Delta(text, 1, None, None, [ENTRY])),
    ),
    max_size=8,
)


@given(DELTAS)
def test_whatever_comes_each_item_is_added_grows_and_is_done(deltas: list[Delta]) -> None:
    made = told(*deltas)
    items: list[dict[str, Any]] = []
    grown = ""
    for each in made[2:-1]:
        assert each["output_index"] == len(items)
        if each["type"] == "response.output_item.added":
            grown = ""
        elif each["type"].endswith(".delta"):
            grown += each["delta"]
        elif each["type"].endswith("_text.done"):
            assert each["text"] == grown
        elif each["type"] == "response.output_item.done":
            assert each["item"]["content"][0]["text"] == grown
            items.append(each["item"])
    assert made[-1]["response"]["output"] == items
    whole = Delta.merged([Delta(), *deltas])
    of_kind = {
        kind: "".join(item["content"][0]["text"] for item in items if item["type"] == kind)
        for kind in ("message", "reasoning")
    }
    assert of_kind == {"message": whole.text, "reasoning": whole.reasoning or ""}
