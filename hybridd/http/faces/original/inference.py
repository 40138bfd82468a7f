"""`/api/v1/chat/completions`, `/completions` and `/embeddings`: OpenAI's bodies and answers."""

from __future__ import annotations

from dataclasses import replace

from hybridd.http.faces import openai

_PATHS = ("/chat/completions", "/completions", "/embeddings")
ROUTES = tuple(
    replace(route, pattern=f"/api{route.pattern}")
    for route in openai.FACE.routes
    if route.pattern in {f"/v1{path}" for path in _PATHS}
)
