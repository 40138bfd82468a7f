"""Anthropic's, Ollama's and llama-server's APIs on a real daemon with both demo models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import RealDaemon, check_end
from tests.e2e.http_client import Answer, ask, connection, events

GGUF, HF = "hybridd/demo-gguf", "hybridd/demo-hf"
MODELS = pytest.mark.parametrize("model", [GGUF, HF])
SAID = [{"role": "user", "content": "How do I load a model?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """A daemon that knows names of Anthropic's and an encoder of at most eight tokens."""
    daemon = RealDaemon(tmp_path_factory.mktemp("faces"), HYBRIDD_HTTP_MODEL_MAP=f"claude-*={GGUF}")
    short = {"capabilities": ["embedding"], "context_length": 8}
    (daemon.models / "short.echo").write_text(json.dumps(short))
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


def streamed(daemon: RealDaemon, path: str, **body: Any) -> list[tuple[str, Any]]:
    told = events(daemon.http_socket, "POST", path, {"stream": True, **body})
    return [(name, value) for name, value in told if name]


# ------------------------------------------------------------------ Anthropic


@MODELS
def test_a_message_whole_and_streamed(served: RealDaemon, model: str) -> None:
    sent = {"model": model, "max_tokens": 64_000, "messages": SAID, "temperature": 0}
    whole = good(served, "/v1/messages?beta=true", **sent)
    assert (whole["model"], whole["stop_reason"]) == (model, "end_turn")
    [block] = whole["content"]
    told = streamed(served, "/v1/messages?beta=true", **sent)
    texts = [v["delta"]["text"] for n, v in told if n == "content_block_delta"]
    assert "".join(texts) == block["text"]
    assert [name for name, _ in told][:3] == ["message_start", "content_block_start", "ping"]
    assert [name for name, _ in told][-3:] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    used = told[-2][1]["usage"]
    asked = used["input_tokens"] + used["cache_read_input_tokens"]
    counted = good(served, "/v1/messages/count_tokens", model=model, messages=SAID)
    assert counted == {"input_tokens": asked}


def test_what_claude_code_sends(served: RealDaemon) -> None:
    """Its fields; tools are left out, for the demo models' templates know none."""
    told = streamed(
        served,
        "/v1/messages?beta=true",
        model="claude-opus-5",
        max_tokens=64_000,
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        messages=[{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}],
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        metadata={"user_id": "u"},
    )
    assert told[0][1]["message"]["model"] == GGUF
    assert told[-1] == ("message_stop", {"type": "message_stop"})


def test_a_full_context_is_told_from_a_limit(served: RealDaemon) -> None:
    sent: dict[str, Any] = {"model": GGUF, "messages": SAID, "temperature": 0}
    cut = good(served, "/v1/messages", max_tokens=2, **sent)
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 2)
    long = [{"role": "user", "content": "word " * 3000}]
    refused = post(served, "/v1/messages", model=GGUF, max_tokens=9, messages=long)
    assert refused.status == 400
    assert refused.json["error"]["type"] == "invalid_request_error"
    assert refused.json["error"]["message"].startswith("prompt is too long: ")


def test_tools_of_a_model_that_knows_none_are_refused_by_name(served: RealDaemon) -> None:
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    refused = post(served, "/v1/messages", model=GGUF, messages=SAID, tools=tools, stream=True)
    assert refused.status == 400
    assert "knows no tools" in refused.json["error"]["message"]


# ------------------------------------------------------------------ Ollama


def lines(daemon: RealDaemon, path: str, **body: Any) -> list[dict[str, Any]]:
    link = connection(daemon.http_socket)
    try:
        sent = {"Content-Type": "application/json"}
        link.request("POST", path, json.dumps(body).encode(), sent)
        response = link.getresponse()
        assert response.status == 200
        return [json.loads(line) for line in response]
    finally:
        link.close()


@MODELS
def test_a_chat_whole_and_in_lines(served: RealDaemon, model: str) -> None:
    sent = {"model": model, "messages": SAID, "options": {"temperature": 0, "num_ctx": None}}
    whole = good(served, "/api/chat", stream=False, **sent)
    told = lines(served, "/api/chat", **sent)
    assert "".join(line["message"]["content"] for line in told) == whole["message"]["content"]
    assert [line["done"] for line in told[-2:]] == [False, True]
    assert told[-1]["eval_count"] == whole["eval_count"] > 0
    prompt = good(
        served,
        "/api/generate",
        model=model,
        prompt=SAID[0]["content"],
        stream=False,
        options=sent["options"],
    )
    assert prompt["response"] == whole["message"]["content"]


