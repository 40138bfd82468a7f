"""Whatever comes in: a clear typed error, and the daemon goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import RealDaemon, Wire

DEMO = Path(__file__).parents[2] / "hybridd" / "demo"
GGUF, HF = "hybridd/demo-gguf", "hybridd/demo-hf"


@pytest.fixture
def daemon(shared_daemon: RealDaemon) -> RealDaemon:
    """All tests here share one daemon: that is part of what they show."""
    return shared_daemon


@pytest.fixture
def wire(daemon: RealDaemon) -> Iterator[Wire]:
    with Wire(daemon.socket) as made:
        yield made
        assert made.call("system.ping")["result"] == {"ok": True}, "the daemon goes on"


def kind(message) -> str:
    return message["error"]["data"]["kind"]


BAD_REQUESTS = [
    ("system.pong", {}, "method_not_found"),
    ("models.load", {}, "invalid_params"),
    ("models.load", {"model": 7}, "invalid_params"),
    ("models.load", {"model": GGUF, "keepalife": 3}, "invalid_params"),
    ("models.load", {"model": "no/such:model"}, "model_not_found"),
    ("models.load", {"model": GGUF, "load_options": {"context_length": -1}}, "invalid_params"),
    ("models.load", {"model": GGUF, "load_options": {"threads": True}}, "invalid_params"),
    ("chat", {"model": GGUF, "messages": []}, "invalid_params"),
    ("chat", {"model": GGUF, "messages": [{"role": "king", "content": "x"}]}, "invalid_params"),
    (
        "generate",
        {"model": GGUF, "prompt": "x", "options": {"temperature": "hot"}},
        "invalid_params",
    ),
    ("generate", {"model": GGUF, "prompt": "x", "options": {"top_p": 1.5}}, "invalid_params"),
    ("generate", {"model": GGUF, "prompt": "x", "options": {"logprobs": 21}}, "invalid_params"),
    (
        "chat",
        {
            "model": GGUF,
            "messages": [{"role": "user", "content": "x"}],
            "options": {"logit_bias": {"x": 1}},
        },
        "invalid_params",
    ),
    (
        "generate",
        {"model": HF, "prompt": "x", "options": {"adapters": [{"name": "x", "scale": 1}]}},
        "invalid_params",
    ),
    (
        "chat",
        {
            "model": HF,
            "messages": [{"role": "user", "content": "x"}],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        "unsupported",
    ),
    ("detokenize", {"model": GGUF, "tokens": [10_000_000]}, "invalid_params"),
    ("jobs.get", {"job": "load-999"}, "invalid_params"),
    ("config.set", {"values": {"limits.max_loaded": "many"}}, "invalid_params"),
    ("config.set", {"values": {"limits.max_lode": 1}}, "invalid_params"),
    ("events.subscribe", {"topics": ["weather"]}, "invalid_params"),
    ("system.info", {"min_protocol": {"major": 2}}, "unsupported"),
]


@pytest.mark.parametrize(("method", "params", "expected"), BAD_REQUESTS)
def test_requests(wire, method, params, expected):
    assert kind(wire.call(method, **params)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{", "parse_error"),
        (b'{"jsonrpc":"2.0","id":1,"method":"system.ping","params":{"x":NaN}}', "parse_error"),
        (b'{"a":1,"a":2}', "parse_error"),
        (b"[" * 100_000, "parse_error"),
        (b"\xff\xfe", "parse_error"),
        (b"[]", "invalid_request"),
        (b"7", "invalid_request"),
        (b'{"jsonrpc":"1.0","id":1,"method":"system.ping"}', "invalid_request"),
        (b'{"jsonrpc":"2.0","id":{},"method":"system.ping"}', "invalid_request"),
    ],
)
def test_lines(wire, line, expected):
    wire.send(line)
    message = wire.receive()
    assert message["id"] is None
    assert kind(message) == expected


@pytest.mark.parametrize("model", [GGUF, HF])
def test_over_long_prompt_is_refused_before_any_delta(wire, model):
    wire.send(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "generate",
            "params": {"model": model, "prompt": "load a model " * 2000, "stream": True},
        }
    )
    message = wire.receive()
    assert message["id"] == 1, "no delta came before"
    assert kind(message) == "context_exceeded"
    data = message["error"]["data"]
    assert data["prompt_tokens"] > data["context_length"] == 1024


def test_what_is_no_model_is_listed_with_its_reason(daemon, wire):
    (daemon.models / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 400)
    (daemon.models / "cut.gguf").write_bytes(
        next((DEMO / "demo-gguf").glob("*.gguf")).read_bytes()[:-1000]
    )
    empty = daemon.models / "empty-hf"
    empty.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(DEMO / "demo-hf" / name, empty)
    begun = daemon.models / "begun"
    begun.mkdir()
    (begun / "config.json").write_text('{"model_type": "llama"}')
    pickled = daemon.models / "pickled"
    shutil.copytree(DEMO / "demo-hf", pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    wire.call("models.rescan")
    listed = {m["id"]: m for m in wire.call("models.list", all=True)["result"]["models"]}
    usable = {m["id"] for m in wire.call("models.list")["result"]["models"]}
    for stem in ("broken", "cut", "empty-hf", "begun", "pickled"):
        (id,) = [name for name in listed if name.split(":")[0] == stem]
        assert listed[id]["status"] == "invalid", json.dumps(listed[id])
        assert listed[id]["reason"]
        assert id not in usable
        refused = wire.call("models.load", model=id)
        assert kind(refused) == "model_invalid"
        assert refused["error"]["data"]["reason"] == listed[id]["reason"]
    assert "unsafe" in listed["pickled"]["reason"]


def test_does_not_fit_says_what_would(daemon, wire):
    wire.call("config.set", values={"limits.ram_max": "64MiB"}, persist=False)
    (daemon.models / "huge.echo").write_text(json.dumps({"weights_bytes": 2**40}))
    wire.call("models.rescan")
    refused = wire.call("models.load", model="huge")
    assert kind(refused) == "does_not_fit"
    wire.call("config.unset", keys=["limits.ram_max"])
    plan = refused["error"]["data"]["plan"]
    assert plan["fits"] is False
    assert plan["max_context_length"] == 0
    assert plan["estimate"]["reserved_bytes"] >= 2**40
