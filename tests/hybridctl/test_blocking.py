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
from hybridd.wire import protocol

ID = "hybridd/demo-gguf:F16"


def test_every_method_keeps_to_the_protocol(daemon: Any) -> None:
    with Client() as client:
        client.ping()
        assert client.info().pid == 4710
        (model,) = client.list(format="gguf", all=True)
        assert (model.id, model.quantization and model.quantization.name) == (ID, "F16")
        assert client.show("demo").chat_template == "{{ messages }}"
        assert client.resolve("demo") == ID
        assert client.rescan().removed == 2
        assert client.loaded(all=True)[0].memory["resident_bytes"] == 9_000_000
        assert client.unload("demo", force=True).unloaded == [ID]
        assert client.tokenize("demo", "ab", special=True) == [97, 98]
        assert client.detokenize("demo", [97, 98]) == "ab"
        assert client.apply_template("demo", [{"role": "user", "content": "x"}]) == "<s>"
        assert [job.job for job in client.jobs()] == ["j1"]
        assert client.job("j1").state == "running"
        assert client.cancel_job("j1").job == "j1"
        assert client.wait_job("j1", on_progress=lambda p: None).state == "done"
        assert client.config_get()["models.keepalive"].value == 300
        assert client.config_set({"a.b": 1}, persist=False).changed == ["a.b"]
        assert client.config_unset("a.b").changed == ["a.b"]
        assert client.call("models.resolve", model="demo") == {"id": ID}
        client.shutdown()


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


def test_all_pages_of_a_long_list_are_read(daemon: Any) -> None:
    pages = {
        None: {"models": [{"id": "a"}], "next_cursor": "1"},
        "1": {"models": [{"id": "b"}], "next_cursor": "2"},
        "2": {"models": [{"id": "c"}]},
    }
    daemon.handlers["models.list"] = lambda call: pages[call.params.get("cursor")]
    with Client() as client:
        assert [m.id for m in client.list()] == ["a", "b", "c"]
        assert [m.id for m in client.list(limit=1)] == ["a"]


def test_a_stream_iterates_and_gives_the_whole_result(daemon: Any) -> None:
    with Client() as client, client.generate("demo", "Hi", stream=True) as stream:
        first = next(stream)
        assert (first.text, stream.text, stream.done) == ("Hel", "Hel", False)
        assert [delta.text for delta in stream] == ["lo, ", "wörld"]
        result = stream.result()
    assert (result.text, result.usage.completion_tokens) == ("Hello, wörld", 2)
    assert stream.result() == result
    assert daemon.cancelled.empty()


def test_a_chat_stream_gives_a_message(daemon: Any) -> None:
    with Client() as client:
        stream = client.chat("demo", [{"role": "user", "content": "Hi"}], stream=True)
        assert stream.result().message == {"role": "assistant", "content": "Hello, wörld"}
        assert stream.tokens == 3


def test_two_streams_and_a_call_share_the_connection(daemon: Any) -> None:
    """Read one to its end first: what comes for the other meanwhile is kept."""
    with Client() as client:
        one = client.generate("demo", "1", stream=True)
        two = client.generate("demo", "2", stream=True)
        assert two.result().text == "Hello, wörld"
        client.ping()
        assert [delta.text for delta in one] == ["Hel", "lo, ", "wörld"]


def _endless(call: Any) -> None:
    call.delta(0, "Hel")
    call.until_cancelled()


def test_leaving_a_stream_cancels_it(daemon: Any) -> None:
    daemon.handlers["generate"] = _endless
    with Client() as client:
        with client.generate("demo", "Hi", stream=True) as stream:
            next(stream)
        assert daemon.cancelled.get(timeout=20) == "generate"
        client.ping()  # the answer of the cancelled request is thrown away
        with pytest.raises(hybridctl.Cancelled):
            stream.result()
        assert list(stream) == []


def test_cancel_ends_the_iteration_quietly(daemon: Any) -> None:
    daemon.handlers["generate"] = _endless
    with Client() as client:
        stream = client.generate("demo", "Hi", stream=True)
        texts = []
        for delta in stream:
            texts.append(delta.text)
            stream.cancel()
        assert texts == ["Hel"]
        with pytest.raises(hybridctl.Cancelled):
            stream.result()


def test_closing_the_client_cancels_what_runs(daemon: Any) -> None:
    daemon.handlers["generate"] = _endless
    client = Client()
    stream = client.generate("demo", "Hi", stream=True)
    next(stream)
    client.close()
    assert daemon.cancelled.get(timeout=20) == "generate"
    with pytest.raises(hybridctl.ConnectionLost):
        next(stream)


