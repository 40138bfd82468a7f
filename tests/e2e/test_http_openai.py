"""OpenAI's API on a real daemon with both demo models, an encoder and a ranker."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import RealDaemon, check_end
from tests.e2e.http_client import Answer, ask, events

GGUF, HF = "hybridd/demo-gguf", "hybridd/demo-hf"
MODELS = pytest.mark.parametrize("model", [GGUF, HF])
QUESTION = "How do I load a model?"
SAID = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """A daemon with both demo models, and what only the echo format has here."""
    daemon = RealDaemon(tmp_path_factory.mktemp("openai"))
    for name, capability in (("encoder", "embedding"), ("ranker", "reranking")):
        file = daemon.models / f"{name}.echo"
        file.write_text(json.dumps({"capabilities": [capability]}))
    (daemon.models / "echo.echo").write_text("{}")
    daemon.start()
    with daemon.client() as client:
        client.rescan()
    yield daemon
    check_end(daemon)


def post(daemon: RealDaemon, path: str, **body: Any) -> Answer:
    return ask(daemon.http_socket, "POST", path, body)


def good(daemon: RealDaemon, path: str, **body: Any) -> Any:
    answer = post(daemon, path, **body)
    assert answer.status == 200, answer.body
    return answer.json


def streamed(daemon: RealDaemon, path: str, **body: Any) -> list[Any]:
    """The data of a stream's events."""
    told = events(daemon.http_socket, "POST", path, {"stream": True, **body})
    return [value for name, value in told if name]


@MODELS
def test_a_chat_is_the_sockets(served: RealDaemon, model: str) -> None:
    sent: dict[str, Any] = {"model": model, "messages": SAID, "temperature": 0, "max_tokens": 10**9}
    whole = good(served, "/v1/chat/completions", **sent)
    with served.client() as client:
        expected = client.chat(model, SAID, temperature=0)
    [choice] = whole["choices"]
    assert choice["message"]["content"] == expected.text
    assert choice["finish_reason"] == expected.finish_reason
    told = streamed(served, "/chat/completions", **sent, stream_options={"include_usage": True})
    texts = [c["delta"].get("content", "") for each in told[:-1] for c in each["choices"]]
    assert "".join(texts) == expected.text
    assert told[-2]["usage"]["completion_tokens"] == expected.usage.completion_tokens
    assert told[-1] == "[DONE]"
    response = good(served, "/v1/responses", model=model, input=QUESTION, temperature=0)
    assert response["output"][0]["content"][0]["text"] == expected.text


@MODELS
def test_tokens_are_a_prompt_too(served: RealDaemon, model: str) -> None:
    tokens = good(served, "/tokenize", model=model, content="To load a model,")["tokens"]
    sent = {"model": model, "temperature": 0, "max_tokens": 4}
    plain = good(served, "/v1/completions", prompt="To load a model,", **sent)
    both = good(served, "/v1/completions", prompt=[tokens, tokens], echo=True, **sent)
    text = "To load a model," + plain["choices"][0]["text"]
    assert [choice["text"] for choice in both["choices"]] == [text, text]
    assert both["usage"]["prompt_tokens"] == 2 * plain["usage"]["prompt_tokens"]


@MODELS
def test_log_probabilities(served: RealDaemon, model: str) -> None:
    sent = {"model": model, "temperature": 0}
    body = {**sent, "messages": SAID, "max_tokens": 3, "logprobs": True, "top_logprobs": 2}
    whole = good(served, "/v1/chat/completions", **body)["choices"][0]
    told = streamed(served, "/v1/chat/completions", **body)
    in_stream = [
        entry
        for each in told[:-1]
        for choice in each["choices"]
        for entry in (choice.get("logprobs") or {"content": []})["content"]
    ]
    for entries in (whole["logprobs"]["content"], in_stream):
        assert "".join(entry["token"] for entry in entries) == whole["message"]["content"]
        assert [len(entry["top_logprobs"]) for entry in entries] == [2, 2, 2]
    include = ["message.output_text.logprobs"]
    body = {**sent, "input": QUESTION, "max_output_tokens": 3, "include": include}
    response = good(served, "/v1/responses", **body)
    assert response["status"] == "incomplete"
    [part] = response["output"][0]["content"]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]


