"""`/v1/rerank`: documents by how well they answer, in the shape of Jina's and Cohere's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, ListOf, OneOf, Struct, Text
from hybridd.core.requests import COUNT
from hybridd.http.faces.api import Answer, Call, Reply
from hybridd.http.faces.openai.options import COMMON, ask
from hybridd.http.faces.shared import bodies
from hybridd.wire.errors import InvalidParams

_FIELDS: Mapping[str, Field] = {
    **COMMON,
    "query": Text(),
    "documents": ListOf(OneOf((Text(), Struct({}, open=True))), min_length=1, max_length=10_000),
    "top_n": COUNT,
    "return_documents": Bool(),
}
BODY = Struct(_FIELDS, required=("model", "query", "documents"), open=True, what="a reranking")


async def rerank(call: Call) -> Answer:
    """How well each document answers the query, the best first."""
    body = bodies.read(BODY, call.body)
    texts = [_text(index, document) for index, document in enumerate(body["documents"])]
    request = {"query": body["query"], "documents": texts, "top_n": body.get("top_n")}
    made = await call.infer(ask("rerank", body, request, {}, call.autoload))
    shown = []
    for result in made["results"]:
        each: dict[str, Any] = {"index": result["index"], "relevance_score": result["score"]}
        if body.get("return_documents"):
            each["document"] = {"text": texts[result["index"]]}
        shown.append(each)
    tokens = made.get("usage", {}).get("prompt_tokens", 0)
    return Reply(
        {
            "id": "rerank-" + call.id.removeprefix("req_"),
            "model": made["model"],
            "results": shown,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _text(index: int, document: str | Mapping[str, Any]) -> str:
    """A document's text: itself, or its field `text`."""
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        field = f"documents.{index}"
        reason = "takes a text, or an object with a text"
        raise InvalidParams(f"{field} {reason}", field=field, reason=reason)
    return text
