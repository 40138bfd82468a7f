"""What the `openai` package reads from streams and answers, without a server between them.

The package lives in an environment of its own (`make .venv-clients`), so a script of it is given
what the face writes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hybridd.http.faces.api import JSON, SSE, Reply, Streamed
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.framing import encode_line
from tests.http.faces.openai.support import (
    CALL,
    ENTRY,
    QUESTION,
    chatted,
    models,
    route,
    written,
)

CLIENTS = Path(__file__).parents[3] / "clients" / "python"
PYTHON = Path(os.environ.get("CLIENTS_VENV", ".venv-clients")).absolute() / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="the clients are not installed: make .venv-clients"
)

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string"}},
            "required": ["at"],
            "additionalProperties": False,
        },
    },
}
FLAT_TOOL = {"type": "function", **TOOL["function"]}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"messages": QUESTION}),
    "completion": ("/completions", {"prompt": "Hi"}),
    "response": ("/responses", {"input": "Hi"}),
    "embeddings": ("/embeddings", {"input": "Hi"}),
}


def read(*cases: Mapping[str, Any]) -> list[Any]:
    """What the package makes of each case."""
    made = subprocess.run(
        [str(PYTHON), str(CLIENTS / "read_openai.py")],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    answers: list[Any] = json.loads(made.stdout)
    return answers


async def stream(
    call: str,
    body: Mapping[str, Any],
    deltas: Sequence[Delta | tuple[int, Delta]],
    *results: Mapping[str, Any],
    fails: Problem | None = None,
) -> dict[str, Any]:
    """A case of a stream; it breaks off after the deltas where it fails."""
    answer = await answered(call, {**body, "stream": True})
    assert isinstance(answer, Streamed)
    data = written(answer.writer, deltas, *results) if not fails else b""
    if fails:
        begun = [answer.writer.begin(), *(answer.writer.delta(0, d) for d in deltas)]
        data = b"".join([*begun, answer.writer.error(fails)])
    # Clients have to take a comment anywhere.
    text = (answer.writer.waiting("loading") + data).decode()
    return {"call": call, "body": body, "answer": text, "media_type": SSE}


async def whole(call: str, body: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """A case of an answer at once."""
    answer = await answered(call, body, result)
    assert isinstance(answer, Reply)
    value = answer.value
    data = value if isinstance(value, bytes) else encode_line(value)
    return {"call": call, "body": body, "answer": data.decode(), "media_type": JSON}


async def answered(call: str, body: Mapping[str, Any], *results: Mapping[str, Any]) -> Any:
    path, named = ASKED[call.partition("_")[0]]
    daemon = models(*(results or [chatted()]))
    return await route(path).handler(daemon.call({"model": "m", **named, **body}))


def fragments() -> list[Delta]:
    """A call as models make it, in parts."""
    function = dict(CALL["function"])
    arguments = function.pop("arguments")
    return [
        Delta("", 1, "hm"),
        Delta("I look.", 1),
        Delta("", 1, None, [{"index": 0, "id": "call_a", "function": function}]),
        *(
            Delta("", 1, None, [{"index": 0, "function": {"arguments": character}}])
            for character in arguments
        ),
    ]


async def test_chats() -> None:
    usage = {"stream_options": {"include_usage": True}}
    told = {"logprobs": True, "top_logprobs": 2}
    entry = Delta("He", 1, None, None, [ENTRY])
    plain, called, several, likely, at_once, broken, died = read(
        await stream("chat_stream", usage, [Delta("Hel", 1), Delta("lo", 1)], chatted("")),
        await stream("chat_stream", {"tools": [TOOL]}, fragments(), chatted("")),
        await stream(
            "chat_stream",
            {"n": 2},
            [(1, Delta("B", 1)), (0, Delta("A", 1))],
            chatted(""),
            chatted("", finish_reason="stop"),
        ),
        await stream("chat_stream", told, [entry, entry], chatted("")),
        await whole("chat", {"n": 1}, chatted("", reasoning="hm", tool_calls=[CALL])),
        await stream(
            "chat_stream", {}, [Delta("Hel", 1)], fails=Problem(500, "worker_died", "it died")
        ),
        await stream("chat_stream", {}, [], fails=Problem(429, "busy", "too much waits")),
    )
    assert plain["read"]["final"]["choices"][0]["message"]["content"] == "Hello"
    assert plain["read"]["final"]["usage"]["total_tokens"] == 23
    assert "content.done" in plain["read"]["events"]

    [choice] = called["read"]["final"]["choices"]
    [made] = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    assert (made["id"], made["function"]["name"]) == ("call_a", "look")
    assert made["function"]["arguments"] == CALL["function"]["arguments"]
    assert made["function"]["parsed_arguments"] == {"at": "it"}
    assert "tool_calls.function.arguments.done" in called["read"]["events"]

    texts = [each["message"]["content"] for each in several["read"]["final"]["choices"]]
    assert texts == ["A", "B"]

    content = likely["read"]["final"]["choices"][0]["logprobs"]["content"]
    assert [each["top_logprobs"][1]["token"] for each in content] == ["Yo", "Yo"]
    assert "logprobs.content.done" in likely["read"]["events"]

    message = at_once["read"]["choices"][0]["message"]
    assert message["tool_calls"] == [CALL]
    assert message["reasoning_content"] == "hm"

    assert (broken["failed"], broken["message"]) == ("APIError", "it died")
    assert (died["failed"], died["message"]) == ("APIError", "too much waits")


async def test_completions() -> None:
    result = {"model": "lab/m", "text": "", "finish_reason": "length", "usage": {}}
    [told] = read(
        await stream("completion_stream", {"echo": True}, [Delta(" you", 1)], result),
    )
    texts = [choice["text"] for chunk in told["read"] for choice in chunk["choices"]]
    assert texts == ["Hi", " you", ""]
    assert told["read"][-1]["choices"][0]["finish_reason"] == "length"


async def test_responses() -> None:
    entry = Delta("He", 1, None, None, [ENTRY])
    logprobs = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    plain, called, likely, cut, failed, at_once = read(
        await stream("response_stream", {}, [Delta("Hel", 1), Delta("lo", 1)], chatted("")),
        await stream("response_stream", {"tools": [FLAT_TOOL]}, fragments(), chatted("")),
        await stream("response_stream", logprobs, [entry], chatted("")),
        await stream("response_events", {}, [Delta("Hel", 1)], chatted("", finish_reason="length")),
        await stream(
            "response_events", {}, [Delta("Hel", 1)], fails=Problem(500, "worker_died", "it died")
        ),
        await whole("response", {}, chatted("Hello", reasoning="hm", tool_calls=[CALL])),
    )
    [item] = plain["read"]["final"]["output"]
    assert item["content"][0]["text"] == "Hello"
    assert plain["read"]["events"][0] == "response.created"
    assert plain["read"]["events"][-1] == "response.completed"

    reasoning, message, call = called["read"]["final"]["output"]
    assert reasoning["content"][0]["text"] == "hm"
    assert message["content"][0]["text"] == "I look."
    assert (call["name"], call["call_id"]) == ("look", "call_a")
    assert call["parsed_arguments"] == {"at": "it"}

    [item] = likely["read"]["final"]["output"]
    assert item["content"][0]["logprobs"][0]["top_logprobs"][1]["token"] == "Yo"

    assert cut["read"][-1]["type"] == "response.incomplete"
    assert cut["read"][-1]["response"]["incomplete_details"]["reason"] == "max_output_tokens"
    assert failed["read"][-1]["type"] == "response.failed"
    assert failed["read"][-1]["response"]["error"]["message"] == "it died"

    assert at_once["read"]["text"] == "Hello"
    assert [item["type"] for item in at_once["read"]["final"]["output"]] == [
        "reasoning",
        "message",
        "function_call",
    ]


async def test_embeddings() -> None:
    result = {"model": "lab/m", "embeddings": ["[0.5,-2]"], "usage": {"prompt_tokens": 3}}
    packed, plain = read(
        # By itself the package asks for base64 and gives numbers.
        {**await whole("embeddings", {"encoding_format": "base64"}, result), "body": {}},
        await whole("embeddings", {"encoding_format": "float"}, result),
    )
    assert plain["read"] == packed["read"] == [[0.5, -2]]
    assert packed["sent"][0]["encoding_format"] == "base64"
