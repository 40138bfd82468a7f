"""The socket as a script sees it: limits, half-close, signals, double starts."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import NET_S, Wire


def test_only_the_owner_may(daemon):
    assert stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(daemon.socket)).st_mode) == 0o700


def test_a_second_start_names_the_first(daemon):
    second = subprocess.run(
        [sys.executable, "-m", "hybridd"],
        env=daemon.environment,
        capture_output=True,
        text=True,
        timeout=NET_S,
        check=False,
    )
    assert second.returncode == 75
    assert str(daemon.pid) in second.stderr
    with daemon.client() as client:
        client.ping()


def test_a_stale_socket_is_replaced(make_daemon):
    daemon = make_daemon()
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.wait()
    assert os.path.exists(daemon.socket), "a killed daemon leaves its socket"
    daemon.start()
    with daemon.client() as client:
        client.ping()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_streams_end_typed_when_told_to_stop(make_daemon, sig):
    daemon = make_daemon()
    (daemon.models / "endless.echo").write_text('{"token_delay_s": 0.01, "parallel": 8}')
    with Wire(daemon.socket) as wire:
        wire.call("models.rescan")
        for number in range(8):
            wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": number,
                    "method": "generate",
                    "params": {
                        "model": "endless",
                        "prompt": "a b c",
                        "stream": True,
                        "options": {"ignore_eos": True},
                    },
                }
            )
        started: set[int] = set()
        while len(started) < 8:
            started.add(wire.receive()["params"]["id"])
        os.kill(daemon.pid, sig)
        ends = {}
        while (message := wire.receive()) is not None:
            if "error" in message:
                assert message["id"] not in ends, "an id is answered once"
                ends[message["id"]] = message["error"]["data"]["kind"]
        assert ends == dict.fromkeys(range(8), "shutting_down")
    assert daemon.process.wait(NET_S) == 0


def test_replies_arrive_after_shut_wr(daemon):
    with Wire(daemon.socket) as wire:
        wire.send(
            {"jsonrpc": "2.0", "id": 1, "method": "models.rescan", "params": {}},
            {"jsonrpc": "2.0", "id": 2, "method": "system.ping", "params": {}},
        )
        wire.socket.shutdown(socket.SHUT_WR)
        assert {wire.receive()["id"], wire.receive()["id"]} == {1, 2}
        assert wire.receive() is None


def test_a_client_that_hangs_up_frees_its_model(daemon):
    (daemon.models / "endless.echo").write_text('{"token_delay_s": 0.01}')
    with Wire(daemon.socket) as other:
        other.call("models.rescan")
        sub = other.call("events.subscribe", topics=["requests"])
        assert "result" in sub
        with Wire(daemon.socket) as wire:
            wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "generate",
                    "params": {
                        "model": "endless",
                        "prompt": "a",
                        "stream": True,
                        "options": {"ignore_eos": True},
                    },
                }
            )
            assert wire.receive()["method"] == "$/stream"
        while other.receive()["params"].get("type") != "finished":
            pass
        loaded = other.call("models.loaded")["result"]["models"]
        assert loaded[0]["active_requests"] == 0


def test_a_line_too_long_costs_only_its_connection(make_daemon):
    daemon = make_daemon(HYBRIDD_SERVER_MAX_LINE_BYTES="65536")
    with Wire(daemon.socket) as wire, Wire(daemon.socket) as other:
        try:
            for _ in range(8):
                wire.socket.sendall(b"x" * 65536)
        except (BrokenPipeError, ConnectionResetError):
            pass
        refused = wire.receive()
        assert refused["id"] is None
        assert refused["error"]["data"]["kind"] == "line_too_long"
        assert wire.receive() is None
        assert other.call("system.ping")["result"] == {"ok": True}


def test_the_daemon_stays_light(daemon):
    """No heavy library in the daemon, also after it served; idle memory within bounds."""
    with Wire(daemon.socket) as wire:
        wire.call("models.rescan")
        wire.call(
            "generate", model="hybridd/demo-gguf", prompt="To load", options={"max_tokens": 3}
        )
        wire.call("tokenize", model="hybridd/demo-hf", text="hello")
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    for name in ("libtorch", "libllama", "libggml", "_multiarray_umath", "onnxruntime"):
        assert name not in maps, f"{name} is mapped into the daemon"
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib <= 60 * 1024, f"{resident_kib} KiB"
