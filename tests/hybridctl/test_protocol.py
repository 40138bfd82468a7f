"""The client offers what the daemon takes: every method, with every parameter."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import hybridctl
from hybridctl import Client
from hybridd.rpc.registry import REGISTRY

# Every method of the client, and the daemon's that it calls.
METHODS = {
    "ping": "system.ping",
    "info": "system.info",
    "shutdown": "system.shutdown",
    "config_get": "config.get",
    "config_set": "config.set",
    "config_unset": "config.unset",
    "config_reload": "system.reload",
    "http_status": "http.status",
    "http_token": "http.token",
    "http_link": "http.link",
    "events": "events.subscribe",
    "list": "models.list",
    "show": "models.show",
    "configure": "models.configure",
    "resolve": "models.resolve",
    "rescan": "models.rescan",
    "load": "models.load",
    "loaded": "models.loaded",
    "unload": "models.unload",
    "jobs": "jobs.list",
    "job": "jobs.get",
    "cancel_job": "jobs.cancel",
    "wait_job": "jobs.wait",
    "generate": "generate",
    "chat": "chat",
    "embed": "embed",
    "rerank": "rerank",
    "tokenize": "tokenize",
    "detokenize": "detokenize",
    "apply_template": "apply_template",
}
OLD_NAMES = {f"{name}{end}" for name in ("load_model", "generate_response", "unload_model")
             for end in ("", "_hybrid")}  # fmt: skip
# What the client has no method or argument for, and why.
NO_METHOD = {
    "rpc.discover": "it is for programs that make clients; `call` asks for it",
    "events.unsubscribe": "leaving what `events` returns sends it",
}
NO_ARGUMENT = {("system.info", "min_protocol"): "this client is of the daemon's own version"}

# A good value for every argument of the client and every parameter of the daemon.
SAMPLES: dict[str, Any] = {
    "alias": "uno",
    "all": True,
    "allow_pickle": True,
    "chat_template_kwargs": {"x": 1},
    "cursor": "YQ==",
    "dimensions": 2,
    "documents": ["a"],
    "force": True,
    "format": "gguf",
    "input": ["a"],
    "job": "j1",
    "keepalive": "5m",
    "key": "models.keepalive",
    "keys": ["a.b"],
    "limit": 1,
    "load_options": {"parallel": 2},
    "loaded": True,
    "messages": [{"role": "user", "content": "Hi"}],
    "model": "demo",
    "normalize": False,
    "on_progress": lambda progress: None,
    "options": {"top_k": 1},
    "persist": False,
    "pin": True,
    "prompt": "Hi",
    "query": "Hi",
    "renew": True,
    "response_format": {"type": "text"},
    "special": True,
    "stream": True,
    "text": "Hi",
    "timeout": 5,
    "tokens": [104],
    "tool_choice": "auto",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "top_n": 1,
    "topics": ["models"],
    "trust_remote_code": True,
    "values": {"a.b": 1},
    "wait": False,
}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def call_with_everything(client: Client, name: str, *, but: str = "") -> None:
    """Call a method with every argument that it has, also those of its `**keywords`."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    given = inspect.signature(getattr(client, name)).parameters
    for argument in given.values():
        if argument.kind is argument.VAR_POSITIONAL:
            positional += SAMPLES[argument.name]
        elif argument.name == "more_load_options":
            keywords["context_length"] = 64
        elif argument.kind is argument.VAR_KEYWORD:
            known = REGISTRY.methods[METHODS[name]].parameters
            rest = [each for each in known if each == argument.name or each not in given]
            keywords |= {each: SAMPLES[each] for each in rest}
        elif argument.name != but:
            keywords[argument.name] = SAMPLES[argument.name]
    made = getattr(client, name)(*positional, **keywords)
    if name in ("generate", "chat"):
        made.result()


def test_each_method_of_the_daemon_is_one_of_both_clients() -> None:
    assert REGISTRY.methods.keys() == {*METHODS.values(), *NO_METHOD}
    assert public(Client) == {*METHODS, *OLD_NAMES, "call", "close"}
    assert public(hybridctl.AsyncClient) == public(Client) - {"close"}


@pytest.mark.parametrize(("name", "method"), METHODS.items(), ids=METHODS)
def test_a_method_takes_what_the_daemon_takes(daemon: Any, name: str, method: str) -> None:
    """The scripted daemon refuses what the real one would: a name or a value that is not known."""
    with Client() as client:
        call_with_everything(client, name)
        if name == "load":  # whose progress is told to those who wait
            call_with_everything(client, name, but="wait")
    offered = {each for params in daemon.asked(method) for each in params}
    missing = {each for of, each in NO_ARGUMENT if of == method}
    assert offered | missing == REGISTRY.methods[method].parameters.keys()
    assert not offered & missing
