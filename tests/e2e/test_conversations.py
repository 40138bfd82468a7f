"""Conversations go on where they were: after other ones, an unload, an eviction, a restart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from hybridctl import Client

from .conftest import RealDaemon

DEMO = "hybridd/demo-gguf"
GREEDY = {"temperature": 0, "max_tokens": 40}


def turn(client: Client, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """One answer, put behind the messages; returns the reply's usage."""
    reply = client.call("chat", model=DEMO, messages=messages, options=GREEDY, **options)
    messages.append({"role": "assistant", "content": reply["message"]["content"]})
    usage: dict[str, Any] = reply["usage"]
    return usage


def conversation() -> list[dict[str, Any]]:
    return [{"role": "user", "content": "How do I load a model, and where do models belong?"}]


def test_the_second_turn_computes_what_is_new(daemon: RealDaemon) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    with daemon.client() as client:
        messages = conversation()
        first = turn(client, messages)
        assert first["cached_tokens"] == 0
        messages.append({"role": "user", "content": "Who are you?"})
        second = turn(client, messages)
        assert second["cached_tokens"] >= first["prompt_tokens"]
        assert second["cached_tokens"] < second["prompt_tokens"]


def test_a_conversation_outlives_the_worker_and_the_daemon(
    make_daemon: Callable[..., RealDaemon],
) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    daemon = make_daemon(HYBRIDD_KV_PERSIST="64MiB")
    messages = conversation()
    with daemon.client() as client:
        first = turn(client, messages)
        client.unload(DEMO)
        messages.append({"role": "user", "content": "Who are you?"})
        second = turn(client, messages)
        assert second["cached_tokens"] >= first["prompt_tokens"]
    assert daemon.stop() == 0
    daemon.start()
    with daemon.client() as client:
        messages.append({"role": "user", "content": "What is hybridd?"})
        third = turn(client, messages)
        assert third["cached_tokens"] >= second["prompt_tokens"]
        plain = client.call("chat", model=DEMO, messages=messages[:1], options=GREEDY)
        assert plain["message"]["content"] == messages[1]["content"]


def test_without_a_budget_nothing_is_written(daemon: RealDaemon) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    with daemon.client() as client:
        messages = conversation()
        turn(client, messages)
        client.unload(DEMO)
        messages.append({"role": "user", "content": "Who are you?"})
        assert turn(client, messages)["cached_tokens"] == 0
    states = [p for p in daemon.directory.rglob("*.state") if p.is_file()]
    assert not states


def test_states_that_were_harmed_do_no_harm(make_daemon: Callable[..., RealDaemon]) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    daemon = make_daemon(HYBRIDD_KV_PERSIST="64MiB")
    messages = conversation()
    with daemon.client() as client:
        turn(client, messages)
        client.unload(DEMO)
        (state,) = daemon.directory.rglob("*.state")
        assert state.stat().st_mode & 0o077 == 0
        data = bytearray(state.read_bytes())
        data[-100] ^= 0xFF
        state.write_bytes(data)
        shutil.copy(state, state.with_name("other.state"))
        again = conversation()
        assert turn(client, again)["cached_tokens"] == 0
        assert again[1]["content"] == messages[1]["content"]
