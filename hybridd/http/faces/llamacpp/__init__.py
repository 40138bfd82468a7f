"""llama-server's own API, for editors' plug-ins: completions, tokens, templates, what is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.http.faces.api import Face, Route
from hybridd.http.faces.llamacpp import handlers, models, requests
from hybridd.http.faces.llamacpp.answers import error_body
from hybridd.http.faces.shared import bodies

_OBJECT: Mapping[str, Any] = {"type": "object"}
_SLOTS: Mapping[str, Any] = {"type": "array", "items": {"type": "object"}}
_HEALTH = "Whether the daemon is there."
_POSTED = (
    ("/completion", handlers.completion, "Go on from a prompt.", requests.COMPLETION),
    ("/infill", handlers.infill, "Fill a gap in code (not yet).", requests.INFILL),
    ("/tokenize", handlers.tokenize, "A text's tokens.", requests.TOKENIZE),
    ("/detokenize", handlers.detokenize, "The text of tokens.", requests.DETOKENIZE),
    (
        "/apply-template",
        handlers.apply_template,
        "The prompt that a conversation becomes.",
        requests.TEMPLATE,
    ),
)
FACE = Face(
    "llama.cpp",
    ("/health", "/v1/health", "/props", "/slots", *(path for path, *_ in _POSTED)),
    (
        Route("GET", "/health", models.health, _HEALTH, result=_OBJECT, open=True),
        Route("GET", "/v1/health", models.health, _HEALTH, result=_OBJECT, open=True),
        Route("GET", "/props", models.props, "What is known of one model.", result=_OBJECT),
        Route("GET", "/slots", models.slots, "What slots are at work.", result=_SLOTS),
        *(
            Route("POST", path, handler, summary, body=bodies.schema(fields), result=_OBJECT)
            for path, handler, summary, fields in _POSTED
        ),
    ),
    error_body,
)
