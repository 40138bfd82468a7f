"""What `/openapi.json` says of bodies and answers is JSON Schema, and true."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as some
from jsonschema import Draft202012Validator

from hybridd.http import openapi
from hybridd.http.faces import openai
from hybridd.http.faces.api import Reply, Route
from hybridd.http.faces.known import FACES
from hybridd.http.faces.openai import chat, completions, embeddings, rerank, responses
from hybridd.http.faces.shared.bodies import read
from hybridd.http.faces.shared.bodies import schema as schema_of
from hybridd.http.problems import Problem
from hybridd.wire.errors import HybriddError, InvalidParams
from tests.http.faces.support import Models, record
from tests.http.faces.test_any_body import RESULTS, VALUES, bodies
from tests.http.support import answered

# 300 of each found nothing more.
EXAMPLES = 40
ROUTES = [route for face in FACES for route in face.routes]
TAKING = [route for route in ROUTES if route.body is not None]
OPENAI = [r for r in openai.FACE.routes if r.body is not None and r.pattern.startswith("/v1")]


def name(route: Route) -> str:
    return f"{route.method} {route.pattern}"


def suits(schema: Any, value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


async def test_it_is_served_and_has_every_route() -> None:
    got = await answered(FACES, "GET", "/openapi.json")
    assert (got.status, got.json["openapi"]) == (200, "3.1.0")
    paths = got.json["paths"]
    assert {(r.method.lower(), r.pattern) for r in ROUTES} == {
        (method, path) for path, operations in paths.items() for method in operations
    }
    ids = [each["operationId"] for one in paths.values() for each in one.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("route", ROUTES, ids=name)
def test_schemas_are_schemas(route: Route) -> None:
    for schema in (route.body, route.result):
        if schema is not None:
            Draft202012Validator.check_schema(json.loads(json.dumps(schema)))


def test_what_is_posted_is_described() -> None:
    """A route without a body's schema takes none: what it does stands in its path."""
    document = openapi.document(FACES)
    described = {
        path
        for path, operations in document["paths"].items()
        if "requestBody" in operations.get("post", {})
    }
    posts = {r.pattern for r in ROUTES if r.method == "POST" and r.body is not None}
    assert described == posts
    assert {r.pattern for r in OPENAI} <= posts


async def outcome(route: Route, body: dict[str, Any]) -> Any:
    """What the handler answers or raises."""
    daemon = Models(record("m"), answer=lambda ask: {"model": "m", **RESULTS[ask.kind]})
    try:
        return await route.handler(daemon.call(body, id="m"))
    except (HybriddError, Problem) as exc:
        return exc


@pytest.mark.parametrize("route", TAKING, ids=name)
@settings(max_examples=EXAMPLES)
@given(data=some.data())
def test_what_the_schema_refuses_is_refused(route: Route, data: some.DataObject) -> None:
    body = data.draw(bodies(route))
    got = trio.run(outcome, route, body)
    if not suits(route.body, body):
        assert isinstance(got, InvalidParams), body
    if isinstance(got, Reply):
        value = json.loads(got.value) if isinstance(got.value, bytes) else got.value
        Draft202012Validator(route.result or {}).validate(value)


EXAMPLE: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "prompt": "Hi",
    "input": "Hi",
    "query": "Hi",
    "documents": ["Hi"],
}
STRUCTS = {
    "/chat/completions": chat.BODY,
    "/completions": completions.BODY,
    "/embeddings": embeddings.BODY,
    "/responses": responses.BODY,
    "/rerank": rerank.BODY,
}
# What their texts have to be is said in words; an object's distinct names too.
IN_WORDS = frozenset({"keep_alive", "keepalive", "timeout", "load_options", "adapters"})
FIELDS = [
    (path, field)
    for path, struct in STRUCTS.items()
    for field in sorted(struct.fields.keys() - IN_WORDS)
]
# JSON Schema's integers may be written as 1.0; here they may not.
FRACTIONS = some.floats(-1e6, 1e6).filter(lambda number: not number.is_integer())
VALUES_OF_FIELDS = some.one_of(
    some.none(), some.booleans(), some.integers(-3, 300), FRACTIONS, VALUES, some.just("x" * 2000)
).filter(lambda value: ".0" not in json.dumps(value))


@pytest.mark.parametrize(("path", "field"), FIELDS)
@settings(max_examples=EXAMPLES)
@given(value=VALUES_OF_FIELDS)
def test_a_field_takes_just_what_its_schema_says(path: str, field: str, value: Any) -> None:
    struct = STRUCTS[path]
    schema = schema_of(struct)["properties"][field]
    required = {name: EXAMPLE[name] for name in struct.required}
    try:
        read(struct, {**required, field: value})
    except InvalidParams:
        assert not suits(schema, value)
    else:
        assert suits(schema, value)
