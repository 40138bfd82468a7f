"""Ollama's routes, with a manager that is a fake."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from hybridd.http.faces.api import NDJSON, Ask, Reply, Streamed
from hybridd.http.faces.ollama import FACE, handlers
from hybridd.wire.errors import ContextExceeded, InvalidParams, ModelNotFound, Unsupported
from tests.http.faces.support import TIMINGS, USAGE, Models, generates, record
from tests.http.support import FakeManager, answered

SAID = [{"role": "user", "content": "Hi"}]
ENDED = {"finish_reason": "stop", "usage": USAGE, "timings": TIMINGS}


def answer(ask: Ask) -> Mapping[str, Any]:
    if ask.kind == "chat":
        return {"message": {"role": "assistant", "content": "Hello"}, **ENDED}
    return {"text": "Hello", **ENDED}


def models(**facts: Any) -> Models:
    return Models(record("lab/m:Q4_0", **facts), answer=answer)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "lab/m:Q4_0", "stream": False, **fields}


async def whole(handler: Any, daemon: Models, sent: dict[str, Any]) -> Any:
    reply = await handler(daemon.call(sent))
    assert isinstance(reply, Reply)
    return json.loads(reply.value) if isinstance(reply.value, bytes) else reply.value


async def test_a_chat_is_streamed_unless_it_is_asked_for_whole() -> None:
    daemon = models()
    reply = await handlers.chat(daemon.call({"model": "lab/m:Q4_0", "messages": SAID}))
    assert isinstance(reply, Streamed)
    assert reply.writer.media_type == NDJSON
    told = await whole(handlers.chat, daemon, body(messages=SAID))
    assert told["message"] == {"role": "assistant", "content": "Hello"}
    assert (told["model"], told["done"], told["done_reason"]) == ("lab/m:Q4_0", True, "stop")
    assert daemon.asked[0] == reply.asks[0]


async def test_what_langchain_sends_is_understood() -> None:
    daemon = models()
    nulls = dict.fromkeys(("mirostat", "num_ctx", "num_predict", "temperature", "stop", "seed"))
    sent = body(messages=SAID, tools=[], options=nulls, format="", think=None, keep_alive=None)
    await whole(handlers.chat, daemon, sent)
    [ask] = daemon.asked
    assert ask == Ask(
        "chat",
        "lab/m:Q4_0",
        {"messages": SAID, "tools": None, "chat_template_kwargs": {}},
    )


async def test_what_a_chat_wants_is_asked() -> None:
    daemon = models()
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    sent = body(
        messages=SAID,
        tools=tools,
        think=False,
        options={"temperature": 0, "num_predict": 9, "num_ctx": 2048},
        keep_alive=-1,
        logprobs=True,
        top_logprobs=2,
        shift=True,
    )
    await whole(handlers.chat, daemon, sent)
    [ask] = daemon.asked
    assert ask.request["tools"] == tools
    assert ask.request["chat_template_kwargs"] == {"enable_thinking": False}
    assert ask.options == {
        "temperature": 0,
        "max_tokens": 9,
        "logprobs": 2,
        "context_shift": True,
    }
    assert (ask.load_options, ask.keepalive) == ({"context_length": 2048}, math.inf)


async def test_a_prompt_is_a_conversation_where_the_model_has_a_template() -> None:
    daemon = models()
    told = await whole(handlers.generate, daemon, body(prompt="Hi", system="Be kind."))
    assert told["response"] == "Hello"
    assert daemon.asked[0].request["messages"] == [
        {"role": "system", "content": "Be kind."},
        *SAID,
    ]


@pytest.mark.parametrize(
    ("facts", "more"), [({}, {"raw": True}), ({"capabilities": ("completion",)}, {})]
)
async def test_a_prompt_goes_as_it_is_where_raw_or_without_a_template(
    facts: dict[str, Any], more: dict[str, Any]
) -> None:
    daemon = models(**facts)
    told = await whole(handlers.generate, daemon, body(prompt="Hi", context=[1, 2], **more))
    assert told["response"] == "Hello"
    assert daemon.asked[0].kind == "generate"
    assert daemon.asked[0].request == {"prompt": "Hi", "special": "raw" in more}


@pytest.mark.parametrize(
    ("more", "capability"),
    [
        ({"suffix": "x"}, "infill"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"format": "json"}, "response_format"),
        ({"format": {"type": "object"}}, "response_format"),
        ({"raw": True, "system": "Be kind."}, "raw"),
        ({"options": {"mirostat": 2}}, "mirostat"),
    ],
)
async def test_what_cannot_be_done_yet_is_refused_by_name(
    more: dict[str, Any], capability: str
) -> None:
    with pytest.raises(Unsupported) as refused:
        await handlers.generate(models().call(body(prompt="Hi", **more)))
    assert refused.value.data["capability"] == capability


@pytest.mark.parametrize("prompt", [{}, {"prompt": ""}, {"prompt": None}])
async def test_without_a_prompt_the_model_is_loaded(prompt: dict[str, Any]) -> None:
    daemon = models()
    sent = {"model": "lab/m:Q4_0", "keep_alive": "5m", "options": {"num_ctx": 512}, **prompt}
    told = await whole(handlers.generate, daemon, sent)
    assert (told["response"], told["done"], told["done_reason"]) == ("", True, "load")
    wanted = {"load_options": {"context_length": 512}, "keepalive": 300.0}
    assert daemon.moved == [("load", "lab/m:Q4_0", wanted)]


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", 0.0])
async def test_without_messages_and_not_kept_alive_it_is_unloaded(keep_alive: Any) -> None:
    daemon = models()
    told = await whole(handlers.chat, daemon, body(messages=[], keep_alive=keep_alive))
    assert told["message"] == {"role": "assistant", "content": ""}
    assert told["done_reason"] == "unload"
    assert [(what, name) for what, name, _ in daemon.moved] == [("unload", "lab/m:Q4_0")]


async def test_latest_is_what_clients_add_to_a_name_without_a_tag() -> None:
    daemon = Models(record("m"), answer=answer)
    told = await whole(handlers.chat, daemon, body(model="m:latest", messages=SAID))
    assert told["model"] == "m:latest"
    assert daemon.asked[0].model == "m"
    with pytest.raises(ModelNotFound):
        await handlers.chat(daemon.call(body(model="n:latest", messages=SAID)))


async def test_a_duration_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(InvalidParams) as refused:
        await handlers.chat(models().call(body(messages=SAID, keep_alive="soon")))
    assert refused.value.data["field"] == "keep_alive"


# ------------------------------------------------------------------ embeddings


class Encoder:
    """An encoder of at most eight characters, each a token, and two that it adds."""

    def __call__(self, ask: Ask) -> Mapping[str, Any]:
        if ask.kind == "tokenize":
            return {"tokens": [ord(c) for c in ask.request["text"]]}
        if ask.kind == "detokenize":
            return {"text": "".join(chr(t) for t in ask.request["tokens"])}
        for index, text in enumerate(ask.request["input"]):
            if len(text) + 2 > 8:
                raise ContextExceeded(
                    "too long", prompt_tokens=len(text) + 2, context_length=8, index=index
                )
        vectors = [f"[{float(len(text))}]" for text in ask.request["input"]]
        return {"embeddings": vectors, "usage": {"prompt_tokens": 7}}


def encoder() -> Models:
    return Models(record("lab/m:Q4_0", capabilities=("embedding",)), answer=Encoder())


async def test_texts_become_vectors() -> None:
    daemon = encoder()
    told = await whole(handlers.embed, daemon, body(input=["a", "bc"], dimensions=1))
    assert told["embeddings"] == [[1.0], [2.0]]
    assert told["prompt_eval_count"] == 7
    assert told["total_duration"] >= 0
    asked = {"input": ["a", "bc"], "dimensions": 1, "normalize": True}
    assert daemon.asked[0].request == asked
    assert (await whole(handlers.embed, daemon, body(input="abc")))["embeddings"] == [[3.0]]


async def test_a_prompts_vector_is_as_the_model_makes_it() -> None:
    daemon = encoder()
    assert await whole(handlers.embeddings, daemon, body(prompt="ab")) == {"embedding": [2.0]}
    assert daemon.asked[0].request["normalize"] is False


async def test_a_text_that_is_too_long_is_cut() -> None:
    daemon = encoder()
    told = await whole(handlers.embed, daemon, body(input=["a", "0123456789", "b" * 99]))
    assert told["embeddings"] == [[1.0], [6.0], [6.0]]
    assert daemon.asked[-1].request["input"] == ["a", "012345", "b" * 6]


async def test_a_text_that_grows_when_it_is_cut_is_cut_more() -> None:
    inner = Encoder()

    def grows(ask: Ask) -> Mapping[str, Any]:
        if ask.kind == "detokenize":
            return {"text": inner(ask)["text"] + "+"}
        return inner(ask)

    daemon = Models(record("lab/m:Q4_0"), answer=grows)
    told = await whole(handlers.embed, daemon, body(input="0123456789"))
    assert told["embeddings"] == [[6.0]]


async def test_a_text_that_cannot_be_cut_enough_is_an_error() -> None:
    def never(ask: Ask) -> Mapping[str, Any]:
        if ask.kind != "embed":
            return Encoder()(ask)
        raise ContextExceeded("too long", prompt_tokens=12, context_length=8, index=0)

    with pytest.raises(ContextExceeded):
        await handlers.embed(
            Models(record("lab/m:Q4_0"), answer=never).call(body(input="0123456789"))
        )


async def test_a_text_is_not_cut_where_that_is_not_wanted() -> None:
    with pytest.raises(ContextExceeded):
        await handlers.embed(encoder().call(body(input="0123456789", truncate=False)))


@pytest.mark.parametrize("given", [{"input": []}, {"input": ""}, {}])
async def test_without_texts_the_model_is_loaded(given: dict[str, Any]) -> None:
    daemon = encoder()
    told = await whole(handlers.embed, daemon, body(**given))
    assert told == {"model": "lab/m:Q4_0", "embeddings": []}
    assert await whole(handlers.embeddings, daemon, body(prompt="")) == {"embedding": []}
    assert [what for what, _, _ in daemon.moved] == ["load", "load"]


# ------------------------------------------------------------------ through the gateway


class Chatting(FakeManager):
    async def find(self, name: str) -> Any:
        await super().find(name)
        return record(name)


async def test_lines_and_errors_through_the_gateway() -> None:
    manager = Chatting(generates("Hel", "lo"))
    got = await answered(
        [FACE], "POST", "/api/chat", {"model": "m", "messages": SAID}, manager=manager
    )
    assert (got.status, got.headers["content-type"]) == (200, NDJSON)
    lines = [json.loads(line) for line in b"".join(got.stream.pieces).splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Hello"
    assert [line["done"] for line in lines[-2:]] == [False, True]
    refused = await answered(
        [FACE], "POST", "/api/chat", {"model": "none", "messages": SAID}, manager=manager
    )
    assert (refused.status, refused.json) == (404, {"error": "no none"})
    refused = await answered([FACE], "POST", "/api/generate", {"prompt": "Hi"}, manager=manager)
    assert refused.status == 400
    assert "model" in refused.json["error"]
