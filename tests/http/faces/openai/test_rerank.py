"""Documents in the order of how well they answer."""

from __future__ import annotations

from typing import Any

import pytest

from hybridd.http.faces.openai import FACE
from hybridd.wire.errors import InvalidParams
from tests.http.faces.openai.support import asked, models, replied

PATH = "/rerank"
RESULT = {
    "model": "lab/m",
    "results": [{"index": 1, "score": 0.75}, {"index": 0, "score": -2.0}],
    "usage": {"prompt_tokens": 12, "total_tokens": 12},
}
BODY = {"model": "m", "query": "q", "documents": ["a", {"text": "b", "id": 7}]}


async def test_the_best_comes_first() -> None:
    daemon = models(RESULT)
    value = await replied(PATH, daemon, BODY)
    assert value == {
        "id": "rerank-1",
        "model": "lab/m",
        "results": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 0, "relevance_score": -2.0},
        ],
        "usage": {"prompt_tokens": 12, "total_tokens": 12},
        "meta": {"tokens": {"input_tokens": 12, "output_tokens": 0}},
    }
    request = {"query": "q", "documents": ["a", "b"], "top_n": None}
    assert (daemon.asked[0].kind, daemon.asked[0].request) == ("rerank", request)


async def test_documents_come_back_as_they_were() -> None:
    value = await replied(PATH, models(RESULT), {**BODY, "return_documents": True})
    documents = [each["document"] for each in value["results"]]
    assert documents == [{"text": "b", "id": 7}, {"text": "a"}]


@pytest.mark.parametrize(
    ("sent", "request_"),
    [
        ({"top_n": 3}, {"top_n": 3, "documents": ["a"]}),
        (
            {"rank_fields": ["title", "body"], "documents": [{"title": "t", "body": "b", "x": 1}]},
            {"top_n": None, "documents": ["t\nb"]},
        ),
        (
            {"rank_fields": ["title", "body"], "documents": [{"body": "b"}, "c"]},
            {"top_n": None, "documents": ["b", "c"]},
        ),
        ({"max_tokens_per_doc": 9, "top_n": None}, {"top_n": None, "documents": ["a"]}),
    ],
)
async def test_what_is_asked(sent: dict[str, Any], request_: dict[str, Any]) -> None:
    ask = await asked(PATH, {"query": "q", "documents": ["a"], **sent})
    assert ask.request == {"query": "q", **request_}


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": [5]}, "documents.0"),
        ({"documents": ["a", {"title": "b"}]}, "documents.1"),
        ({"top_n": 0}, "top_n"),
    ],
)
async def test_a_bad_field_is_named(sent: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await replied(PATH, models(RESULT), {**BODY, **sent})
    assert caught.value.data["field"] == field


def test_coheres_clients_find_it_too() -> None:
    paths = {route.pattern for route in FACE.routes if route.pattern.endswith("/rerank")}
    assert paths == {"/v1/rerank", "/rerank", "/v2/rerank"}
