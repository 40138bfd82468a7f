"""`http.*`: what they say of a gateway that is on, off, broken, or needs no token."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from hybridd.core.keys import KEYS
from hybridd.daemon.web_access import WebAccess
from hybridd.rpc.registry import REGISTRY
from hybridd.wire.errors import Unsupported

from .contract import contract

TCP, UNIX = "http://127.0.0.1:4114", "unix:/run/u/hybridd/http.sock"


class Asking:
    """Calls methods as a connection does, and checks what they answer."""

    def __init__(self, directory: Path) -> None:
        self.web = WebAccess(directory / "state")
        self.configuration = {key.name: key.default for key in KEYS.values()}

    async def __call__(self, name: str, **params: Any) -> dict[str, Any]:
        method = REGISTRY.methods[name]
        call = SimpleNamespace(daemon=self)
        result: dict[str, Any] = await method.handler(call, **method.check(params))
        contract().check_reply(name, {"result": result})
        return result

    async def refused(self, name: str) -> Unsupported:
        with pytest.raises(Unsupported) as caught:
            await self(name)
        contract().check_error(name, caught.value.to_wire())
        return caught.value


@pytest.fixture
def ask(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


async def test_the_status_of_a_gateway_that_is_off(ask: Asking) -> None:
    status = await ask("http.status")
    assert (status["enabled"], status["addresses"], status["problem"]) == (False, [], None)
    assert not (ask.web._file.parent).exists(), "no token is made for it"


async def test_the_status_of_one_that_is_on(ask: Asking) -> None:
    ask.web.addresses = [TCP, UNIX]
    ask.configuration |= {
        "http.listen": "127.0.0.1:4114",
        "http.token": "none",
        "http.allow_hosts": ["box.lan"],
        "http.allow_origins": ["http://a:1"],
    }
    assert await ask("http.status") == {
        "enabled": True,
        "listen": "127.0.0.1:4114",
        "addresses": [TCP, UNIX],
        "problem": None,
        "changing": False,
        "token": "none",
        "allow_origins": ["http://a:1"],
        "allow_hosts": ["box.lan"],
    }
    ask.web.addresses, ask.web.problem, ask.web.changing = [], "the port is taken", True
    status = await ask("http.status")
    assert (status["enabled"], status["problem"]) == (False, "the port is taken")
    assert status["changing"]


async def test_the_token(ask: Asking) -> None:
    first = await ask("http.token")
    assert first == {"token": ask.web.token(), "needed": True}
    assert await ask("http.token", renew=False) == first
    second = await ask("http.token", renew=True)
    assert second["token"] == ask.web.token() != first["token"]
    ask.configuration["http.token"] = "none"
    assert await ask("http.token") == {**second, "needed": False}


async def test_a_token_that_others_can_read_is_refused(ask: Asking) -> None:
    file = ask.web._file
    file.parent.mkdir()
    file.write_text("x" * 40)
    file.chmod(0o644)
    refused = await ask.refused("http.token")
    assert "hybridctl http token --renew" in refused.message


async def test_a_link_brings_the_token_once(ask: Asking) -> None:
    ask.web.addresses = [TCP, UNIX]
    link = await ask("http.link")
    url = urlsplit(link["url"])
    assert (f"{url.scheme}://{url.netloc}", url.path, url.query) == (TCP, "/", "")
    assert link["expires_in_s"] == 300
    code = url.fragment.removeprefix("code=")
    assert ask.web.redeem(code) == ask.web.token()
    assert ask.web.redeem(code) is None
    assert (await ask("http.link"))["url"] != link["url"]


async def test_a_link_without_a_token_needs_no_code(ask: Asking) -> None:
    ask.web.addresses = [TCP]
    ask.configuration["http.token"] = "none"
    assert await ask("http.link") == {"url": f"{TCP}/", "expires_in_s": None}


async def test_a_link_to_nowhere_is_refused_with_what_to_do(ask: Asking) -> None:
    ask.web.addresses = [UNIX]
    refused = await ask.refused("http.link")
    assert "hybridctl http on" in refused.message
    assert refused.data == {"capability": "http", "reason": "it is off"}
    ask.configuration["http.listen"] = "127.0.0.1:4114"
    ask.web.problem = "the port is taken"
    refused = await ask.refused("http.link")
    assert refused.message.endswith("TCP: the port is taken")
    assert refused.data["reason"] == "the port is taken"
