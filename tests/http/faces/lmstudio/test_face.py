"""LM Studio's routes over handlers that stand for OpenAI's, with a manager that is a fake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from hybridd.http.faces import lmstudio
from hybridd.http.faces.api import SSE, Answer, Ask, Call, Face, Handler, Reply, Route, Streamed
from hybridd.http.faces.lmstudio.requests import as_openai
from hybridd.http.faces.shared import events
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.errors import ModelNotFound
from tests.http.faces.support import TIMINGS, USAGE, Models, record

RESULT = {
    "model": "lab/m",
    "text": "Hello",
    "finish_reason": "stop",
    "usage": USAGE,
    "timings": {**TIMINGS, "generation_tokens_per_s": 3.0, "first_token_s": 0.4},
}
LOADED = {
    "id": "lab/m",
    "format": "gguf",
    "status": "loaded",
    "engine": "llama.cpp 0.3.36",
    "context_length": 512,
}
ADDED = {
    "stats": {
        "tokens_per_second": 3.0,
        "time_to_first_token": 0.4,
        "generation_time": 1.0,
        "stop_reason": "eosFound",
    },
    "model_info": {"arch": "llama", "quant": "Q4_0", "format": "gguf", "context_length": 512},
    "runtime": {"name": "llama.cpp", "version": "0.3.36", "supported_formats": ["gguf"]},
}
ASK = Ask("generate", "lab/m", {"prompt": "Hi"})


class Writer:
    """What writes a stream of OpenAI's, in short."""

    media_type = SSE

    def begin(self) -> bytes:
        return b""

    def waiting(self, why: str) -> bytes:
        return events.comment(why)

    def delta(self, index: int, delta: Delta) -> bytes:
        return events.data({"choices": [{"index": index, "text": delta.text}]})

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        return events.data({"choices": [{"index": index, "finish_reason": "stop"}]})

    def finish(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self, problem: Problem) -> bytes:
        return events.data({"error": problem.message})


async def generated(call: Call) -> Answer:
    if call.body.get("stream"):
        return Streamed((ASK,), Writer())
    result = await call.infer(ASK)
    return Reply({"id": "1", "choices": [{"text": result.pop("text")}]})


async def embedded(call: Call) -> Answer:
    return Reply(b'{"data":[]}')


FACE = lmstudio.face(
    Face(
        "openai",
        ("/v1",),
        (
            Route("POST", "/v1/chat/completions", generated, "Chat."),
            Route("POST", "/v1/completions", generated, "Go on."),
            Route("POST", "/v1/embeddings", embedded, "Vectors."),
        ),
        lambda problem: {"error": {"message": problem.message}},
    )
)


def handler(path: str) -> Handler:
    [found] = [route.handler for route in FACE.routes if route.pattern == f"/api/v0{path}"]
    return found


def models(*loaded: Mapping[str, Any]) -> Models:
    made = record("lab/m", quantization="Q4_0", context_length=4096)
    return Models(made, answer=lambda ask: RESULT, loaded=loaded)


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_a_whole_answer_has_numbers_beside(path: str) -> None:
    reply = await handler(path)(models(LOADED).call({}))
    assert isinstance(reply, Reply)
    assert reply.value == {"id": "1", "choices": [{"text": "Hello"}], **ADDED}


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        ({"max_tokens": -1, "stop": "x"}, {"stop": "x"}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"ttl": 60}, {"ttl": 60, "keep_alive": 60}),
        ({"ttl": 60, "keep_alive": "5m"}, {"ttl": 60, "keep_alive": "5m"}),
    ],
)
def test_bodies_become_openais(sent: dict[str, Any], passed: dict[str, Any]) -> None:
    assert as_openai(sent) == passed


async def test_a_streams_last_event_has_them() -> None:
    reply = await handler("/chat/completions")(models(LOADED).call({"stream": True}))
    assert isinstance(reply, Streamed)
    writer = reply.writer
    assert (reply.asks, writer.media_type) == ((ASK,), SSE)
    parts = [
        writer.begin(),
        writer.waiting("loading"),
        writer.delta(0, Delta("Hello", 1)),
        writer.end(0, RESULT),
        writer.finish(),
    ]
    data = [each for each in b"".join(parts).decode().split("\n\n") if each.startswith("data")]
    assert data[-1] == "data: [DONE]"
    told = json.loads(data[-2].removeprefix("data: "))
    assert told == {
        "object": "chat.completion.chunk",
        "model": "lab/m",
        "choices": [],
        **ADDED,
    }
    assert writer.error(Problem(500, "x", "it failed")) == b'data: {"error":"it failed"}\n\n'


async def test_of_a_model_that_was_not_loaded_beforehand_less_is_known() -> None:
    reply = await handler("/completions")(models().call({}))
    assert isinstance(reply, Reply)
    assert reply.value["model_info"]["context_length"] == 4096
    assert "runtime" not in reply.value


async def test_vectors_are_as_they_are() -> None:
    reply = await handler("/embeddings")(models().call({"input": "x"}))
    assert isinstance(reply, Reply)
    assert reply.value == b'{"data":[]}'


async def test_models_are_listed_with_their_state() -> None:
    manager = Models(
        record("lab/e", capabilities=("embedding",)),
        record("lab/m", quantization="Q4_0", context_length=4096),
        record("lab/v", capabilities=("completion", "chat", "tools", "vision")),
        loaded=(LOADED, {"id": "lab/v", "status": "loading"}),
    )
    reply = await handler("/models")(manager.call())
    assert isinstance(reply, Reply)
    first, second, third = reply.value["data"]
    assert (first["type"], first["state"]) == ("embeddings", "not-loaded")
    assert second == {
        "id": "lab/m",
        "object": "model",
        "type": "llm",
        "publisher": "lab",
        "arch": "llama",
        "compatibility_type": "gguf",
        "quantization": "Q4_0",
        "state": "loaded",
        "max_context_length": 4096,
        "capabilities": [],
        "loaded_context_length": 512,
    }
    assert (third["type"], third["state"]) == ("vlm", "not-loaded")
    assert third["capabilities"] == ["tool_use"]
    one = await handler("/models/{id}")(manager.call(id="lab/m"))
    assert isinstance(one, Reply)
    assert one.value == second
    with pytest.raises(ModelNotFound):
        await handler("/models/{id}")(manager.call(id="none"))
