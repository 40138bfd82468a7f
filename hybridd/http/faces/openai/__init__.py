"""OpenAI's API, below `/v1` and without it, and the rerankers' that share its shape."""

from __future__ import annotations

from hybridd.core.fields import Struct
from hybridd.http.faces.api import Face, Handler, Route
from hybridd.http.faces.openai import (
    chat,
    completions,
    embeddings,
    models,
    rerank,
    responses,
    schemas,
)
from hybridd.http.faces.openai.errors import error
from hybridd.http.faces.openai.schemas import Schema
from hybridd.http.faces.shared import bodies

# Clients are told either as the base.
_BASES = ("/v1", "")


def _get(path: str, handler: Handler, summary: str, result: Schema) -> tuple[Route, ...]:
    return tuple(Route("GET", f"{base}{path}", handler, summary, result=result) for base in _BASES)


def _post(
    path: str,
    handler: Handler,
    summary: str,
    body: Struct,
    result: Schema,
    bases: tuple[str, ...] = _BASES,
) -> tuple[Route, ...]:
    takes = bodies.schema(body)
    return tuple(Route("POST", f"{base}{path}", handler, summary, takes, result) for base in bases)


FACE = Face(
    "openai",
    (
        *("/v1", "/v2", "/models", "/chat", "/completions", "/embeddings", "/responses"),
        "/rerank",
    ),
    (
        *_get("/models", models.list_models, "Every model that can be loaded.", schemas.MODELS),
        *_get("/models/{id}", models.show, "One model.", schemas.MODEL),
        *_post("/chat/completions", chat.chat, "Answer a conversation.", chat.BODY, schemas.CHAT),
        *_post(
            "/completions",
            completions.completions,
            "Go on from a prompt.",
            completions.BODY,
            schemas.COMPLETION,
        ),
        *_post(
            "/embeddings",
            embeddings.embeddings,
            "A vector for each text.",
            embeddings.BODY,
            schemas.EMBEDDINGS,
        ),
        *_post(
            "/responses",
            responses.responses,
            "Answer a conversation, as a response with items.",
            responses.BODY,
            schemas.RESPONSE,
        ),
        *_post(
            "/rerank",
            rerank.rerank,
            "Sort documents by how well they answer a query.",
            rerank.BODY,
            schemas.RERANKING,
            (*_BASES, "/v2"),  # Cohere's clients add it
        ),
    ),
    error,
)
