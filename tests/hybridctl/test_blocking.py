"""The blocking client against the scripted daemon."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import pytest

import hybridctl
from hybridctl import Client
from hybridctl.sdk.router import MAX_UNREAD_EVENTS, Mailbox
from hybridctl.sdk.session import EVENT, Message

ID = "hybridd/demo-gguf:F16"


def test_load_packs_its_options_and_reports_progress(daemon: Any) -> None:
    seen: list[float | None] = []
    with Client() as client:
        loaded = client.load(
            "demo",
            load_options={"parallel": 2},
            context_length=256,
            keepalive=math.inf,
            pin=True,
            on_progress=lambda progress: seen.append(progress.fraction),
        )
        job = client.load("demo", wait=False)
    assert (loaded.id, loaded.load_s, seen) == (ID, 0.4, [0.5, 1.0])
    assert job.job == "j1"
    assert daemon.asked("models.load") == [
        {
            "model": "demo",
            "load_options": {"parallel": 2, "context_length": 256},
            "keepalive": -1,
            "pin": True,
            "progress": True,
        },
        {"model": "demo", "wait": False},
    ]


def test_generate_and_chat_pack_sampling_into_options(daemon: Any) -> None:
    with Client() as client:
        done = client.generate("demo", "Hi", max_tokens=4, temperature=0.0, keepalive="5m")
        said = client.chat("demo", [{"role": "user", "content": "Hi"}], timeout=9, seed=1)
        client.generate("demo", "Hi", options={"top_k": 1}, top_p=0.5, context_length=64)
    assert (done.text, done.finish_reason, done.usage.total_tokens) == ("Hello, wörld", "stop", 5)
    assert (said.text, said.message["role"]) == ("Hello, wörld", "assistant")
    first, third = daemon.asked("generate")
    assert first == {
        "model": "demo",
        "prompt": "Hi",
        "options": {"max_tokens": 4, "temperature": 0.0},
        "keepalive": "5m",
    }
    assert third["options"] == {"top_k": 1, "top_p": 0.5}
    assert third["load_options"] == {"context_length": 64}
    (chat,) = daemon.asked("chat")
    assert (chat["timeout"], chat["options"]) == (9, {"seed": 1})


def test_a_null_that_is_said_in_options_is_passed_on(daemon: Any) -> None:
    """It turns off what is settled for the model; a keyword that is None is none."""
    nulls = {"options": {"seed": None}, "load_options": {"draft_model": None}}
    with Client() as client:
        client.load("demo", load_options=nulls["load_options"], context_length=None)
        client.generate("demo", "Hi", top_p=None, **nulls)
    assert daemon.asked("models.load")[0]["load_options"] == {"draft_model": None}
    (asked,) = daemon.asked("generate")
    assert {name: asked[name] for name in nulls} == nulls


def test_a_stream_begins_at_once(daemon: Any) -> None:
    begun = threading.Event()
    daemon.handlers["generate"] = lambda call: (begun.set(), call.until_cancelled())
    with Client() as client, client.generate("demo", "Hi", stream=True):
        assert begun.wait(20)
    with pytest.raises(hybridctl.DaemonNotRunning):
        Client(daemon.path + "x").generate("demo", "Hi", stream=True)


def test_interrupting_a_wait_drops_the_connection_and_cancels(daemon: Any) -> None:
    """Ctrl-C may have come between bytes and bookkeeping: nothing is left to guess."""
    import signal

    def interrupted(call: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        call.until_cancelled()

    assert threading.current_thread() is threading.main_thread()
    daemon.handlers["generate"] = interrupted
    with Client() as client:
        with pytest.raises(KeyboardInterrupt):
            client.generate("demo", "Hi")
        assert daemon.cancelled.get(timeout=20) == "generate"
        client.ping()


def test_unread_events_are_bounded_and_counted() -> None:
    box = Mailbox()
    for _ in range(MAX_UNREAD_EVENTS + 3):
        box.put(Message(EVENT, None))
    assert (len(box.messages), box.lost) == (MAX_UNREAD_EVENTS, 3)


def test_the_command_that_starts_the_daemon(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybridctl.sdk.errors import start_command

    runtime, config = tmp_path / "run", tmp_path / "config"
    for name, value in {"XDG_RUNTIME_DIR": runtime, "XDG_CONFIG_HOME": config}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("HYBRIDD_SOCKET", raising=False)
    usual = str(runtime / "hybridd" / "hybridd.sock")
    assert start_command(usual) == "hybridd"
    (config / "systemd" / "user").mkdir(parents=True)
    (config / "systemd" / "user" / "hybridd.service").touch()
    assert start_command(usual) == "hybridd"  # a unit, but no systemd
    (runtime / "systemd").mkdir(parents=True)
    assert start_command(usual) == "systemctl --user start hybridd"
    assert start_command("/else where") == "HYBRIDD_SOCKET='/else where' hybridd"


def test_embed_and_rerank(daemon: Any) -> None:
    with Client() as client:
        made = client.embed("demo", "abc", normalize=False)
        assert (made.embeddings, made.dimensions) == ([[3.0, -0.5]], 2)
        assert daemon.asked("embed")[-1] == {"model": "demo", "input": "abc", "normalize": False}
        ranked = client.rerank("demo", "q", iter(["x", "y"]), context_length=64)
        assert [one.index for one in ranked.results] == [0, 1]
        assert daemon.asked("rerank")[-1] == {
            "model": "demo",
            "query": "q",
            "documents": ["x", "y"],
            "load_options": {"context_length": 64},
        }
