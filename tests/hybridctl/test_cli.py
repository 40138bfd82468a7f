"""Commands in this process against the scripted daemon: what they ask, print and exit with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hybridd.wire.errors import (
    Busy,
    DoesNotFit,
    HybriddError,
    InternalError,
    LoadFailed,
    ModelAmbiguous,
    ModelNotFound,
)

from .conftest import LOADED

ID = "hybridd/demo-gguf:F16"


def fails(error: HybriddError) -> Callable[[Any], None]:
    def handler(call: Any) -> None:
        raise error

    return handler


def test_version_and_help(ctl: Any) -> None:
    assert ctl("--version").out.startswith("hybridctl ")
    assert "ps " in ctl("--help").out
    assert ctl("help", "load").out == ctl("load", "--help").out
    bare = ctl()
    assert (bare.code, bare.out) == (2, "")
    assert "usage:" in bare.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lst"], "did you mean list?"),
        (["ps", "--al"], "did you mean --all?"),
        (["--jsn", "ps"], "did you mean --json?"),
        (["--frobnicate"], "unknown argument --frobnicate"),
        (["show"], "MODEL"),
        (["show", "a", "b"], "b"),
        (["load", "m", "--keepalive"], "needs a value"),
        (["load", "m", "--keepalive", "soon"], "no duration"),
        (["load", "m", "--context-length", "-5"], "no context length"),
        (["run", "m", "--seed", "x", "hi"], "--seed"),
        (["run", "m"], "prompt"),
        (["run", "m", "--raw", "--system", "s", "hi"], "--raw"),
        (["config", "sett", "a", "1"], "did you mean set?"),
        (["config", "set", "a"], "value"),
        (["config", "unset"], "keys"),
        (["config", "get", "a", "b"], "one key"),
        (["jobs", "wait"], "which job"),
        (["jobs", "list", "j1"], "no job"),
        (["events", "model"], "did you mean models?"),
        (["unload"], "--all"),
        (["unload", "m", "--all"], "--all"),
        (["service", "instal"], "did you mean install?"),
        (["--socket", "/" + "x" * 200, "ps"], "107"),
    ],
)
def test_usage_errors_exit_2_and_say_what_would_do(
    ctl: Any, arguments: list[str], said: str
) -> None:
    ran = ctl(*arguments, stdin="")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_daemon_not_running(ctl: Any, socket_path: str) -> None:
    ran = ctl("--socket", socket_path, "ps")
    assert (ran.code, ran.out) == (3, "")
    assert f"start it with: HYBRIDD_SOCKET={socket_path} hybridd" in ran.err
    ran = ctl("ps", "--json", f"--socket={socket_path}")
    assert ran.code == 3
    assert json.loads(ran.err)["error"]["data"]["kind"] == "daemon_not_running"


def test_model_not_found_suggests(ctl: Any, daemon: Any) -> None:
    error = ModelNotFound("no model is called x", model="x", suggestions=[ID])
    daemon.handlers["models.show"] = fails(error)
    ran = ctl("show", "x")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == f"hybridctl: no model is called x\ndid you mean:\n  {ID}\n"


def test_model_ambiguous_lists_the_candidates(ctl: Any, daemon: Any) -> None:
    daemon.handlers["models.load"] = fails(ModelAmbiguous("two models", candidates=["a", "b"]))
    ran = ctl("load", "x")
    assert ran.code == 4
    assert "  a\n  b\n" in ran.err


def test_does_not_fit_shows_the_plan(ctl: Any, daemon: Any) -> None:
    plan = {
        "estimate": {
            "weights_bytes": 9e9,
            "kv_cache_bytes": 2e9,
            "reserved_bytes": 11.5e9,
        },
        "free": [{"device": "cpu", "bytes": 8e9}],
        "max_context_length": 2048,
    }
    daemon.handlers["models.load"] = fails(DoesNotFit("big needs 11.5 GB", plan=plan))
    ran = ctl("load", "big")
    assert ran.code == 5
    assert "needs  11.5 GB (9.0 GB weights, 2.0 GB KV cache)" in ran.err
    assert "free   8.0 GB on cpu" in ran.err
    assert "--context-length 2048" in ran.err
    plan["max_context_length"] = 0
    assert "no context length would fit" in ctl("load", "big").err


def test_other_errors_exit_1_with_their_facts(ctl: Any, daemon: Any) -> None:
    daemon.handlers["models.load"] = fails(
        LoadFailed("it does not load", detail=["bad \x1b[31mmagic"])
    )
    ran = ctl("load", "m")
    assert (ran.code, "  bad magic" in ran.err) == (1, True)
    daemon.handlers["models.load"] = fails(Busy("busy", retry_after_s=2.5))
    assert "again in 2.5 s" in ctl("load", "m").err


def test_ps(ctl: Any, daemon: Any) -> None:
    ran = ctl("ps")
    assert ran.code == 0
    header, row = ran.out.splitlines()
    assert header.split() == [
        "NAME", "SIZE", "DEVICE", "CONTEXT", "PARALLEL", "STATUS", "UNTIL", "QUEUE",
    ]  # fmt: skip
    assert row.split("  ")[0] == ID
    assert ("9.0 MB" in row, "100% CPU" in row, "4 minutes" in row) == (True, True, True)
    assert ctl("ps", "--all", "--json").json[0]["pid"] == 4711
    assert daemon.asked("models.loaded") == [{}, {"all": True}]


def test_list_filters(ctl: Any, daemon: Any) -> None:
    ran = ctl("list", "demo", "--format", "gguf", "--loaded", "--all")
    assert "2.5M" in ran.out
    assert "completion,chat" in ran.out
    assert daemon.asked("models.list") == [
        {"query": "demo", "format": "gguf", "loaded": True, "all": True}
    ]
    assert ctl("list", "--store", "demo", "--json").json[0]["a_field_of_tomorrow"] == 1
    assert ctl("list", "--store", "elsewhere", "--json").json == []
    assert ctl("list", "--store", "elsewhere").out.split()[0] == "ID"


def test_hostile_names_do_not_reach_the_terminal(ctl: Any, daemon: Any) -> None:
    hostile = {
        "id": "a\x1b]0;title\x07b\nc",
        "format": "gguf",
        "status": "invalid",
        "reason": "\x9b2J",
    }
    daemon.handlers["models.list"] = lambda call: {"models": [hostile]}
    out = ctl("list", "--all").out
    assert "ab c" in out
    assert all(c.isprintable() or c == "\n" for c in out)


def test_what_is_unlike_expected_is_told_where_it_is_asked_for(ctl: Any, daemon: Any) -> None:
    note = "requests take turns: it is old"
    for verbose in ("-v", "--verbose"):
        assert ctl("load", verbose, "demo").out.splitlines()[1:] == [f"note: {note}"]
    assert len(ctl("load", "demo").out.splitlines()) == 1
    assert f"notes           {note}\n" in ctl("show", "demo").out
    assert ctl("ps", "--json").json[0]["notes"] == LOADED["notes"]


def test_a_bug_says_where_the_log_is(
    ctl: Any, daemon: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    daemon.handlers["models.load"] = fails(InternalError("the daemon's log says more"))
    assert "journalctl" not in ctl("load", "m").err
    units = tmp_path / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "hybridd.service").touch()
    assert "see: journalctl --user -u hybridd" in ctl("load", "m").err


def test_show(ctl: Any, daemon: Any) -> None:
    card = ctl("show", "demo").out
    assert "2.5M" in card
    assert "demo: /models/demo.gguf" in card
    assert ctl("show", "demo", "--template").out == "{{ messages }}\n"
    assert 'tokens        ["a", "a", "a"]' in ctl("show", "demo", "--metadata").out
    assert "5.0 MB" in ctl("show", "demo", "--files").out
    assert ctl("show", "demo", "--json").json["metadata"]["general.name"] == "demo"


def test_load(ctl: Any, daemon: Any) -> None:
    ran = ctl(
        "load", "demo", "--keepalive", "-1", "--context-length=256", "--pin", "--gpu-layers", "3"
    )
    assert ran.code == 0
    assert ran.out.startswith(f"loaded {ID} in ")
    assert ran.out.endswith(" s (9.0 MB, 100% CPU, context 512, keepalive 5m)\n")
    (params,) = daemon.asked("models.load")
    assert params == {
        "model": "demo",
        "keepalive": "-1",
        "pin": True,
        "progress": True,
        "load_options": {"context_length": 256, "gpu_layers": 3},
    }
    assert ctl("load", "demo", "--json").json["id"] == ID
    assert "jobs wait j1" in ctl("load", "demo", "--no-wait").out
    assert ctl("load", "demo", "--no-wait", "--json").json == {"job": "j1"}


def test_adapters_and_quantization(ctl: Any, daemon: Any) -> None:
    ids = ["polite=acme/polite-lora:F16", "acme/terse-lora:F16", "plain"]
    ctl("load", "demo", "--quantization", "int8", *[f"--adapter={one}" for one in ids])
    (params,) = daemon.asked("models.load")
    assert params["load_options"] == {
        "quantization": "int8",
        "adapters": [
            {"name": "polite", "path_or_id": "acme/polite-lora:F16"},
            {"name": "terse-lora", "path_or_id": "acme/terse-lora:F16"},
            {"name": "plain", "path_or_id": "plain"},
        ],
    }
    ctl("run", "demo", "--adapter", "polite=0.5", "--adapter", "plain", "hi")
    chosen = [{"name": "polite", "scale": 0.5}, {"name": "plain"}]
    assert daemon.asked("chat")[0]["options"]["adapters"] == chosen
    for wrong in ("=model", "name="):
        ran = ctl("load", "demo", "--adapter", wrong)
        assert (ran.code, "--adapter" in ran.err) == (2, True)
    for wrong in ("=1", "polite=much", "polite=nan"):
        ran = ctl("run", "demo", "--adapter", wrong, "hi")
        assert (ran.code, "--adapter" in ran.err) == (2, True)


def test_unload(ctl: Any, daemon: Any) -> None:
    assert ctl("unload", "demo", "--force").out == f"unloaded {ID}, 9.0 MB free again\n"
    assert ctl("unload", "--all", "--json").json == {"unloaded": [ID], "freed_bytes": 9_000_000}
    daemon.handlers["models.unload"] = lambda call: {"unloaded": [], "freed_bytes": 0}
    assert ctl("unload", "demo").out == "demo was not loaded\n"
    assert daemon.asked("models.unload") == [
        {"model": "demo", "force": True}, {"model": "*"}, {"model": "demo"},
    ]  # fmt: skip


def test_run_loads_and_chats(ctl: Any, daemon: Any) -> None:
    ran = ctl(
        "run", "demo", "--max-tokens", "5", "Say", "--stop", "a", "--stop=b", "hi", "--system", "s",
        "--verbose",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, "Hello, wörld\n")
    assert "10.0 tokens/s" in ran.err
    (chat,) = daemon.asked("chat")
    assert chat["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "Say hi"},
    ]
    assert chat["options"] == {"max_tokens": 5, "stop": ["a", "b"]}
    assert [method for method, _ in daemon.requests] == ["models.show", "models.load", "chat"]


def test_run_takes_standard_input_after_the_arguments(ctl: Any, daemon: Any) -> None:
    ctl("run", "demo", "Summarize:", stdin="a text\n")
    ctl("run", "demo", stdin="alone\n")
    first, second = daemon.asked("chat")
    assert first["messages"][0]["content"] == "Summarize:\n\na text"
    assert second["messages"][0]["content"] == "alone"


def test_run_raw_and_models_without_template_generate(ctl: Any, daemon: Any) -> None:
    assert ctl("run", "demo", "--raw", "--", "--once upon").out == "Hello, wörld\n"
    show = daemon.handlers["models.show"]
    daemon.handlers["models.show"] = lambda call: {**show(call), "capabilities": ["completion"]}
    ctl("run", "demo", "--system", "s", "p", "--temperature", "0", "--seed", "-1")
    first, second = daemon.asked("generate")
    assert first["prompt"] == "--once upon"
    assert second["prompt"] == "s\n\np"
    assert second["options"] == {"temperature": 0.0, "seed": -1}
    ran = ctl("chat", "demo", stdin="hi\n")
    assert ran.code == 1
    assert "no chat template" in ran.err


def test_run_json_is_lines_that_end_with_the_whole_result(ctl: Any, daemon: Any) -> None:
    lines = [json.loads(line) for line in ctl("run", "demo", "hi", "--json").out.splitlines()]
    assert lines[0] == {"seq": 0, "tokens": 1, "delta": {"text": "Hel"}}
    assert lines[-1]["message"]["content"] == "Hello, wörld"
    assert lines[-1]["usage"]["total_tokens"] == 5
    assert ctl("run", "demo", "--raw", "hi", "--json").out.splitlines()[-1].count("wörld") == 1


def test_an_error_in_the_middle_keeps_what_was_written(ctl: Any, daemon: Any) -> None:
    def dies(call: Any) -> None:
        call.delta(0, "Hel")
        raise LoadFailed("gone")

    daemon.handlers["chat"] = dies
    ran = ctl("run", "demo", "hi")
    assert (ran.code, ran.out, ran.err) == (1, "Hel\n", "hybridctl: gone\n")


def test_chat_with_piped_lines_keeps_the_conversation(ctl: Any, daemon: Any) -> None:
    ran = ctl(
        "chat", "demo", "--system", "s", stdin="one\ntwo \\\nlines\n\n/clear\nthree\n/bye\nx\n"
    )
    assert (ran.code, ran.out) == (0, "Hello, wörld\n" * 3)
    first, second, third = (params["messages"] for params in daemon.asked("chat"))
    system = {"role": "system", "content": "s"}
    answer = {"role": "assistant", "content": "Hello, wörld"}
    one, two = {"role": "user", "content": "one"}, {"role": "user", "content": "two \nlines"}
    assert first == [system, one]
    assert second == [system, one, answer, two]
    assert third == [system, {"role": "user", "content": "three"}]


def test_a_failed_answer_leaves_the_conversation_as_it_was(ctl: Any, daemon: Any) -> None:
    works = daemon.handlers["chat"]

    def second_fails(call: Any) -> Any:
        if call.params["messages"][-1]["content"] == "two":
            raise Busy("busy")
        return works(call)

    daemon.handlers["chat"] = second_fails
    ran = ctl("chat", "demo", stdin="one\ntwo\nthree\n")
    assert ran.code == 1
    contents = [m["content"] for m in daemon.asked("chat")[2]["messages"]]
    assert contents == ["one", "Hello, wörld", "three"]


def test_tokenize(ctl: Any, daemon: Any) -> None:
    assert ctl("tokenize", "demo", "ab").out == "97 98\n"
    assert ctl("tokenize", "demo", "--count", stdin="abc").out == "3\n"
    assert ctl("tokenize", "demo", "ab", "--json").json == {"tokens": [97, 98], "count": 2}


def test_configure(ctl: Any, daemon: Any) -> None:
    arguments = ("--alias", "d", "--keepalive", "5m", "--allow-pickle", "yes", "--pin", "no")
    assert "alias" in ctl("configure", "demo", *arguments).out
    asked = {"model": "demo", "alias": "d", "keepalive": "5m", "allow_pickle": True, "pin": False}
    assert daemon.asked("models.configure")[-1] == asked
    ctl("configure", "demo", "--unset", "alias", "--unset", "trust_remote_code")
    asked = {"model": "demo", "alias": None, "trust_remote_code": None}
    assert daemon.asked("models.configure")[-1] == asked
    assert ctl("configure", "demo", "--option", "temperature=0", "--json").json["options"] == {
        "temperature": 0
    }
    assert ctl("configure", "demo", "--unset", "colour").code == 2
    assert ctl("configure", "demo", "--option", "temperature").code == 2


def test_embed(ctl: Any, daemon: Any) -> None:
    assert ctl("embed", "demo", "ab", "c").out == "2.0 -0.5\n1.0 -0.5\n"
    assert ctl("embed", "demo", stdin="abc\n\n").out == "3.0 -0.5\n"
    made = ctl("embed", "demo", "ab", "--json", "--raw", "--dimensions", "2").json
    assert made["embeddings"] == [[2.0, -0.5]]
    asked = daemon.asked("embed")[-1]
    assert asked == {"model": "demo", "input": ["ab"], "dimensions": 2, "normalize": False}
    assert ctl("embed", "demo", stdin="\n").code == 2


def test_rerank(ctl: Any, daemon: Any) -> None:
    out = ctl("rerank", "demo", "q", stdin="one\ntwo\x1b[2J\n").out
    assert out == "  0.500000  one\n -0.500000  two\n"
    assert ctl("rerank", "demo", "q", "x", "y", "--top", "1").out == "  0.500000  x\n"
    assert ctl("rerank", "demo", "q", "x", "--json").json["results"][0] == {
        "index": 0,
        "score": 0.5,
    }


def test_status(ctl: Any, daemon: Any) -> None:
    out = ctl("status").out
    assert "hybridd 0.1.0, pid 4710" in out
    assert "for 3 minutes" in out
    assert "[###############-----]" in out
    assert "install it" in out
    assert ID in out
    assert ctl("status", "--json").json["loaded"][0]["id"] == ID


def test_config(ctl: Any, daemon: Any) -> None:
    assert "models.keepalive    300  default" in ctl("config").out
    assert "how long" in ctl("config", "get", "models.keepalive").out
    assert ctl("config", "--json").json["models.keepalive"]["live"] is True
    assert ctl("config", "set", "a.b", "5m").out == "changed: a.b\n"
    ctl("config", "set", "a.b", "-1", "--no-persist")
    ctl("config", "set", "a.b", "/x", "true", "NaN")
    ctl("config", "set", "a.b", '["x"]')
    assert daemon.asked("config.set") == [
        {"values": {"a.b": "5m"}},
        {"values": {"a.b": -1}, "persist": False},
        {"values": {"a.b": ["/x", True, "NaN"]}},
        {"values": {"a.b": ["x"]}},
    ]
    daemon.handlers["config.unset"] = lambda call: {"changed": [], "restart_needed": ["a.b"]}
    assert "next start: a.b" in ctl("config", "unset", "a.b").out


def test_jobs(ctl: Any, daemon: Any) -> None:
    assert "j1" in ctl("jobs").out
    assert "running" in ctl("jobs", "show", "j1").out
    assert ctl("jobs", "cancel", "j1").out == "cancelled j1\n"
    assert ctl("jobs", "wait", "j1", "--json").json["state"] == "done"
    failed = {"job": "j1", "state": "failed", "error": ModelNotFound("gone").to_wire()}
    daemon.handlers["jobs.wait"] = lambda call: failed
    assert ctl("jobs", "wait", "j1").code == 4


def test_rescan_and_stop(ctl: Any, daemon: Any) -> None:
    assert ctl("rescan").out == "3 models (1 added, 0 changed, 2 removed) in 0.1 s\n"
    assert ctl("stop").code == 0
    assert daemon.asked("system.shutdown") == [{}]


def test_events_end_with_the_connection(ctl: Any, daemon: Any) -> None:
    def subscribe(call: Any) -> Any:
        daemon.event("models", "loaded", model=ID, n=1)
        call.after.append(daemon.hang_up)
        return {"subscription": "s1", "revision": 1}

    daemon.handlers["events.subscribe"] = subscribe
    ran = ctl("events", "models", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["model"] == ID
    assert "closed the connection" in json.loads(ran.err)["error"]["message"]
