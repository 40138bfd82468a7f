"""OpenAI's API while a model loads, a queue is full, a model must stay out or has failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import RealDaemon, check_end
from tests.e2e.http_client import Answer, ask, events

SAID = [{"role": "user", "content": "one two three"}]
SLOW_S = 7.0  # longer than a stream is silent
BODIES: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": SAID},
    "/completions": {"prompt": "one two three"},
    "/responses": {"input": "one two three"},
}
GENERATING = pytest.mark.parametrize(("path", "body"), BODIES.items())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """A daemon whose models wait for one request each, and behave as their names say."""
    daemon = RealDaemon(tmp_path_factory.mktemp("waiting"), HYBRIDD_LIMITS_MAX_QUEUE="1")
    for name, behaviour in {
        "both": {"capabilities": ["completion", "chat", "embedding", "reranking"]},
        "cold": {},
        "slow": {"load_s": SLOW_S, "load_steps": 4},
        "busy": {"token_delay_s": 0.05, "reply": "word " * 2000},
        "broken": {"crash_on": "load"},
        "short": {},
    }.items():
        (daemon.models / f"{name}.echo").write_text(json.dumps(behaviour))
    daemon.start()
    with daemon.client() as client:
        client.rescan()
    yield daemon
    check_end(daemon)


def post(daemon: RealDaemon, path: str, **body: Any) -> Answer:
    return ask(daemon.http_socket, "POST", path, body)


def status_of(daemon: RealDaemon, model: str) -> str:
    shown = ask(daemon.http_socket, "GET", f"/v1/models/{model}").json
    return str(shown["status"])


def steady(answer: Answer) -> Any:
    """An answer without what differs each time."""
    passing = ("id", "created", "created_at", "timings", "output")
    return {name: value for name, value in answer.json.items() if name not in passing}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *BODIES.items(),
        ("/embeddings", {"input": "one"}),
        ("/rerank", {"query": "one", "documents": ["one", "two"]}),
    ],
)
def test_with_v1_and_without(served: RealDaemon, path: str, body: dict[str, Any]) -> None:
    answers = [post(served, base + path, model="both", **body) for base in ("/v1", "")]
    assert [answer.status for answer in answers] == [200, 200]
    assert steady(answers[0]) == steady(answers[1])
    for wanted in ("/models", "/models/both"):
        listed, other = (ask(served.http_socket, "GET", base + wanted) for base in ("/v1", ""))
        assert (listed.status, listed.json) == (200, other.json)
    for base in ("/v1", ""):
        refused = ask(served.http_socket, "GET", base + path)
        assert refused.status == 405
        assert refused.headers["allow"] == "OPTIONS, POST"
        assert refused.json["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("stream", [False, True])
@GENERATING
def test_a_model_that_must_not_be_loaded_for_it(
    served: RealDaemon, path: str, body: dict[str, Any], stream: bool
) -> None:
    refused = post(served, f"/v1{path}?autoload=false", model="cold", stream=stream, **body)
    assert (refused.status, refused.json["error"]["code"]) == (400, "not_loaded")
    assert "cold" in refused.json["error"]["message"]
    assert status_of(served, "cold") == "available"
    assert post(served, f"/v1{path}?autoload=false", model="both", **body).status == 200


def test_a_stream_tells_what_it_waits_for(served: RealDaemon) -> None:
    body = {"model": "slow", "messages": SAID, "stream": True}
    told = list(events(served.http_socket, "POST", "/v1/chat/completions", body))
    assert told[0][1]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    comments = [text for name, text in told if not name]
    assert comments
    assert all(text.startswith("loading slow") for text in comments)
    assert [name for name, _ in told][1 : 1 + len(comments)] == [""] * len(comments)
    texts = [c["delta"].get("content", "") for n, e in told[1:-1] if n for c in e["choices"]]
    assert "".join(texts).strip() == "one two three"
    assert told[-1] == ("message", "[DONE]")


def test_how_long_a_model_stays(served: RealDaemon) -> None:
    with served.client() as watcher, watcher.events("models") as watched:
        first = post(served, "/v1/completions", model="short", prompt="a", keep_alive=-1)
        assert first.status == 200
        [shown] = [
            model
            for model in ask(served.http_socket, "GET", "/api/ps").json["models"]
            if model["name"] == "short"
        ]
        assert shown["expires_at"] > "2200"
        assert (
            post(served, "/v1/completions", model="short", prompt="a", keep_alive=0).status == 200
        )
        assert next(e for e in watched if (e.raw.get("id"), e.type) == ("short", "unloaded"))
    refused = post(served, "/v1/completions", model="short", prompt="a", keep_alive="soon")
    assert (refused.status, refused.json["error"]["param"]) == (400, "keep_alive")


def test_a_full_queue_says_when_to_come_again(served: RealDaemon) -> None:
    body = {"model": "busy", "messages": SAID, "stream": True}
    running = events(served.http_socket, "POST", "/v1/chat/completions", body)
    for _, event in running:
        if event["choices"][0]["delta"].get("content"):
            break
    waiting = events(served.http_socket, "POST", "/v1/chat/completions", body)
    next(waiting)  # its head came: it is in the queue
    for stream in (False, True):
        refused = post(served, "/v1/chat/completions", **{**body, "stream": stream})
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
        error = refused.json["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "busy")
    waiting.close()
    running.close()


def test_a_model_that_keeps_failing_is_left_alone_for_a_time(served: RealDaemon) -> None:
    answers = []
    while not answers or answers[-1].status != 503:
        answers.append(post(served, "/v1/chat/completions", model="broken", messages=SAID))
        assert len(answers) < 10
    assert {answer.status for answer in answers[:-1]} == {500}
    assert answers[-1].json["error"]["code"] == "quarantined"
    assert int(answers[-1].headers["retry-after"]) >= 1
