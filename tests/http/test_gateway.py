"""One request through the gateway, without a server: guard, route, body, answer, error shapes."""

from __future__ import annotations

import logging
import time
from collections.abc import Container
from typing import Any

import pytest
import trio

from hybridd.http.faces.api import Answer, Call, Face, Produced, Reply, Route, Send, Streamed
from hybridd.http.guard import Policy
from hybridd.http.problems import Problem
from hybridd.wire.errors import (
    Busy,
    DoesNotFit,
    InvalidParams,
    ModelNotFound,
    Quarantined,
    ShuttingDown,
)
from tests.http.support import FakeManager, Lines, answered, ask, says


async def show(call: Call) -> Answer:
    return Reply({"id": call.path.get("id"), "query": dict(call.query), "body": call.body})


async def fail(call: Call) -> Answer:
    kinds = {
        "busy": Busy("full", queue_length=3, retry_after_s=1.2),
        "gone": ModelNotFound("no model x", model="x"),
        "full": DoesNotFit("too large"),
        "ending": ShuttingDown("ending"),
        "wrong": InvalidParams("top_p takes a number", field="top_p", reason="no number"),
    }
    raise kinds[call.query["as"]]


async def stream(call: Call) -> Answer:
    return Streamed([ask()], Lines())


async def produce(call: Call) -> Answer:
    async def run(send: Send) -> None:
        await send(b"one")
        await send(b"two")

    return Produced("text/event-stream", run)


async def infer(call: Call) -> Answer:
    return Reply(await call.infer(ask()))


def envelope(name: str) -> Any:
    return lambda problem: {name: problem.kind, "message": problem.message, **problem.data}


FACE = Face(
    "first",
    ("/first",),
    (
        Route("GET", "/first/models/{id}", show, ""),
        Route("POST", "/first/show", show, "", body={}),
        Route("GET", "/first/fail", fail, ""),
        Route("POST", "/first/stream", stream, "", body={}),
        Route("GET", "/first/produce", produce, ""),
        Route("POST", "/first/infer", infer, "", body={}),
        Route("GET", "/first/act", show, "", acts=True),
        Route("GET", "/first/open", show, "", open=True),
    ),
    envelope("first_error"),
)
OTHER = Face("other", ("/other",), (), envelope("other_error"))
FACES = [FACE, OTHER]
LOCKED = Policy(frozenset({"localhost"}), frozenset({"http://app.test"}), "secret-token")


async def test_a_route_gets_path_query_and_no_body() -> None:
    got = await answered(FACES, "GET", "/first/models/a%2Fb?x=1&x=2&y=%C3%BC")
    assert got.status == 200
    assert got.json == {"id": "a/b", "query": {"x": "2", "y": "ü"}, "body": None}
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-id"].startswith("req_")
    assert got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "seen"), [(b"", {}), (b"  ", {}), (b"{}", {}), (b'{"a": null}', {"a": None})]
)
async def test_bodies(body: bytes, seen: Any) -> None:
    assert (await answered(FACES, "POST", "/first/show", body)).json["body"] == seen


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b"nonsense", 400),
        (b'"text"', 400),
        (b'{"a": NaN}', 400),
        (b'{"a": 1, "a": 2}', 400),
        (b"\xff{}", 400),
        (b"[" * 5000, 400),
        (b"[" + b"1," * 300_000 + b"1]", 413),
    ],
)
async def test_bodies_that_are_no_object(body: bytes, status: int) -> None:
    got = await answered(FACES, "POST", "/first/show", body)
    assert got.status == status
    assert "body" in got.json["message"]


@pytest.mark.parametrize(
    ("target", "status", "envelope"),
    [
        ("/first/none", 404, "first_error"),
        ("/other/none", 404, "other_error"),
        ("/none", 404, "first_error"),
        ("/first/show", 405, "first_error"),
    ],
)
async def test_errors_have_the_shape_of_the_face_that_was_asked(
    target: str, status: int, envelope: str
) -> None:
    got = await answered(FACES, "GET", target)
    assert got.status == status
    assert envelope in got.json


@pytest.mark.parametrize(("left_s", "shown"), [(1e6, range(990_000, 1_000_001)), (-5, [1])])
def test_a_model_that_is_left_alone_says_for_how_long(left_s: float, shown: Container[int]) -> None:
    error = Quarantined("left alone", reason="it died", until=time.time() + left_s)
    [(name, value)] = Problem.of(error).headers
    assert name == "retry-after"
    assert int(value) in shown


