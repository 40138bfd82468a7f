"""The page's own routes, through a gateway without a server; the page itself is e2e's business."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridd.daemon.jobs import Job
from hybridd.daemon.web_access import WebAccess
from hybridd.http import page
from hybridd.http.faces.api import Call, Reply
from hybridd.http.faces.known import FACES
from hybridd.http.guard import Policy
from hybridd.http.problems import Problem
from hybridd.parts import Daemon
from hybridd.wire.errors import InvalidParams
from tests.http.faces.support import Models, record
from tests.http.support import answered

LOCKED = Policy(frozenset({"localhost"}), frozenset(), "the-token-of-this-test")
SAME_SITE = [("origin", "http://localhost"), ("sec-fetch-site", "same-origin")]


def call(daemon: Any, body: Any = None) -> Call:
    async def infer(ask: Any) -> dict[str, Any]:
        raise AssertionError("nothing is asked of a model")

    parts: Daemon = daemon
    return Call(parts, "GET", {}, {}, {}, body, "req_1", 0.0, infer)


def answer_of(reply: Any) -> Any:
    assert isinstance(reply, Reply)
    return reply.value


# ------------------------------------------------------------------ the file


async def test_the_page_comes_without_a_token() -> None:
    got = await answered(FACES, "GET", "/", policy=LOCKED)
    assert (got.status, got.body) == (200, page.PAGE)
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["referrer-policy"] == "no-referrer"
    assert got.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("known", [page.ETAG, f"W/{page.ETAG}", f'"other", {page.ETAG}', "*"])
async def test_a_browser_that_has_it_gets_304(known: str) -> None:
    got = await answered(FACES, "GET", "/", headers=[("if-none-match", known)])
    assert (got.status, got.body, got.headers["etag"]) == (304, b"", page.ETAG)


async def test_a_browser_that_has_another_one_gets_the_page() -> None:
    got = await answered(FACES, "GET", "/", headers=[("if-none-match", '"other"')])
    assert (got.status, got.body) == (200, page.PAGE)


async def test_the_policy_allows_what_stands_in_the_page_and_nothing_else() -> None:
    got = await answered(FACES, "GET", "/")
    rules = dict(
        rule.strip().split(" ", 1) for rule in got.headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["img-src"] == "'self' data:"
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert rules[name] == "'none'"
    script = re.search(rb"<script>(.*)</script>", page.PAGE, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1]).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in got.headers["content-security-policy"]


def test_a_page_without_script_may_run_none() -> None:
    assert "script-src 'none'" in page.policy(b"<style>p { color: red }</style>")


def test_the_page_loads_nothing_else() -> None:
    text = page.PAGE.decode()
    attributes = re.findall(r"\b(?:src|href|action)=\"([^\"]*)\"", text)
    assert attributes, "the page has links of its own"
    assert all(each.startswith(("#", "data:")) for each in attributes)
    assert "@import" not in text
    assert "url(" not in text
    # What would make markup of a model's text.
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert name not in text


# ------------------------------------------------------------------ the code of a link


async def test_a_code_is_good_for_the_token_once(tmp_path: Path) -> None:
    web = WebAccess(tmp_path)
    daemon, code = SimpleNamespace(web=web), web.new_code()
    assert answer_of(await page.redeem(call(daemon, {"code": code}))) == {"token": web.token()}
    with pytest.raises(Problem) as again:
        await page.redeem(call(daemon, {"code": code}))
    assert again.value.status == 403
    assert "hybridctl http url" in again.value.message


@pytest.mark.parametrize("body", [{}, {"code": None}, {"code": 1}, {"code": ["a"]}])
async def test_a_code_is_a_text(body: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidParams) as wrong:
        await page.redeem(call(SimpleNamespace(web=WebAccess(tmp_path)), body))
    assert wrong.value.data["field"] == "code"


async def test_only_the_page_and_the_code_need_no_token() -> None:
    for target in ("/api/v1/page/state", "/api/v1/page/models"):
        got = await answered(FACES, "GET", target, headers=SAME_SITE, policy=LOCKED)
        assert got.status == 401
        assert "hybridctl http token" in got.json["error"]["message"]
    got = await answered(FACES, "POST", "/auth/redeem", {}, headers=SAME_SITE, policy=LOCKED)
    assert (got.status, got.json["error"]["data"]["field"]) == (400, "code")


async def test_another_site_cannot_try_codes() -> None:
    headers = [("origin", "http://elsewhere.test"), ("sec-fetch-site", "cross-site")]
    got = await answered(
        FACES, "POST", "/auth/redeem", {"code": "a"}, headers=headers, policy=LOCKED
    )
    assert got.status == 403


# ------------------------------------------------------------------ state and models


async def test_the_state_is_one_answer() -> None:
    async def read() -> dict[str, Any]:
        return {"version": "1"}

    async def loaded() -> list[dict[str, Any]]:
        return [{"id": "lab/m", "status": "loaded"}]

    job = Job("load-1", "load", "lab/m", state="running", stage="weights", done=1, total=4)
    daemon = SimpleNamespace(
        information=SimpleNamespace(read=read),
        manager=SimpleNamespace(loaded=loaded),
        jobs=SimpleNamespace(all=lambda: [job]),
    )
    told = answer_of(await page.state(call(daemon)))
    assert told["info"] == {"version": "1"}
    assert told["loaded"] == [{"id": "lab/m", "status": "loaded"}]
    assert [(each["job"], each["fraction"]) for each in told["jobs"]] == [("load-1", 0.25)]


async def test_models_have_what_runs_of_them() -> None:
    loaded = [{"id": "lab/b", "status": "loading"}]
    models = Models(record("lab/a", context_length=4096), record("lab/b"), loaded=loaded)
    daemon = models.call().daemon
    library: Any = daemon.library
    library.snapshot = SimpleNamespace(revision=7, complete=True)
    told = answer_of(await page.models(call(daemon)))
    assert (told["revision"], told["complete"]) == (7, True)
    shown = {each["id"]: (each["status"], each.get("context_length")) for each in told["models"]}
    assert shown == {"lab/a": ("available", 4096), "lab/b": ("loading", None)}


async def test_models_that_cannot_be_used_are_not_among_them() -> None:
    models = Models(record("lab/a"), record("lab/broken", status="invalid", reason="cut off"))
    daemon = models.call().daemon
    library: Any = daemon.library
    library.snapshot = SimpleNamespace(revision=1, complete=False)
    told = answer_of(await page.models(call(daemon)))
    assert [each["id"] for each in told["models"]] == ["lab/a"]
    assert told["complete"] is False
