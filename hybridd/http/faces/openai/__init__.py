"""OpenAI's API, below `/v1` and without it, and the rerankers' that share its shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import Face, Handler, Route
from hybridd.http.faces.openai import chat, completions, embeddings, models, rerank, responses
from hybridd.http.faces.openai.errors import error

_LISTED = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": {"type": "object"}}},
    "required": ["data"],
}
_OBJECT = {"type": "object"}


def _both(
    method: str,
    path: str,
    handler: Handler,
    summary: str,
    body: Mapping[str, Any] | None = None,
    result: Mapping[str, Any] = _OBJECT,
) -> tuple[Route, Route]:
    """A route with and without `/v1`: clients are told either as the base."""
    return (
        Route(method, f"/v1{path}", handler, summary, body, result),
        Route(method, path, handler, summary, body, result),
    )


FACE = Face(
    "openai",
    ("/v1", "/models", "/chat", "/completions", "/embeddings", "/responses", "/rerank"),
    (
        *_both("GET", "/models", models.list_models, "Every model.", result=_LISTED),
        *_both("GET", "/models/{id}", models.show, "One model."),
        *_both(
            "POST",
            "/chat/completions",
            chat.chat,
            "Answer a conversation.",
            chat.BODY.schema(),
        ),
        *_both(
            "POST",
            "/completions",
            completions.completions,
            "Go on from a prompt.",
            completions.BODY.schema(),
        ),
        *_both(
            "POST",
            "/embeddings",
            embeddings.embeddings,
            "A vector for each text.",
            embeddings.BODY.schema(),
        ),
        *_both(
            "POST",
            "/responses",
            responses.responses,
            "Answer a conversation, as a response with items.",
            responses.BODY.schema(),
        ),
        *_both(
            "POST", "/rerank", rerank.rerank, "Sort documents by a query.", rerank.BODY.schema()
        ),
    ),
    error,
)
