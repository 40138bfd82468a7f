"""LM Studio's REST API, version 0: OpenAI's bodies with numbers beside the answer."""

from __future__ import annotations

from dataclasses import replace

from hybridd.http.faces.api import Face, Route
from hybridd.http.faces.lmstudio import catalog, stats

_PREFIX = "/api/v0"
_LIST = {
    "type": "object",
    "properties": {"data": {"type": "array", "items": {"type": "object"}}},
    "required": ["data"],
}
_ALIKE = ("/chat/completions", "/completions", "/embeddings")


def face(openai: Face) -> Face:
    """The face, which answers by the handlers of OpenAI's."""
    theirs = {(route.method, route.pattern): route for route in openai.routes}
    alike = [theirs["POST", f"/v1{path}"] for path in _ALIKE]
    return Face(
        "lm studio",
        (_PREFIX,),
        (
            Route(
                "GET",
                f"{_PREFIX}/models",
                catalog.list_models,
                "Every model that can be loaded.",
                result=_LIST,
            ),
            Route(
                "GET",
                f"{_PREFIX}/models/{{id}}",
                catalog.show,
                "One model.",
                result={"type": "object"},
            ),
            *(
                replace(route, pattern=f"{_PREFIX}{path}", handler=stats.added(route.handler))
                for path, route in zip(_ALIKE, alike, strict=True)
            ),
        ),
        openai.error,
    )
