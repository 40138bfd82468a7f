"""LM Studio's bodies as OpenAI's, where they differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_openai(body: Mapping[str, Any]) -> dict[str, Any]:
    """A limit of -1 is none, and `ttl` is how long the model stays, in seconds."""
    made = dict(body)
    limit = made.get("max_tokens")
    if isinstance(limit, (int, float)) and limit < 0:
        del made["max_tokens"]
    if made.get("ttl") is not None:
        made.setdefault("keep_alive", made["ttl"])
    return made
