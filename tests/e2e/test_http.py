"""The gateway of a real daemon: its sockets, who may ask, the original's API, the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import RealDaemon
from tests.e2e.http_client import ask, connection, events

DEMO = "hybridd/demo-gguf"


def tcp_url(daemon: RealDaemon) -> str:
    """Where the gateway listens on TCP."""
    for line in daemon.log.read_text().splitlines():
        if "HTTP on http://" in line:
            return line.split("HTTP on ")[1]
    raise AssertionError(daemon.log.read_text())


def token(daemon: RealDaemon) -> dict[str, str]:
    """The header that lets a request in."""
    path = daemon.directory / "state" / "hybridd" / "http_token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return {"Authorization": f"Bearer {path.read_text().strip()}"}


# ------------------------------------------------------------------ sockets


def test_the_unix_socket_is_the_owners_and_there_by_itself(daemon: RealDaemon) -> None:
    assert stat.S_IMODE(os.stat(daemon.http_socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(daemon.http_socket)).st_mode) == 0o700
    got = ask(daemon.http_socket, "GET", "/api/v1/system")
    assert (got.status, got.json["pid"]) == (200, daemon.pid)


def test_tcp_is_off_unless_asked_for(daemon: RealDaemon) -> None:
    assert "http://" not in daemon.log.read_text()


def test_tcp_asks_for_the_token(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon(HYBRIDD_HTTP_LISTEN="127.0.0.1:0")
    url = tcp_url(daemon)
    assert ask(url, "GET", "/api/v1/models").status == 401
    wrong = {"Authorization": "Bearer " + "x" * 43}
    assert ask(url, "GET", "/api/v1/models", headers=wrong).status == 401
    assert ask(url, "GET", "/api/v1/models", headers=token(daemon)).status == 200
    evil = {**token(daemon), "Host": "evil.example"}
    assert ask(url, "GET", "/api/v1/models", headers=evil).status in (403, 421)
    cross = {**token(daemon), "Origin": "http://evil.example"}
    assert ask(url, "GET", "/api/v1/models", headers=cross).status == 403


def test_sockets_are_not_inherited_by_workers(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon(HYBRIDD_HTTP_LISTEN="127.0.0.1:0")
    url = tcp_url(daemon)
    link = connection(url)
    link.request("GET", "/api/v1/models", headers=token(daemon))
    link.getresponse().read()
    assert ask(daemon.http_socket, "POST", f"/api/v1/models/{DEMO}/load").status == 200
    inodes = {
        os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{daemon.pid}/fd")
    }
    listening = _listening_inodes(daemon.pid) & inodes
    assert listening
    for pid in daemon.family():
        if pid != daemon.pid:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                assert os.readlink(f"/proc/{pid}/fd/{fd}") not in listening
    link.close()


def _listening_inodes(pid: int) -> set[str]:
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            found.add(f"socket:[{fields[9]}]")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and "hybridd" in fields[7] and fields[5] == "01":
            found.add(f"socket:[{fields[6]}]")
    return found


def test_tcp_is_turned_on_and_off_while_it_runs(daemon: RealDaemon) -> None:
    with daemon.client() as client:
        client.config_set({"http.listen": "127.0.0.1:0"}, persist=False)
        client.ping()
    url = tcp_url(daemon)
    assert ask(url, "GET", "/api/v1/models", headers=token(daemon)).status == 200
    with daemon.client() as client:
        client.config_set({"http.listen": ""}, persist=False)
        client.ping()
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0
    assert ask(daemon.http_socket, "GET", "/api/v1/models").status == 200


def test_a_port_that_is_taken_is_no_end(make_daemon: Callable[..., RealDaemon]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = make_daemon(HYBRIDD_HTTP_LISTEN=f"127.0.0.1:{port}")
        assert f"cannot listen on 127.0.0.1:{port}" in daemon.log.read_text()
        assert ask(daemon.http_socket, "GET", "/api/v1/models").status == 200


def test_a_killed_daemon_leaves_nothing_in_the_way(daemon: RealDaemon) -> None:
    daemon.stop(signal.SIGKILL)
    daemon.wait_alone()
    assert os.path.exists(daemon.http_socket)
    daemon.start()
    assert ask(daemon.http_socket, "GET", "/api/v1/models").status == 200


# ------------------------------------------------------------------ the original's API


def test_load_by_the_originals_example(daemon: RealDaemon) -> None:
    got = ask(daemon.http_socket, "GET", f"/api/v1/models/{DEMO}/load")
    assert (got.status, got.json["id"], got.json["status"]) == (200, DEMO, "loaded")
    encoded = DEMO.replace("/", "%2F")
    got = ask(daemon.http_socket, "GET", f"/api/v1/models/{encoded}")
    assert got.json["key"] == DEMO
    assert got.json["loaded_instances"][0]["id"] == DEMO
    got = ask(daemon.http_socket, "GET", "/api/v1/models/loaded")
    assert [model["id"] for model in got.json["models"]] == [DEMO]
    got = ask(daemon.http_socket, "POST", f"/api/v1/models/{encoded}/unload")
    assert got.json["unloaded"] == [DEMO]


def test_a_page_of_another_site_loads_nothing(daemon: RealDaemon) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "null"},
    ):
        got = ask(daemon.http_socket, "GET", f"/api/v1/models/{DEMO}/load", headers=headers)
        assert got.status == 403
    with daemon.client() as client:
        assert client.loaded() == []


def test_models_are_listed_as_lm_studio_does(daemon: RealDaemon) -> None:
    models = ask(daemon.http_socket, "GET", "/api/v1/models").json["models"]
    by_key = {model["key"]: model for model in models}
    demo = by_key[DEMO]
    assert demo["type"] == "llm"
    assert demo["quantization"] == {"name": "F16", "bits_per_weight": 16.016}
    assert demo["params_string"] == "2.6M"
    assert (demo["max_context_length"], demo["format"]) == (1024, "gguf")
    assert demo["loaded_instances"] == []


def test_loading_with_progress(daemon: RealDaemon) -> None:
    model = {"load_steps": 4, "load_s": 0.2}
    (daemon.models / "slow.echo").write_text(json.dumps(model))
    with daemon.client() as client:
        client.rescan()
    seen = list(events(daemon.http_socket, "POST", "/api/v1/models/slow/load", {}))
    names = [name for name, _ in seen]
    assert names[-1] == "loaded"
    assert set(names) <= {"progress", "loaded", ""}
    assert seen[-1][1]["id"] == "slow"


def test_events_come_as_they_happen(daemon: RealDaemon) -> None:
    stream = events(daemon.http_socket, "GET", "/api/v1/events?topics=models")
    assert next(stream)[0] == ""
    (daemon.models / "new.echo").write_text("{}")
    for name, value in stream:
        if name == "models" and value.get("id") == "new":
            assert value["type"] == "added"
            break
    stream.close()


@pytest.mark.parametrize(
    ("method", "target", "status", "kind"),
    [
        ("GET", "/api/v1/models/none/at/all", 404, "model_not_found"),
        ("POST", "/api/v1/models/none/load", 404, "model_not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("DELETE", "/api/v1/models", 405, "method_not_allowed"),
        ("GET", "/api/v1/events?topics=weather", 400, "invalid_params"),
    ],
)
def test_errors(
    shared_daemon: RealDaemon, method: str, target: str, status: int, kind: str
) -> None:
    got = ask(shared_daemon.http_socket, method, target)
    assert (got.status, got.json["error"]["code"]) == (status, kind)


def test_a_bad_load_option_is_named(shared_daemon: RealDaemon) -> None:
    body: Any = {"load_options": {"context_length": "long"}}
    got = ask(shared_daemon.http_socket, "POST", f"/api/v1/models/{DEMO}/load", body)
    assert got.status == 400
    assert got.json["error"]["param"] == "load_options.context_length"


# ------------------------------------------------------------------ the end


def test_the_end_does_not_wait_for_streams(daemon: RealDaemon) -> None:
    stream = events(daemon.http_socket, "GET", "/api/v1/events")
    next(stream)
    idle = connection(daemon.http_socket)
    idle.request("GET", "/api/v1/models")
    idle.getresponse().read()
    assert daemon.stop() == 0
    assert not os.path.exists(daemon.http_socket)
    stream.close()
    idle.close()
