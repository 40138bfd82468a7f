"""`hybridctl http` against the scripted daemon: what it asks, prints and exits with."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.wire.errors import InvalidParams, Unsupported

from .conftest import HTTP

UNIX = HTTP["addresses"][1]
OFF = {**HTTP, "listen": "", "addresses": [UNIX]}


class Gateway:
    """What the scripted daemon says, change by change."""

    def __init__(self, daemon: Any, *states: dict[str, Any]) -> None:
        self._states = list(states)
        daemon.handlers["http.status"] = self._status

    def _status(self, call: Any) -> dict[str, Any]:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def test_on_says_where_and_how_to_try_it(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, OFF, {**OFF, "changing": True}, {**OFF, "changing": True}, HTTP)
    ran = ctl("http", "on")
    assert (ran.code, ran.err) == (0, "")
    assert daemon.asked("config.set") == [{"values": {"http.listen": "127.0.0.1:4114"}}]
    assert "listening on http://127.0.0.1:4114" in ran.out
    command = 'curl -H "Authorization: Bearer $(hybridctl http token)" http://127.0.0.1:4114/v1/'
    assert command in ran.out
    assert "hybridctl http url" in ran.out


def test_on_keeps_the_address_of_the_settings(ctl: Any, daemon: Any) -> None:
    there = {**HTTP, "listen": "localhost:80", "addresses": ["http://localhost:80"] * 2}
    Gateway(daemon, there)
    assert "listening on http://localhost:80\n" in ctl("http", "on").out
    ctl("http", "on", "8080")
    asked = [each["values"]["http.listen"] for each in daemon.asked("config.set")]
    assert asked == ["localhost:80", "8080"]


def test_without_a_token_none_is_sent(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, {**HTTP, "token": "none"})
    out = ctl("http", "on").out
    assert "curl http://127.0.0.1:4114/v1/models" in out
    assert "token" not in out


def test_another_daemon_is_named_in_what_is_to_be_typed(
    ctl: Any, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYBRIDD_SOCKET")
    out = ctl("--socket", daemon.path, "http", "on").out
    assert f"$(hybridctl --socket {daemon.path} http token)" in out


@pytest.mark.parametrize("address", [(), ("127.0.0.1:80",)])
def test_a_port_that_is_taken(ctl: Any, daemon: Any, address: tuple[str, ...]) -> None:
    Gateway(daemon, {**OFF, "listen": "127.0.0.1:80", "problem": "the port is taken"})
    ran = ctl("http", "on", *address)
    assert (ran.code, ran.out, ran.err) == (1, "", "hybridctl: the port is taken\n")
    ran = ctl("http", "on", *address, "--json")
    assert (ran.code, ran.json["problem"], ran.json["addresses"]) == (
        1,
        "the port is taken",
        [UNIX],
    )


def test_what_failed_before_is_tried_again(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, {**OFF, "listen": "127.0.0.1:80", "problem": "the port is taken"}, HTTP)
    daemon.handlers["config.set"] = lambda call: {"changed": [], "restart_needed": []}
    assert ctl("http", "on").code == 0
    asked = [each["values"]["http.listen"] for each in daemon.asked("config.set")]
    assert asked == ["127.0.0.1:80", "", "127.0.0.1:80"]


def test_a_problem_of_the_unix_socket_does_not_hide_that_tcp_works(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, {**HTTP, "problem": "the Unix socket cannot be opened"})
    assert ctl("http", "on").code == 0
    assert "the Unix socket cannot be opened" in ctl("http").out


def test_an_address_that_is_none(ctl: Any, daemon: Any) -> None:
    def refuse(call: Any) -> None:
        raise InvalidParams("http.listen: takes an address", field="http.listen", reason="x")

    daemon.handlers["config.set"] = refuse
    ran = ctl("http", "on", "box.lan")
    assert (ran.code, ran.out) == (1, "")
    assert "http.listen: takes an address" in ran.err


@pytest.mark.parametrize("action", ["on", "off"])
def test_a_flag_of_the_daemons_start_goes_first(ctl: Any, daemon: Any, action: str) -> None:
    change = {"changed": [], "restart_needed": [], "overridden_by_flag": ["http.listen"]}
    daemon.handlers["config.set"] = lambda call: change
    ran = ctl("http", action)
    assert (ran.code, ran.out) == (1, "")
    assert "--http" in ran.err
    assert "it listens on 127.0.0.1:4114" in ran.err


def test_off(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, {**HTTP, "changing": True}, OFF)
    assert ctl("http", "off").out == "not listening on TCP\n"
    assert daemon.asked("config.set") == [{"values": {"http.listen": ""}}]
    assert ctl("http", "off", "--json").json["addresses"] == [UNIX]


def test_off_where_systemd_listens(ctl: Any, daemon: Any) -> None:
    Gateway(daemon, {**HTTP, "listen": ""})
    ran = ctl("http", "off")
    assert ran.code == 1
    assert "disable --now hybridd-http.socket" in ran.err


def test_a_daemon_that_takes_too_long(
    ctl: Any, daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridctl.cli.commands.http._CHANGE_S", 0.0)
    Gateway(daemon, {**OFF, "changing": True})
    ran = ctl("http", "on")
    assert (ran.code, ran.out) == (1, "")
    assert "hybridctl http status" in ran.err


def test_status(ctl: Any, daemon: Any) -> None:
    out = ctl("http").out
    for part in (*HTTP["addresses"], "hybridctl http token", "http://localhost:3000"):
        assert part in out
    assert "http on" not in out
    assert ctl("http", "status", "--json").json == HTTP
    Gateway(daemon, {**OFF, "enabled": False, "addresses": [], "token": "none"})
    out = ctl("http").out
    assert "nowhere" in out
    assert "hybridctl http on" in out
    Gateway(daemon, {**OFF, "problem": "h11 is not installed"})
    assert "h11 is not installed" in ctl("http").out


def test_the_token_alone_is_printed(ctl: Any, daemon: Any) -> None:
    ran = ctl("http", "token")
    assert (ran.code, ran.out, ran.err) == (0, "a-token\n", "")
    assert ctl("http", "token", "--renew").out == "a-new-one\n"
    assert daemon.asked("http.token") == [{}, {"renew": True}]
    assert ctl("http", "token", "--json").json == {"token": "a-token"}


def test_the_url_alone_is_printed(ctl: Any, daemon: Any) -> None:
    ran = ctl("http", "url")
    assert (ran.code, ran.out) == (0, "http://127.0.0.1:4114/#code=c0de\n")
    assert "5 minutes" in ran.err
    assert ctl("http", "url", "--json").json["expires_in_s"] == 300
    daemon.handlers["http.link"] = lambda call: {"url": "http://a/", "expires_in_s": None}
    ran = ctl("http", "url")
    assert (ran.out, ran.err) == ("http://a/\n", "")

    def refuse(call: Any) -> None:
        raise Unsupported("it does not listen on TCP", capability="http", reason="it is off")

    daemon.handlers["http.link"] = refuse
    ran = ctl("http", "url")
    assert (ran.code, ran.out) == (1, "")
    assert "does not listen" in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("onn",), "did you mean on?"),
        (("off", "8080"), "off takes no address"),
        (("status", "8080"), "status takes no address"),
        (("on", "--renew"), "--renew belongs to token"),
        (("on", "a", "b"), "unrecognized arguments"),
    ],
)
def test_usage(ctl: Any, daemon: Any, words: tuple[str, ...], says: str) -> None:
    ran = ctl("http", *words)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert daemon.requests == []
