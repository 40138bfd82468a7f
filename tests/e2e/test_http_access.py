"""Who may ask a real daemon over TCP, as hybridctl and the settings say it while it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from hybridd.wire.types import HttpLink

from .conftest import RealDaemon
from .http_client import Answer, ask

MODELS = "/api/v1/models"
PAGE = "http://localhost:3000"


def ctl(daemon: RealDaemon, *arguments: str) -> str:
    ran = daemon.ctl(*arguments)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def fails(daemon: RealDaemon, *arguments: str) -> str:
    ran: subprocess.CompletedProcess[str] = daemon.ctl(*arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr


def turn_on(daemon: RealDaemon) -> str:
    """Have it listen on some port; returns the URL."""
    out = ctl(daemon, "http", "on", "127.0.0.1:0")
    return out.splitlines()[0].removeprefix("listening on ")


def with_token(daemon: RealDaemon) -> dict[str, str]:
    return {"Authorization": f"Bearer {ctl(daemon, 'http', 'token').strip()}"}


def models(url: str, headers: dict[str, str] | None = None) -> Answer:
    return ask(url, "GET", MODELS, headers=headers)


def test_what_http_on_prints_works_as_it_is_typed(daemon: RealDaemon) -> None:
    lines = ctl(daemon, "http", "on", "127.0.0.1:0").splitlines()
    url = lines[0].removeprefix("listening on ")
    command = lines[1].partition("curl ")[2]
    assert command.endswith(f"{url}/v1/models")
    header = command.partition('"')[2].partition('"')[0]
    printed = ctl(daemon, *header.partition("$(hybridctl ")[2].rstrip(")").split())
    assert models(url, {"Authorization": f"Bearer {printed.strip()}"}).status == 200
    token = daemon.directory / "state" / "hybridd" / "http_token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == (printed, 0o600)
    assert url in ctl(daemon, "http")
    assert ctl(daemon, "http", "off") == "not listening on TCP\n"
    with pytest.raises(ConnectionRefusedError):
        models(url)


def test_a_renewed_token_ends_the_old_one(daemon: RealDaemon) -> None:
    url, old = turn_on(daemon), with_token(daemon)
    assert models(url, old).status == 200
    ctl(daemon, "http", "token", "--renew")
    refused = models(url, old)
    assert refused.status == 401
    assert "hybridctl http token" in refused.json["error"]["message"]
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert models(url, with_token(daemon)).status == 200


def test_a_link_to_the_page(daemon: RealDaemon) -> None:
    assert "hybridctl http on" in fails(daemon, "http", "url")
    url = turn_on(daemon)
    link = urlsplit(ctl(daemon, "http", "url").strip())
    assert f"{link.scheme}://{link.netloc}" == url
    assert link.fragment.startswith("code=")
    assert not link.query, "a code in the query would be in logs"
    with daemon.client() as client:
        assert client.http_link().raw.keys() == {*HttpLink._fields}


def test_origins_and_hosts_take_effect_at_once(daemon: RealDaemon) -> None:
    url, token = turn_on(daemon), with_token(daemon)
    page = {"Origin": PAGE}
    asks = {**page, "Access-Control-Request-Method": "POST"}
    assert ask(url, "OPTIONS", MODELS, headers=asks).status == 403
    assert "http.allow_origins" in models(url, {**token, **page}).json["error"]["message"]
    ctl(daemon, "config", "set", "http.allow_origins", PAGE)
    preflight = ask(url, "OPTIONS", MODELS, headers=asks)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == PAGE
    allowed = models(url, {**token, **page})
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, PAGE)
    assert models(url, {**token, "Origin": f"{PAGE}0"}).status == 403
    unsigned = models(url, page)
    assert (unsigned.status, unsigned.headers["access-control-allow-origin"]) == (401, PAGE)

    named = {**token, "Host": "box.lan"}
    assert "http.allow_hosts" in models(url, named).json["error"]["message"]
    ctl(daemon, "config", "set", "http.allow_hosts", "box.lan")
    assert models(url, named).status == 200


def test_no_token_where_that_is_written(daemon: RealDaemon) -> None:
    ctl(daemon, "config", "set", "http.token", "none")
    url = turn_on(daemon)
    assert not (daemon.directory / "state" / "hybridd" / "http_token").exists()
    assert models(url).status == 200
    assert models(url, {"Host": "evil.example"}).status == 403
    assert models(url, {"Origin": "http://evil.example"}).status == 403
    assert models(url, {"Sec-Fetch-Site": "cross-site"}).status == 403
    assert ctl(daemon, "http", "url").strip() == f"{url}/"
    problem = fails(daemon, "http", "on", "0.0.0.0:0")
    assert "ssh -L" in problem
    assert "http.token" in problem
    with pytest.raises(ConnectionRefusedError):
        models(url)


def test_a_token_file_that_others_can_read(daemon: RealDaemon) -> None:
    file = daemon.directory / "state" / "hybridd" / "http_token"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a-token-that-others-can-read\n")
    file.chmod(0o644)
    for command in (("http", "token"), ("http", "on", "127.0.0.1:0")):
        problem = fails(daemon, *command)
        assert "mode 0644" in problem
        assert "hybridctl http token --renew" in problem
    renewed = ctl(daemon, "http", "token", "--renew").strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert models(turn_on(daemon), {"Authorization": f"Bearer {renewed}"}).status == 200


def test_an_address_that_cannot_be_listened_on(daemon: RealDaemon) -> None:
    assert "takes an address" in fails(daemon, "http", "on", "box.lan:80")
    assert ctl(daemon, "http", "off") == "not listening on TCP\n"


def test_a_flag_of_the_start_goes_first(make_daemon: Callable[..., RealDaemon]) -> None:
    daemon = make_daemon()
    daemon.stop()
    daemon.arguments = ("--http", "127.0.0.1:0")
    daemon.start()
    assert models_status(daemon) == 401
    problem = fails(daemon, "http", "off")
    assert "--http" in problem
    assert models_status(daemon) == 401


def models_status(daemon: RealDaemon) -> int:
    with daemon.client() as client:
        (url,) = (each for each in client.http_status().addresses if each.startswith("http"))
    return models(url).status
