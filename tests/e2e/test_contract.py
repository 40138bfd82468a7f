"""What a real daemon sends is what its own `rpc.discover` says, for every method."""

from __future__ import annotations

import json
from typing import Any

from hybridd.wire.protocol import TOPICS
from tests.rpc.contract import Contract

from .conftest import Wire

SAY = [{"role": "user", "content": "one two three"}]
GGUF = "hybridd/demo-gguf"


class Asking:
    """A connection whose messages are all held against a contract."""

    def __init__(self, wire: Wire, contract: Contract) -> None:
        self._wire = wire
        self._contract = contract
        self.asked: set[str] = set()
        self.notified: list[str] = []

    def __call__(self, method: str, **params: Any) -> Any:
        """The result of a request."""
        reply = self._reply(method, params)
        assert "error" not in reply, reply["error"]
        return reply["result"]

    def refused(self, method: str, **params: Any) -> str:
        """The kind of the error that a request ends with."""
        kind: str = self._reply(method, params)["error"]["data"]["kind"]
        return kind

    def _reply(self, method: str, params: dict[str, Any]) -> Any:
        self._wire.send({"jsonrpc": "2.0", "id": "x", "method": method, "params": params})
        self.asked.add(method)
        while (message := self._wire.receive()) is not None:
            if "method" in message:
                self._contract.check_notification(message)
                self.notified.append(message["method"])
                continue
            self._contract.check_reply(method, message)
            return message
        raise AssertionError("the daemon closed the connection")


def test_every_reply_and_notification_is_as_told(make_daemon):
    daemon = make_daemon(HYBRIDD_FORMATS_ECHO="true")
    for name, file in {
        "writer": {"parallel": 2},
        "encoder": {"capabilities": ["embedding", "reranking"], "context_length": 6},
        "slow": {"load_s": 3600},
        "broken": {"fail": "its file says so"},
        "deadly": {"crash_on": "generate"},
    }.items():
        (daemon.models / f"{name}.echo").write_text(json.dumps(file))
    with Wire(daemon.socket) as wire, Wire(daemon.socket) as other:
        contract = Contract(wire.call("rpc.discover")["result"])
        ask, listen = Asking(wire, contract), Asking(other, contract)
        subscription = listen("events.subscribe", topics=list(TOPICS))["subscription"]
        about_the_daemon(ask)
        about_the_catalog(ask)
        about_loads(ask)
        about_inference(ask)
        assert {"$/progress", "$/stream"} <= set(ask.notified)
        ask("system.shutdown")
        listen("events.unsubscribe", subscription=subscription)
        assert "$/event" in listen.notified
        assert ask.asked | listen.asked == set(contract.methods)
    assert daemon.process.wait() == 0


def about_the_daemon(ask: Asking) -> None:
    assert ask("system.ping") == {"ok": True}
    assert ask("rpc.discover")["openrpc"]
    assert ask("system.info", min_protocol={"major": 1})["features"]
    assert ask.refused("system.info", min_protocol={"major": 2}) == "unsupported"
    assert ask("system.reload")["changed"] == []
    assert len(ask("config.get")["values"]) > 20
    assert ask("config.set", values={"models.keepalive": "1h"})["changed"] == ["models.keepalive"]
    assert ask.refused("config.set", values={"models.keepalive": "soon"}) == "invalid_params"
    assert ask("config.unset", keys=["models.keepalive"])["changed"]
    assert ask("http.status")["listen"] == ""
    assert ask("http.token", renew=True)["needed"]
    assert ask.refused("http.link") == "unsupported"


def about_the_catalog(ask: Asking) -> None:
    assert ask("models.rescan", progress=True)["total"] == 7
    assert ask("models.list", all=True, limit=3)["next_cursor"]
    for model in (GGUF, "hybridd/demo-hf", "writer"):
        assert ask("models.show", model=model)["files"]
    assert ask("models.resolve", model="demo") == {"id": GGUF}
    assert ask.refused("models.resolve", model="nothing like it") == "model_not_found"
    assert ask("models.configure", model="writer", alias="poet", keepalive=-1, pin=True)
    assert ask("models.configure", model="writer", alias=None, keepalive=None, pin=None)


def about_loads(ask: Asking) -> None:
    assert ask("models.load", model=GGUF, progress=True)["memory"]["kv_cache_bytes"]
    assert ask.refused("models.load", model="broken") == "load_failed"
    job = ask("models.load", model="slow", wait=False)["job"]
    assert ask("jobs.get", job=job)["state"] in ("queued", "running")
    assert ask("models.loaded", all=True)["models"]
    assert ask("jobs.cancel", job=job)["error"]
    assert ask("jobs.wait", job=job, progress=True)["state"] == "cancelled"
    assert ask("jobs.list")["jobs"]
    ask("config.set", values={"limits.ram_max": "64MiB"}, persist=False)
    assert ask.refused("models.load", model="hybridd/demo-hf") == "does_not_fit"
    ask("config.unset", keys=["limits.ram_max"])
    assert ask("models.unload", model=GGUF)["unloaded"] == [GGUF]


def about_inference(ask: Asking) -> None:
    few = {"max_tokens": 3, "logprobs": 2}
    assert ask("generate", model=GGUF, prompt="one", options=few)["logprobs"]
    assert "text" not in ask("generate", model=GGUF, prompt="one", options=few, stream=True)
    assert ask("chat", model=GGUF, messages=SAY, options=few)["message"]["content"]
    assert ask.refused("chat", model="encoder", messages=SAY) == "unsupported"
    assert ask.refused("generate", model="deadly", prompt="one") == "worker_died"
    assert ask("embed", model="encoder", input="one two", dimensions=4)["dimensions"] == 4
    assert ask.refused("embed", model="encoder", input="1 2 3 4 5 6 7") == "context_exceeded"
    assert ask("rerank", model="encoder", query="one", documents=["one", "two"])["results"]
    tokens = ask("tokenize", model=GGUF, text="one")["tokens"]
    assert ask("detokenize", model=GGUF, tokens=tokens) == {"text": "one"}
    assert ask("apply_template", model=GGUF, messages=SAY)["prompt"]
    assert ask.refused("generate", model="writer", prompt="one", timeout=0) == "timeout"