@MODELS
def test_a_raw_prompt_has_the_templates_tokens_in_it(served: RealDaemon, model: str) -> None:
    prompt = good(served, "/apply-template", model=model, messages=SAID)["prompt"]
    assert "<|im_start|>" in prompt
    greedy = {"temperature": 0, "num_predict": 30}
    chat = good(served, "/api/chat", model=model, messages=SAID, stream=False, options=greedy)
    raw = good(
        served, "/api/generate", model=model, prompt=prompt, raw=True, stream=False, options=greedy
    )
    assert raw["response"] == chat["message"]["content"]
    assert raw["prompt_eval_count"] == chat["prompt_eval_count"]
    made = good(served, "/completion", model=model, prompt=prompt, n_predict=30, temperature=0)
    assert made["content"] == raw["response"]


def test_loading_listing_and_unloading(served: RealDaemon) -> None:
    told = good(served, "/api/generate", model=HF, keep_alive=-1)
    assert told["done_reason"] == "load"
    running = ask(served.http_socket, "GET", "/api/ps").json["models"]
    assert running[[each["name"] for each in running].index(HF)]["size"] > 0
    told = good(served, "/api/chat", model=HF, messages=[], keep_alive=0)
    assert told["done_reason"] == "unload"
    running = ask(served.http_socket, "GET", "/api/ps").json["models"]
    assert HF not in [each["name"] for each in running]
    names = [each["name"] for each in ask(served.http_socket, "GET", "/api/tags").json["models"]]
    assert {GGUF, HF, "short"} <= set(names)


@MODELS
def test_show_has_the_same_names_for_every_format(served: RealDaemon, model: str) -> None:
    info = good(served, "/api/show", model=model)["model_info"]
    assert info["general.architecture"] == "llama"
    assert (info["llama.context_length"], info["llama.embedding_length"]) == (1024, 192)
    assert info["general.parameter_count"] == 2_558_400


def test_a_text_that_an_encoder_does_not_take_is_cut_as_it_is_there(served: RealDaemon) -> None:
    """The echo format's tokens of a text are others than its encoder's; so it is cut in tries."""
    words = " ".join("abcdefghijklmnop")
    told = good(served, "/api/embed", model="short", input=["one", words])
    assert [len(vector) for vector in told["embeddings"]] == [32, 32]
    refused = post(served, "/api/embed", model="short", input=words, truncate=False)
    assert refused.status == 400
    one = good(served, "/api/embeddings", model="short", prompt="one")["embedding"]
    assert one == [round(each) for each in one]  # sums, of no length in particular


def test_what_is_not_here_is_not_found(served: RealDaemon) -> None:
    for path in ("/api/chat", "/api/generate", "/api/show", "/api/embed"):
        refused = post(served, path, model="llama3", messages=SAID, prompt="x", input="x")
        assert refused.status == 404
        assert "llama3" in refused.json["error"]
    told = lines(served, "/api/pull", model="llama3")
    assert "does not download" in told[0]["error"]


# ------------------------------------------------------------------ llama-server


def test_the_only_model_that_is_loaded_needs_no_name(served: RealDaemon) -> None:
    with served.client() as client:
        client.unload("*")
        refused = post(served, "/completion", prompt="hello")
        assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")
        client.load(GGUF)
    made = good(served, "/completion", prompt="To load a model,", n_predict=4, temperature=0)
    assert (made["model"], made["tokens_predicted"], made["stop_type"]) == (GGUF, 4, "limit")
    told = streamed(served, "/completion", prompt="To load a model,", n_predict=4, temperature=0)
    assert "".join(value["content"] for _, value in told) == made["content"]
    assert [value["stop"] for _, value in told[-2:]] == [False, True]
    assert ask(served.http_socket, "GET", "/props").json["model_alias"] == GGUF
    slots = ask(served.http_socket, "GET", "/slots").json
    assert {slot["model"] for slot in slots} == {GGUF}
    assert ask(served.http_socket, "GET", "/health").json == {"status": "ok"}


def test_several_prompts_and_probabilities(served: RealDaemon) -> None:
    made = good(
        served,
        "/completion",
        model=GGUF,
        prompt=["To load a model,", "hello"],
        n_predict=3,
        n_probs=2,
        temperature=0,
    )
    assert [each["index"] for each in made] == [0, 1]
    for each in made:
        assert len(each["tokens"]) == len(each["completion_probabilities"]) == 3
        assert len(each["completion_probabilities"][0]["top_logprobs"]) == 2


def test_tokens_there_and_back(served: RealDaemon) -> None:
    tokens = good(served, "/tokenize", model=GGUF, content="Hello <|im_end|>")["tokens"]
    assert good(served, "/detokenize", model=GGUF, tokens=tokens) == {"content": "Hello <|im_end|>"}
    plain = {"content": "Hello <|im_end|>", "parse_special": False}
    assert len(good(served, "/tokenize", model=GGUF, **plain)["tokens"]) > len(tokens)
    refused = post(served, "/infill", model=GGUF, input_prefix="a", input_suffix="b")
    assert (refused.status, refused.json["error"]["type"]) == (400, "not_supported_error")
