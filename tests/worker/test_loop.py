"""The worker's life, in real processes with the echo engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worker.support import echo_file, worker

BROKEN = "tests.worker.broken_engine:{}"


def test_from_hello_to_the_end(tmp_path: Path) -> None:
    with worker() as w:
        assert w.receive() == {"op": "hello", "pid": w.pid}
        w.send("ping", n=1)
        assert w.receive() == {"op": "pong", "n": 1}
        w.load(echo_file(tmp_path, load_steps=4))
        progress = []
        while (frame := w.receive())["op"] == "progress":
            progress.append(frame)
        assert frame["op"] == "ready"
        assert frame["facts"]["engine"] == "echo"
        assert frame["load_s"] >= 0
        assert progress[-1] == {"op": "progress", "stage": "load", "done": 4, "total": 4}
        w.start(7, prompt="one two")
        assert w.receive() == {"op": "deltas", "items": [{"id": 7, "text": "one", "tokens": 1}]}
        assert w.receive() == {"op": "deltas", "items": [{"id": 7, "text": " two", "tokens": 1}]}
        done = w.receive()
        assert (done["op"], done["id"]) == ("done", 7)
        assert done["result"]["finish_reason"] == "stop"
        w.send("stats")
        assert w.receive() == {"op": "stats", "active": 0, "busy": False, "steps": 3, "tokens": 2}
        w.send("stop")
        assert w.wait() == 0


def test_one_frame_a_step_for_all_sequences(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, token_delay_s=0.02), parallel=2)
        w.until("ready")
        w.start(1, prompt="a b c d e f g h")
        w.until("deltas")
        w.start(2, prompt="x y z")
        frames = [w.receive() for _ in range(4)]
        assert any(len(f.get("items", [])) == 2 for f in frames)


def test_a_cancel_ends_a_request_and_frees_its_slot(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, token_delay_s=0.001))
        w.until("ready")
        w.start(1, prompt="a b", options={"ignore_eos": True})
        w.until("deltas")
        w.send("cancel", id=1)
        assert w.until("cancelled", "done", "error") == {"op": "cancelled", "id": 1}
        w.send("cancel", id=1)
        w.send("cancel", id=99)
        w.start(2, prompt="x")
        assert w.receive()["items"][0]["id"] == 2
        assert w.receive()["op"] == "done"


def test_a_cancel_is_heard_during_a_long_step(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, token_delay_s=3600))
        w.until("ready")
        w.start(1, prompt="a")
        w.send("cancel", id=1)
        assert w.until("cancelled", "done") == {"op": "cancelled", "id": 1}


def test_threads_are_set_between_steps(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, token_delay_s=0.001), BROKEN.format("SaysItsThreads"))
        w.until("ready")
        w.start(1, prompt="a b", options={"ignore_eos": True})
        for count in (3, 1):
            w.send("threads", n=count)
            while w.until("deltas")["items"][0]["text"] != f"{count} ":
                pass
        w.send("cancel", id=1)
        w.until("cancelled")
        w.send("threads", n=5)
        w.start(2, prompt="a")
        assert w.until("deltas")["items"][0]["text"] == "5 "


def test_an_engine_that_cannot_change_its_threads_ignores_it(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path), threads=3)
        assert w.until("ready")["facts"]["load_options"]["threads"] == 3
        w.send("threads", n=1)
        w.start(1, prompt="a")
        assert w.until("deltas")["items"][0]["text"] == "a"


def test_every_started_id_ends_exactly_once(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path), parallel=3)
        w.until("ready")
        for n in range(200):
            w.start(n, prompt="a b c d e", kind="generate" if n % 5 else "nonsense")
            if n % 3 == 0:
                w.send("cancel", id=n)
        w.send("ping", n=0)
        ends: list[int] = []
        last_seen: dict[int, str] = {}
        while len(ends) < 200:
            frame = w.receive()
            for item in frame.get("items", []):
                assert item["id"] not in ends
            if frame["op"] in ("done", "error", "cancelled"):
                assert frame["id"] not in ends, last_seen[frame["id"]]
                ends.append(frame["id"])
                last_seen[frame["id"]] = frame["op"]
        assert sorted(ends) == list(range(200))
        w.send("stats")
        assert w.until("stats")["active"] == 0


def test_a_load_is_cancelled(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, load_s=3600))
        w.until("progress")
        w.send("cancel_load")
        assert w.until("failed", "ready")["error"]["data"]["kind"] == "cancelled"
        assert w.wait() == 1


def test_a_load_that_fails_says_why_and_ends(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, fail="no luck"))
        error = w.until("failed", "ready")["error"]
        assert error["data"] == {"kind": "load_failed", "reason": "no luck"}
        assert w.wait() == 1


@pytest.mark.parametrize(
    ("engine", "kind", "reason"),
    [
        ("OutOfMemory", "load_failed", "out_of_memory"),
        ("Surprised", "load_failed", "engine_error"),
        ("Missing", "load_failed", "engine_unavailable"),
    ],
)
def test_what_an_engine_raises_becomes_a_typed_error(
    tmp_path: Path, engine: str, kind: str, reason: str
) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path), BROKEN.format(engine))
        error = w.until("failed", "ready")["error"]
        assert error["data"]["kind"] == kind
        assert error["data"]["reason"] == reason
        assert "Traceback" not in str(error)
        assert w.wait() == 1
        assert engine == "Missing" or "Traceback" in w.log()


def test_an_engine_that_cannot_be_imported(tmp_path: Path) -> None:
    with worker() as w:
        w.until("hello")
        spec: dict[str, Any] = {"model": "m", "format": "x", "path": "/", "load_options": {}}
        w.send("load", spec=spec, factory="hybridd_absent.engine:Engine", extra="absent")
        error = w.until("failed")["error"]
        assert error["data"]["module"] == "hybridd_absent"
        assert "pip install 'hybridd[absent]'" in error["message"]


def test_a_step_that_raises_fails_what_was_active_and_no_more(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path), BROKEN.format("FailsOnce"), parallel=2)
        w.until("ready")
        w.start(1, prompt="secret words")
        w.start(2, prompt="secret words")
        ends = [w.until("error", "done") for _ in range(2)]
        assert sorted(e["id"] for e in ends) == [1, 2]
        for end in ends:
            assert end["error"]["data"]["kind"] == "internal_error"
            assert "secret" not in str(end)
        w.start(3, prompt="again")
        assert w.until("deltas")["items"][0]["text"] == "again"
        w.send("stop")
        assert w.wait() == 0
        log = w.log()
        assert "secret" not in log, "an exception's text may quote the prompt"
        lines = log.splitlines()
        assert all(line.startswith("<3>") for line in lines)
        assert lines[:2] == ["<3>a request failed", "<3>Traceback (most recent call last):"]
        assert "in step" in log
        assert lines[-1] == "<3>RuntimeError"


def test_what_a_worker_logs_has_its_level(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path), BROKEN.format("Talkative"))
        w.until("ready")
        w.send("stop")
        assert w.wait() == 0
        lines = w.log().splitlines()
        assert lines[:3] == [
            "<6>for information", "<4>as a warning", "<4>library: as a warning",
        ]  # fmt: skip
        assert any(line.startswith("<4>py.warnings: ") and "not so good" in line for line in lines)
        assert not any("soon gone" in line and "warnings.warn" not in line for line in lines)


def test_the_daemon_is_gone(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path))
        w.until("ready")
        w.channel.close()
        assert w.wait() == 0


@pytest.mark.parametrize("when", ["load", "generate"])
def test_the_daemon_is_gone_while_the_engine_hangs(tmp_path: Path, when: str) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, hang_on=when))
        if when == "generate":
            w.until("ready")
            w.start(1, prompt="a")
        assert "hangs" in w.log_line()
        w.channel.close()
        assert w.wait() == 0


def test_a_crash_is_a_signal(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, crash_on="generate", crash_signal="SEGV"))
        w.until("ready")
        w.start(1, prompt="a")
        assert w.wait() == -signal.SIGSEGV
        assert "Segmentation fault" in w.log()


def test_a_crash_at_a_certain_prompt(tmp_path: Path) -> None:
    with worker() as w:
        w.load(echo_file(tmp_path, crash_on="boom", crash_signal="KILL"))
        w.until("ready")
        w.start(1, prompt="no load, no generate")
        assert w.until("done")["id"] == 1
        w.start(2, prompt="and boom now")
        assert w.wait() == -signal.SIGKILL


def test_what_a_worker_tells_the_kernel(tmp_path: Path) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    with worker() as w:
        w.load(echo_file(tmp_path))
        w.until("ready")
        proc = Path(f"/proc/{w.pid}")
        assert (proc / "comm").read_text() == "hybridd-echo\n"
        assert (proc / "cmdline").read_bytes().rstrip(b"\0") == b"hybridd worker: a/model (echo)"
        assert int((proc / "oom_score_adj").read_text()) == min(1000, own + 500)
        assert os.getsid(w.pid) == w.pid
        os.kill(w.pid, signal.SIGINT)
        w.send("ping", n=1)
        assert w.receive() == {"op": "pong", "n": 1}


def test_a_worker_imports_nothing_of_the_daemon() -> None:
    code = (
        "import sys, hybridd.worker.loop, hybridd.worker.template, hybridd.worker.__main__\n"
        "bad = {'trio', 'torch', 'numpy', 'jinja2', 'llama_cpp', 'transformers'}\n"
        "bad |= {'hybridd.host', 'hybridd.service', 'hybridd.rpc'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output == "[]\n"
