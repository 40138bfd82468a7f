"""Whatever a body has in it, a handler answers, or says in the protocol's errors what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as some

from hybridd.http.faces import anthropic, llamacpp, ollama, openai
from hybridd.http.faces.api import Ask, Reply, Route, Streamed
from hybridd.http.problems import Problem
from hybridd.wire.delta import Delta
from hybridd.wire.errors import HybriddError
from tests.http.faces.support import TIMINGS, USAGE, Models, record

# 1,500 of each found nothing more.
EXAMPLES = 40
ROUTES = [
    route
    for face in (anthropic.FACE, ollama.FACE, llamacpp.FACE, openai.FACE)
    for route in face.routes
    if route.method == "POST" and (face is not openai.FACE or route.pattern.startswith("/v1"))
]
RESULTS: Mapping[str, Mapping[str, Any]] = {
    "generate": {"text": "a", "finish_reason": "stop", "usage": USAGE, "timings": TIMINGS},
    "chat": {
        "message": {"role": "assistant", "content": "a"},
        "finish_reason": "stop",
        "usage": USAGE,
        "timings": TIMINGS,
    },
    "embed": {"embeddings": ["[1]"], "usage": USAGE},
    "rerank": {"results": [{"index": 0, "score": 1.0}], "usage": USAGE},
    "tokenize": {"tokens": [1]},
    "detokenize": {"text": "a"},
    "apply_template": {"prompt": "a"},
}
# What bodies are made of inside, so that what is nearly right comes up too.
_INNER = [
    *("role", "content", "type", "text", "source", "data", "media_type", "tool_use_id", "id"),
    *("name", "input", "function", "arguments", "tool_calls", "images", "thinking", "url"),
    *("prompt_string", "multimodal_data", "format", "filename", "title", "input_schema"),
    *("num_predict", "num_ctx", "top_k", "stop", "mirostat"),
    *("image_url", "call_id", "output", "tools", "namespace", "summary", "effort", "schema"),
]
_WORDS = [*_INNER, "user", "assistant", "system", "tool", "base64", "tool_result", "tool_use"]
_WORDS += ["image", "document", "content", "image/png", "iVBORw0K", "any", "auto", "5m", "m", ""]
_WORDS += ["message", "reasoning", "function_call", "function_call_output", "input_text"]
_WORDS += ["input_image", "image_url", "allowed_tools", "json_object"]
_TEXTS = some.sampled_from(_WORDS) | some.text(max_size=5)
_PLAIN = some.none() | some.booleans() | some.integers() | some.floats(-9, 9) | _TEXTS
VALUES = some.recursive(
    _PLAIN,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(_INNER), inner, max_size=5)
    ),
    max_leaves=12,
)


def bodies(route: Route) -> some.SearchStrategy[dict[str, Any]]:
    """Bodies of a route: some of its fields, with values of any kind or nearly right ones."""
    names = [name for name in (route.body or {}).get("properties", {}) if name != "model"]
    messages = some.lists(
        some.fixed_dictionaries({"role": some.sampled_from(["user", "assistant", "tool"])}).flatmap(
            lambda made: VALUES.map(lambda content: {**made, "content": content})
        ),
        min_size=1,
        max_size=3,
    )
    fields = some.fixed_dictionaries(
        {"model": some.just("m")},
        optional={n: (messages | VALUES if n == "messages" else VALUES) for n in names},
    )
    return fields | some.dictionaries(some.sampled_from([*names, "model"]), VALUES)


async def answered(route: Route, body: dict[str, Any]) -> None:
    """Ask, and have what is answered written."""
    daemon = Models(record("m"), answer=lambda ask: {"model": "m", **RESULTS[ask.kind]})
    try:
        answer = await route.handler(daemon.call(body))
    except (HybriddError, Problem):
        return
    if isinstance(answer, Reply):
        assert isinstance(answer.value, bytes) or json.dumps(answer.value)
    elif isinstance(answer, Streamed):
        result = RESULTS[answer.asks[0].kind]
        assert answer.writer.begin() is not None
        assert answer.writer.delta(0, Delta("a", 1, "b", [{"function": {"name": "c"}}]))
        assert answer.writer.end(0, result)
    assert all(isinstance(ask, Ask) for ask in daemon.asked)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.pattern)
@settings(max_examples=EXAMPLES)
@given(data=some.data())
def test_no_body_is_a_bug(route: Route, data: some.DataObject) -> None:
    trio.run(answered, route, data.draw(bodies(route)))
