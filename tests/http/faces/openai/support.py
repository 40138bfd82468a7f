"""What tests of OpenAI's face ask and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from hybridd.http.faces.api import Ask, Call, Reply, Route, Streamed, Writer
from hybridd.http.faces.openai import FACE
from hybridd.wire.delta import Delta
from tests.http.faces.support import TIMINGS, USAGE, Models, record

QUESTION = [{"role": "user", "content": "Hi"}]
ENTRY = {
    "id": 7,
    "token": "He",
    "bytes": [72, 101],
    "logprob": -0.25,
    "top_logprobs": [
        {"id": 7, "token": "He", "bytes": [72, 101], "logprob": -0.25},
        {"id": 9, "token": "Yo", "bytes": [89, 111], "logprob": -2.0},
    ],
}
SHOWN_ENTRY = {
    "token": "He",
    "bytes": [72, 101],
    "logprob": -0.25,
    "top_logprobs": [{"token": "He", "bytes": [72, 101], "logprob": -0.25}],
}
CALL = {
    "id": "call_a",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at":"it"}'},
}


def route(path: str) -> Route:
    """The route of a path below /v1."""
    [found] = [each for each in FACE.routes if each.pattern == f"/v1{path}"]
    return found


def chatted(content: str = "Hello", **more: Any) -> dict[str, Any]:
    """A chat's result; what is no field of a result is one of its message."""
    own = {n: more.pop(n) for n in ("finish_reason", "logprobs", "usage") if n in more}
    message = {"role": "assistant", "content": content, **more}
    ended = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}
    return {"model": "lab/m", "message": message, **ended, **own}


def models(*results: Mapping[str, Any]) -> Models:
    """A manager with one model, `m`, which answers these, one after the other."""
    left = list(results)

    def answer(ask: Ask) -> Mapping[str, Any]:
        return left.pop(0) if len(left) > 1 else left[0]

    made = Models(record("m"), answer=answer)
    made.records["m"] = record("lab/m")
    return made


async def replied(path: str, daemon: Models, body: Any, **query: str) -> Any:
    """The JSON of an answer, which is as its schema says."""
    at = route(path)
    answer = await at.handler(daemon.call(body, query))
    assert isinstance(answer, Reply)
    value = json.loads(answer.value) if isinstance(answer.value, bytes) else answer.value
    assert at.result is not None
    Draft202012Validator(dict(at.result)).validate(value)
    return value


async def asked(path: str, body: Mapping[str, Any]) -> Ask:
    """What a body, which is as its schema says, asks of the model."""
    at = route(path)
    whole = {"model": "m", **body}
    assert at.body is not None
    Draft202012Validator(dict(at.body)).validate(whole)
    daemon = models(chatted() | {"text": "Hello", "results": [], "embeddings": ["[1]"]})
    answer = await at.handler(daemon.call(whole))
    return answer.asks[0] if isinstance(answer, Streamed) else daemon.asked[0]


async def streamed(path: str, body: Mapping[str, Any], daemon: Models | None = None) -> Streamed:
    """The streamed answer of a body."""
    call: Call = (daemon or models(chatted())).call({"model": "m", "stream": True, **body})
    answer = await route(path).handler(call)
    assert isinstance(answer, Streamed)
    return answer


def written(
    writer: Writer, deltas: Sequence[Delta | tuple[int, Delta]], *results: Mapping[str, Any]
) -> bytes:
    """A whole stream: these deltas, of choice 0 where no other is named, then the results."""
    sent = [writer.begin()]
    for each in deltas:
        index, delta = each if isinstance(each, tuple) else (0, each)
        sent.append(writer.delta(index, delta))
    sent += [writer.end(index, result) for index, result in enumerate(results)]
    return b"".join([*sent, writer.finish()])


def events(data: bytes) -> list[Any]:
    """The data of server-sent events, each with its name where it has one; [DONE] as a text."""
    assert data.endswith(b"\n\n")
    found = []
    for block in data.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        value = lines.pop("data")
        parsed = value if value == "[DONE]" else json.loads(value)
        if "event" in lines:
            assert parsed["type"] == lines.pop("event")
        assert not lines
        found.append(parsed)
    return found
