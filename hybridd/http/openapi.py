"""`/openapi.json`: every route of every face as an OpenAPI 3.1 document, made from the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hybridd import __version__
from hybridd.http.faces.api import JSON, Answer, Call, Face, Reply, Route
from hybridd.http.problems import Problem

_NAME = re.compile(r"\{(\w+)\}")
_MEANINGS = {
    "id": "A model's id or a name for it. Slashes in it may be sent as they are or as %2F.",
}


def face(faces: Sequence[Face]) -> Face:
    """The face that serves the document of these and of itself."""
    made: list[Face] = []

    async def serve(call: Call) -> Answer:
        return Reply(document([*faces, *made]))

    route = Route("GET", "/openapi.json", serve, "This document.", open=True)
    made.append(Face("openapi", ("/openapi.json",), (route,), _error))
    return made[0]


def document(faces: Sequence[Face]) -> dict[str, Any]:
    """The OpenAPI document of these faces."""
    paths: dict[str, dict[str, Any]] = {}
    for each in faces:
        for route in each.routes:
            operation = _operation(each, route)
            paths.setdefault(route.pattern, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hybridd",
            "version": __version__,
            "description": "One local daemon for language models, in the APIs that clients know.",
        },
        "security": [{"token": []}],
        "tags": [{"name": each.name} for each in faces],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over TCP: what `hybridctl http token` prints.",
                }
            }
        },
    }


def _operation(face: Face, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": route.summary,
        "tags": [face.name],
        "parameters": [
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": _MEANINGS.get(name, ""),
                "schema": {"type": "string", "minLength": 1},
            }
            for name in _NAME.findall(route.pattern)
        ],
        "responses": {
            "200": _response("The answer.", route.result),
            "default": _response("What went wrong, in this API's shape.", {"type": "object"}),
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(route.body.get("required")),
            "content": {JSON: {"schema": route.body}},
        }
    if route.open:
        operation["security"] = []
    return operation


def _response(description: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"description": description}
    return {"description": description, "content": {JSON: {"schema": dict(schema)}}}


def _identifier(route: Route) -> str:
    """`POST /v1/chat/completions` as one word."""
    words = re.findall(r"\w+", route.pattern)
    return "_".join([route.method.lower(), *words]) if words else f"{route.method.lower()}_root"


def _error(problem: Problem) -> dict[str, Any]:
    return {"error": {"message": problem.message, "type": problem.kind}}
