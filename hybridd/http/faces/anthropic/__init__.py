"""Anthropic's API: `/v1/messages`, whole and streamed, and its `count_tokens`."""

from __future__ import annotations

from hybridd.http.faces.anthropic import handlers, requests
from hybridd.http.faces.anthropic.answers import error_body
from hybridd.http.faces.api import Face, Route
from hybridd.http.faces.shared import bodies

_MESSAGE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": {"type": "string"},
        "content": {"type": "array", "items": {"type": "object"}},
        "stop_reason": {"type": "string"},
        "stop_sequence": {"type": "null"},
        "usage": {"type": "object"},
    },
    "required": ["id", "type", "role", "model", "content", "stop_reason", "usage"],
}
_COUNT = {
    "type": "object",
    "properties": {"input_tokens": {"type": "integer"}},
    "required": ["input_tokens"],
}
FACE = Face(
    "anthropic",
    ("/v1/messages",),
    (
        Route(
            "POST",
            "/v1/messages",
            handlers.messages,
            "Answer a conversation.",
            body=bodies.schema(requests.BODY),
            result=_MESSAGE,
        ),
        Route(
            "POST",
            "/v1/messages/count_tokens",
            handlers.count_tokens,
            "How many tokens a conversation's prompt has.",
            body=bodies.schema(requests.COUNTED),
            result=_COUNT,
        ),
    ),
    error_body,
)
