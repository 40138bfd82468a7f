"""Which route a raw path means: slashes in ids, verbs behind them, and what is no path."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridd.http.faces.api import Answer, Call, Face, Reply, Route
from hybridd.http.problems import Problem
from hybridd.http.routing import Router


async def handler(call: Call) -> Answer:
    return Reply({})


def route(method: str, pattern: str) -> Route:
    return Route(method, pattern, handler, "")


def error(problem: Problem) -> Any:
    return {}


ORIGINAL = Face(
    "original",
    ("/api/v1",),
    (
        route("GET", "/api/v1/models"),
        route("GET", "/api/v1/models/loaded"),
        route("GET", "/api/v1/models/{id}"),
        route("POST", "/api/v1/models/{id}/load"),
        route("GET", "/api/v1/models/{id}/load"),
        route("POST", "/api/v1/models/{id}/unload"),
    ),
    error,
)
OLLAMA = Face("ollama", ("/api",), (route("POST", "/api/chat"),), error)
ROUTER = Router([ORIGINAL, OLLAMA])


@pytest.mark.parametrize(
    ("method", "path", "pattern", "id"),
    [
        ("GET", "/api/v1/models", "/api/v1/models", None),
        ("GET", "/api/v1/models/", "/api/v1/models", None),
        ("HEAD", "/api/v1/models", "/api/v1/models", None),
        ("GET", "/api/v1/models/loaded", "/api/v1/models/loaded", None),
        ("GET", "/api/v1/models/a", "/api/v1/models/{id}", "a"),
        ("GET", "/api/v1/models/a/b", "/api/v1/models/{id}", "a/b"),
        ("GET", "/api/v1/models/a%2Fb", "/api/v1/models/{id}", "a/b"),
        ("GET", "/api/v1/models/a%2fb%3AQ4", "/api/v1/models/{id}", "a/b:Q4"),
        ("POST", "/api/v1/models/a/b/load", "/api/v1/models/{id}/load", "a/b"),
        ("GET", "/api/v1/models/a/b/load", "/api/v1/models/{id}/load", "a/b"),
        ("POST", "/api/v1/models/load/load", "/api/v1/models/{id}/load", "load"),
        ("POST", "/api/v1/models/a%2Fload/unload", "/api/v1/models/{id}/unload", "a/load"),
        # What is encoded is no verb, and nothing is normalised.
        ("GET", "/api/v1/models/a%2Fload", "/api/v1/models/{id}", "a/load"),
        ("GET", "/api/v1/models/a/../b", "/api/v1/models/{id}", "a/../b"),
        ("GET", "/api/v1/models/a+b", "/api/v1/models/{id}", "a+b"),
        ("GET", "/api/v1/models/a%20b", "/api/v1/models/{id}", "a b"),
        ("GET", "/api/v1/models/m%C3%BC", "/api/v1/models/{id}", "mü"),
        ("GET", "/api/v1/models/%252F", "/api/v1/models/{id}", "%2F"),
    ],
)
def test_found(method: str, path: str, pattern: str, id: str | None) -> None:
    found = ROUTER.find(method, path)
    assert found.route.pattern == pattern
    assert found.names.get("id") == id


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/api/v1/model", "/api/v1/modelsx", "//api/v1/models", "/x"]
)
def test_not_found(path: str) -> None:
    with pytest.raises(Problem) as caught:
        ROUTER.find("GET", path)
    assert (caught.value.status, caught.value.kind) == (404, "not_found")
    assert ROUTER.methods(path) == ""


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/v1/models", "GET, HEAD, OPTIONS"),
        ("GET", "/api/chat", "OPTIONS, POST"),
        ("POST", "/api/v1/models/a", "GET, HEAD, OPTIONS"),
        ("PUT", "/api/v1/models/a/load", "GET, HEAD, OPTIONS, POST"),
        ("HEAD", "/api/chat", "OPTIONS, POST"),
    ],
)
def test_wrong_method(method: str, path: str, allowed: str) -> None:
    with pytest.raises(Problem) as caught:
        ROUTER.find(method, path)
    assert caught.value.status == 405
    assert dict(caught.value.headers)["allow"] == allowed == ROUTER.methods(path)


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(Problem) as caught:
        ROUTER.find("GET", "/api/v1/models/%ff")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("path", "face"),
    [
        ("/api/v1/nothing", "original"),
        ("/api/v1", "original"),
        ("/api/v1x", "ollama"),
        ("/api/nothing", "ollama"),
        ("/nothing", "original"),
    ],
)
def test_whose_errors(path: str, face: str) -> None:
    assert ROUTER.face(path).name == face


def test_one_route_in_two_faces_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="two faces"):
        Router([OLLAMA, OLLAMA])


@given(st.text(min_size=1).filter(lambda id: id.strip("/") == id))
def test_every_id_is_found_as_it_was(id: str) -> None:
    try:
        encoded = quote(id, safe="")
    except UnicodeEncodeError:
        return
    assert ROUTER.find("POST", f"/api/v1/models/{encoded}/load").names["id"] == id