@pytest.mark.parametrize(
    ("kind", "status", "headers"),
    [
        ("busy", 429, {"retry-after": "2"}),
        ("gone", 404, {}),
        ("full", 507, {"x-should-retry": "false"}),
        ("ending", 503, {"retry-after": "5"}),
        ("wrong", 400, {}),
    ],
)
async def test_kinds_have_a_status(kind: str, status: int, headers: dict[str, str]) -> None:
    got = await answered(FACES, "GET", f"/first/fail?as={kind}")
    assert got.status == status
    assert headers.items() <= got.headers.items()


async def test_the_guard_is_asked_first_and_hides_what_there_is() -> None:
    for target in ("/first/none", "/first/show", "/first/models/x"):
        got = await answered(FACES, "GET", target, policy=LOCKED)
        assert got.status == 401
    got = await answered(FACES, "GET", "/first/open", policy=LOCKED)
    assert got.status == 200
    token = ("authorization", "Bearer secret-token")
    got = await answered(FACES, "GET", "/first/models/x", headers=[token], policy=LOCKED)
    assert got.status == 200


async def test_what_acts_is_not_done_for_another_site() -> None:
    site = ("sec-fetch-site", "cross-site")
    got = await answered(FACES, "GET", "/first/act", headers=[site])
    assert got.status == 403


async def test_cors_stands_on_errors_too() -> None:
    origin = ("origin", "http://app.test")
    for target in ("/first/models/x", "/first/none", "/first/fail?as=gone"):
        got = await answered(FACES, "GET", target, headers=[origin])
        assert got.headers["access-control-allow-origin"] == "http://app.test"
    got = await answered(FACES, "POST", "/first/stream", {}, headers=[origin])
    assert got.headers["access-control-allow-origin"] == "http://app.test"


async def test_options() -> None:
    got = await answered(FACES, "OPTIONS", "/first/show")
    assert (got.status, got.headers["allow"]) == (204, "OPTIONS, POST")
    asks = [("origin", "http://app.test"), ("access-control-request-method", "POST")]
    got = await answered(FACES, "OPTIONS", "/first/show", headers=asks, policy=LOCKED)
    assert got.status == 204
    assert got.headers["access-control-allow-origin"] == "http://app.test"
    assert (await answered(FACES, "OPTIONS", "/nowhere")).status == 404


@pytest.mark.parametrize("target", ["http://localhost/first/models/x", "*", "x"])
async def test_targets_that_are_no_path(target: str) -> None:
    assert (await answered(FACES, "GET", target)).status == 400


async def test_a_stream_whole() -> None:
    got = await answered(FACES, "POST", "/first/stream", {}, manager=FakeManager(says("a", "b")))
    assert (got.status, got.headers["content-type"]) == (200, "text/plain")
    text = b"".join(got.stream.pieces).decode()
    assert text.startswith("begin\n")
    assert text.endswith("0 ended by stop\nfinish\n")
    assert got.ended


async def test_a_stream_that_fails_at_once_has_its_own_status() -> None:
    manager = FakeManager(says(error=Busy("full", queue_length=1, retry_after_s=3)))
    got = await answered(FACES, "POST", "/first/stream", {}, manager=manager)
    assert (got.status, got.headers["retry-after"]) == (429, "3")


async def test_what_is_produced() -> None:
    got = await answered(FACES, "GET", "/first/produce")
    assert (got.status, got.stream.pieces, got.ended) == (200, [b"one", b"two"], True)
    got = await answered(FACES, "HEAD", "/first/produce")
    assert (got.status, got.headers["content-type"]) == (200, "text/event-stream")
    assert got.stream.pieces == []


async def test_an_ask_is_checked_before_it_goes_to_the_manager() -> None:
    manager = FakeManager(says("yes"))
    got = await answered(FACES, "POST", "/first/infer", {}, manager=manager)
    assert got.json["text"] == "yes"
    assert manager.asked[0]["request"] == {"prompt": "p"}


async def test_the_log_has_the_request_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hybridd.http.gateway")
    got = await answered(FACES, "GET", "/first/models/a?secret=1")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("GET /first/models/a 200 in ")
    assert got.headers["x-request-id"] in line
    assert "secret" not in caplog.text


async def test_a_client_that_leaves_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "hybridd.http.gateway")

    async def never(model: str, sink: Any) -> Any:
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        scope.cancel()
        await answered(FACES, "POST", "/first/infer", {}, manager=FakeManager(never))
    assert "unanswered" in caplog.text
    assert "left by the client" in caplog.text


def test_a_problem_tells_what_the_error_told() -> None:
    problem = Problem.of(ModelNotFound("no x", model="x", suggestions=["y"], other=None))
    assert problem.data == {"model": "x", "suggestions": ["y"]}