def test_an_error_in_the_middle_of_a_stream_is_raised_by_it(daemon: Any) -> None:
    def dies(call: Any) -> None:
        call.delta(0, "Hel")
        raise hybridctl.WorkerDied("the worker died", signal=9)

    daemon.handlers["generate"] = dies
    with Client() as client:
        stream = client.generate("demo", "Hi", stream=True)
        assert next(stream).text == "Hel"
        with pytest.raises(hybridctl.WorkerDied) as caught:
            next(stream)
        assert caught.value.data == {"signal": 9}
        assert stream.text == "Hel"


def test_errors_are_typed(daemon: Any) -> None:
    def missing(call: Any) -> None:
        raise hybridctl.ModelNotFound("no such model", model="x", suggestions=["y"])

    daemon.handlers["models.show"] = missing
    with Client() as client:
        with pytest.raises(hybridctl.ModelNotFound) as caught:
            client.show("x")
        assert (caught.value.kind, caught.value.data["suggestions"]) == ("model_not_found", ["y"])
        with pytest.raises(hybridctl.MethodNotFound):
            client.call("models.frobnicate")
        with pytest.raises(hybridctl.InvalidParams):
            client.call("models.show", model="x", modle="y")


def test_silence_is_bounded_and_cancels(daemon: Any) -> None:
    daemon.handlers["generate"] = lambda call: call.until_cancelled()
    with Client(timeout=0.05) as client:
        with pytest.raises(hybridctl.RequestTimeout):
            client.generate("demo", "Hi")
        assert daemon.cancelled.get(timeout=20) == "generate"


def test_a_dead_daemon_ends_everything_and_the_next_call_connects_again(daemon: Any) -> None:
    daemon.handlers["chat"] = _endless
    daemon.handlers["generate"] = lambda call: (daemon.hang_up(), call.until_cancelled())
    with Client() as client:
        events = client.events("models")
        stream = client.chat("demo", [{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(hybridctl.ConnectionLost):
            client.generate("demo", "Hi")
        with pytest.raises(hybridctl.ConnectionLost):
            next(events)
        with pytest.raises(hybridctl.ConnectionLost):
            for _ in stream:
                pass
        client.ping()


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


def test_events_are_routed_even_when_they_overtake_the_subscription(daemon: Any) -> None:
    def subscribe(call: Any) -> Any:
        daemon.event("models", "added", model="early")
        return {"subscription": "s1", "revision": 9}

    daemon.handlers["events.subscribe"] = subscribe
    with Client() as client:
        with client.events("models") as events:
            assert events.revision == 9
            assert next(events).raw["model"] == "early"
            daemon.event("models", "removed", model="late")
            client.ping()
            assert next(events).type == "removed"
            daemon.broadcast(
                protocol.notification(protocol.EVENTS_LOST, {"subscription": "s1", "count": 4})
            )
            daemon.event("models", "added")
            next(events)
            assert events.lost == 4
        assert list(events) == []
        client.ping()
        assert daemon.asked("events.unsubscribe") == [{"subscription": "s1"}]
    assert daemon.asked("events.subscribe") == [{"topics": ["models"]}]


def test_unread_events_are_bounded_and_counted() -> None:
    box = Mailbox()
    for _ in range(MAX_UNREAD_EVENTS + 3):
        box.put(Message(EVENT, None))
    assert (len(box.messages), box.lost) == (MAX_UNREAD_EVENTS, 3)


def test_a_large_prompt_and_a_large_answer(daemon: Any) -> None:
    text = "ä" * 3_000_000
    daemon.handlers["tokenize"] = lambda call: {"tokens": [len(call.params["text"])] * 500_000}
    with Client() as client:
        tokens = client.tokenize("demo", text)
    assert (len(tokens), tokens[0]) == (500_000, 3_000_000)


def test_nobody_listens(socket_path: str) -> None:
    with pytest.raises(hybridctl.DaemonNotRunning) as caught:
        Client(socket_path).ping()
    command = f"HYBRIDD_SOCKET={socket_path} hybridd"
    assert caught.value.data == {"socket": socket_path, "command": command}
    assert command in caught.value.message


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


def test_a_socket_path_that_is_too_long_says_so() -> None:
    with pytest.raises(ValueError, match="107"):
        Client("/tmp/" + "x" * 200)


def test_the_names_of_the_original_system(daemon: Any) -> None:
    with Client() as client:
        assert client.load_model("demo", context_length=64).id == ID
        assert client.generate_response("demo", "Hi", max_tokens=3) == "Hello, wörld"
        assert client.unload_model("demo") is True
        daemon.handlers["models.unload"] = lambda call: {"unloaded": [], "freed_bytes": 0}
        assert client.unload_model_hybrid("demo") is False
        assert client.load_model_hybrid("demo")
        assert client.generate_response_hybrid("demo", "Hi") == "Hello, wörld"


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


def test_both_clients_have_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(Client) - {"close"} == public(hybridctl.AsyncClient)