def test_seeded_choices_differ_and_come_again(served: RealDaemon) -> None:
    wild = {"temperature": 10, "top_p": 1, "top_k": 0, "min_p": 0}
    body = {"model": GGUF, "messages": SAID, "n": 3, "max_tokens": 12, "seed": 4, **wild}
    first, again = (
        [c["message"]["content"] for c in good(served, "/v1/chat/completions", **body)["choices"]]
        for _ in range(2)
    )
    assert first == again
    assert len(set(first)) == 3


def test_more_prompts_than_a_queue_holds(served: RealDaemon) -> None:
    prompts = [f"number {index}" for index in range(600)]
    made = good(served, "/v1/completions", model="echo", prompt=prompts)
    assert [choice["text"] for choice in made["choices"]] == prompts


def test_what_codex_does_to_load_a_model(served: RealDaemon) -> None:
    listed = ask(served.http_socket, "GET", "/v1/models").json
    assert {GGUF, HF} <= {model["id"] for model in listed["data"]}
    made = good(served, "/v1/responses", model=GGUF, input="", max_output_tokens=1)
    assert made["status"] == "incomplete"
    shown = ask(served.http_socket, "GET", f"/v1/models/{GGUF.replace('/', '%2F')}").json
    assert (shown["id"], shown["status"], shown["context_length"]) == (GGUF, "loaded", 1024)


@MODELS
def test_what_codex_sends(served: RealDaemon, model: str) -> None:
    """Its fields; tools are left out, for the demo models' templates know none."""
    told = streamed(
        served,
        "/v1/responses",
        model=model,
        instructions="You are Codex.",
        input=[
            {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
            for role, text in (("developer", "Be brief."), ("user", QUESTION))
        ],
        tools=[{"type": "web_search"}],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        client_metadata={"a": "b"},
    )
    assert told[0]["type"] == "response.created"
    assert told[-1]["type"] == "response.completed"
    assert told[-1]["response"]["id"] == told[0]["response"]["id"]


def test_a_response_streams_in_order(served: RealDaemon) -> None:
    told = streamed(served, "/v1/responses", model=GGUF, input=QUESTION, temperature=0)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    kinds = [event["type"].removeprefix("response.") for event in told]
    begin = ["created", "in_progress", "output_item.added", "content_part.added"]
    end = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert kinds == [*begin, *["output_text.delta"] * (len(kinds) - 8), *end]
    text = "".join(event["delta"] for event in told[4:-4])
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == text


def test_vectors(served: RealDaemon) -> None:
    tokens = good(served, "/tokenize", model="encoder", content="one two")["tokens"]
    sent: dict[str, Any] = {"model": "encoder", "input": ["one two", "three"]}
    plain = good(served, "/v1/embeddings", **sent)
    packed = good(served, "/v1/embeddings", **sent, encoding_format="base64")
    of_tokens = good(served, "/v1/embeddings", model="encoder", input=tokens)
    for each, other in zip(plain["data"], packed["data"], strict=True):
        data = base64.b64decode(other["embedding"])
        numbers = struct.unpack(f"<{len(data) // 4}f", data)
        assert numbers == pytest.approx(each["embedding"])
    assert of_tokens["data"][0]["embedding"] == plain["data"][0]["embedding"]


def test_reranking(served: RealDaemon) -> None:
    documents = ["grass is green", {"text": "load a model"}]
    sent: dict[str, Any] = {"model": "ranker", "query": "load the model", "documents": documents}
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        made = good(served, path, **sent, return_documents=True, top_n=1)
        [best] = made["results"]
        assert (best["index"], best["document"]) == (1, {"text": "load a model"})


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("/v1/chat/completions", {"model": "none"}, 404, "model_not_found", None),
        ("/v1/chat/completions", {"temperature": "hot"}, 400, "invalid_params", "temperature"),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "json_object"}},
            400,
            "unsupported",
            None,
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "word " * 3000}]},
            400,
            "context_length_exceeded",
            None,
        ),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}, 400, "unsupported", None),
        ("/v1/responses", {"input": "a", "previous_response_id": "r"}, 400, "unsupported", None),
        ("/v1/embeddings", {"input": "a"}, 400, "unsupported", None),
        ("/v1/nothing", {}, 404, "not_found", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(
    served: RealDaemon,
    path: str,
    body: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
    stream: bool,
) -> None:
    answer = post(served, path, **{"model": GGUF, "messages": SAID, "stream": stream, **body})
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert error["message"]
