"""`/v1/rerank`: documents by how well they answer, in the shape of Jina's and Cohere's clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    "rank_fields": ListOf(Text(), min_length=1, max_length=64),
}
BODY = Struct(_FIELDS, required=("model", "query", "documents"), open=True, what="a reranking")
_FIELDS_OF_DOCUMENTS = ("text",)


async def rerank(call: Call) -> Answer:
    """How well each document answers the query, the best first."""
    body = bodies.read(BODY, call.body)
    names = body.get("rank_fields", _FIELDS_OF_DOCUMENTS)
    texts = [text_of(document, names, i) for i, document in enumerate(body["documents"])]
    request = {"query": body["query"], "documents": texts, "top_n": body.get("top_n")}
    made = await call.infer(ask("rerank", body, request, {}, call.autoload))
    shown = []
    for result in made["results"]:
        each: dict[str, Any] = {"index": result["index"], "relevance_score": result["score"]}
        if body.get("return_documents"):
            document = body["documents"][result["index"]]
            each["document"] = {"text": document} if isinstance(document, str) else document
        shown.append(each)
    tokens = made.get("usage", {}).get("prompt_tokens", 0)
    return Reply(
        {
            "id": "rerank-" + call.id.removeprefix("req_"),
            "model": made["model"],
            "results": shown,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            # Where Cohere's clients look for it.
            "meta": {"tokens": {"input_tokens": tokens, "output_tokens": 0}},
        }
    )


def text_of(document: str | Mapping[str, Any], names: Sequence[str], index: int) -> str:
    """A document's text: itself, or that of its fields with these names.

    Raises:
        InvalidParams: It has none.
    """
    if isinstance(document, str):
        return document
    found = [document[name] for name in names if isinstance(document.get(name), str)]
    if not found:
        field = f"documents.{index}"
        reason = f"takes a text, or an object with texts as {', '.join(names)}"
        raise InvalidParams(f"{field} {reason}", field=field, reason=reason)
    return "\n".join(found)
