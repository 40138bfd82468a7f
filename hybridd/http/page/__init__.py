"""The page at `/`, and what it alone asks for: the code of a one-time link, one look at the state.

The page is one file that loads nothing else. What it does beyond this it does by the routes that
every client has.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridd.http.faces.api import Answer, Call, Face, Headers, Reply, Route
from hybridd.http.faces.shared.listing import listed
from hybridd.http.problems import Problem
from hybridd.serving.views import Overlay
from hybridd.wire.errors import InvalidParams

_HTML = "text/html; charset=utf-8"
# No model's text and no other site's file may become script: only these two elements are run.
_INLINE = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


def policy(page: bytes) -> str:
    """The Content-Security-Policy that lets a page run what stands in it and nothing else."""
    hashes: dict[str, list[str]] = {"style": [], "script": []}
    for kind, text in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        hashes[kind.decode()].append(f"'sha256-{digest}'")
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(hashes["script"]) or "'none'",
        "style-src": " ".join(hashes["style"]) or "'none'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


PAGE = Path(__file__).with_name("index.html").read_bytes()
ETAG = f'"{hashlib.sha256(PAGE).hexdigest()[:32]}"'
_HEADERS: Headers = (
    ("content-security-policy", policy(PAGE)),
    ("referrer-policy", "no-referrer"),
    # Asked for anew each time, and answered with 304: an upgrade is seen at once.
    ("cache-control", "no-cache"),
    ("etag", ETAG),
)


async def page(call: Call) -> Answer:
    """The page, or 304 where the browser has it."""
    known = [each.strip().removeprefix("W/") for each in _matched(call.headers).split(",")]
    if ETAG in known or "*" in known:
        return Reply(b"", 304, _HEADERS, _HTML)
    return Reply(PAGE, 200, _HEADERS, _HTML)


async def redeem(call: Call) -> Answer:
    """Give the token for the code of a link, once."""
    code = call.body.get("code")
    if not isinstance(code, str):
        raise InvalidParams(
            "code takes the text behind #code= in the link", field="code", reason="no text"
        )
    token = call.daemon.web.redeem(code)
    if token is None:
        raise Problem(
            403,
            "forbidden",
            "this link was used already or is too old; get a new one with: hybridctl http url",
        )
    return Reply({"token": token})


async def state(call: Call) -> Answer:
    """What changes all the time, in one answer: the machine, what is in memory, the jobs."""
    return Reply(
        {
            "info": await call.daemon.information.read(),
            "loaded": await call.daemon.manager.loaded(),
            "jobs": [job.to_wire() for job in call.daemon.jobs.all()],
        }
    )


async def models(call: Call) -> Answer:
    """Every model that can be loaded, as `models.list` has them."""
    found = []
    async for record, over in listed(call.daemon):
        over = over or Overlay()
        found.append(record.to_wire(status=over.status, stale=over.stale, reason=over.reason))
    snapshot = call.daemon.library.snapshot
    return Reply({"models": found, "revision": snapshot.revision, "complete": snapshot.complete})


def error(problem: Problem) -> dict[str, Any]:
    """A problem's body: the message whole, for the page shows it."""
    told = {"message": problem.message, "type": problem.kind, "data": problem.data}
    return {"error": told}


def _matched(headers: Mapping[str, str]) -> str:
    return headers.get("if-none-match", "")


_OBJECT = {"type": "object"}
_CODE = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
ROUTES = (
    Route("GET", "/", page, "A page to look at, for browsers.", open=True),
    Route(
        "POST",
        "/auth/redeem",
        redeem,
        "The token, for the code of a one-time link (`hybridctl http url`).",
        body=_CODE,
        result={"type": "object", "properties": {"token": {"type": "string"}}},
        open=True,
    ),
    Route("GET", "/api/v1/page/state", state, "The page's view of the machine.", result=_OBJECT),
    Route("GET", "/api/v1/page/models", models, "The page's list of models.", result=_OBJECT),
)
FACE = Face("page", ("/auth", "/api/v1/page"), ROUTES, error)
