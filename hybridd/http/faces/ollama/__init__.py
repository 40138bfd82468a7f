"""Ollama's API below `/api`: its clients list, show, load and ask the models of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import Face, Handler, Route
from hybridd.http.faces.ollama import catalog, handlers, requests
from hybridd.http.faces.ollama.answers import error_body
from hybridd.http.faces.shared import bodies

_OBJECT: Mapping[str, Any] = {"type": "object"}
_LIST: Mapping[str, Any] = {
    "type": "object",
    "properties": {"models": {"type": "array", "items": {"type": "object"}}},
    "required": ["models"],
}


def _post(
    path: str,
    handler: Handler,
    summary: str,
    body: Mapping[str, Any],
    result: Mapping[str, Any] = _OBJECT,
) -> Route:
    return Route("POST", path, handler, summary, body=body, result=result)


_REFUSED = "Not here: hybridd leaves files to their owner."
FACE = Face(
    "ollama",
    ("/api",),
    (
        Route("GET", "/api/version", catalog.version, "Which API this is.", result=_OBJECT),
        Route("GET", "/api/tags", catalog.tags, "Every model that can be loaded.", result=_LIST),
        Route("GET", "/api/ps", catalog.ps, "The models in memory.", result=_LIST),
        _post(
            "/api/show", catalog.show, "What is known of a model.", bodies.schema(requests.NAMED)
        ),
        _post("/api/pull", catalog.pull, "Whether a model is here.", bodies.schema(requests.PULL)),
        _post(
            "/api/generate",
            handlers.generate,
            "Go on from a prompt.",
            bodies.schema(requests.GENERATE),
        ),
        _post("/api/chat", handlers.chat, "Answer a conversation.", bodies.schema(requests.CHAT)),
        _post("/api/embed", handlers.embed, "Vectors of texts.", bodies.schema(requests.EMBED)),
        _post(
            "/api/embeddings",
            handlers.embeddings,
            "The vector of one text.",
            bodies.schema(requests.EMBEDDINGS),
        ),
        *(
            _post(f"/api/{name}", catalog.refused, _REFUSED, _OBJECT)
            for name in ("create", "copy", "push", "blobs/{digest}")
        ),
        Route("DELETE", "/api/delete", catalog.refused, _REFUSED, result=_OBJECT),
    ),
    error_body,
)
