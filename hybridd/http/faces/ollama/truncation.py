"""Embeddings of texts that are longer than the model takes: their ends are cut off, as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybridd.http.faces.api import Ask, Call
from hybridd.wire.errors import ContextExceeded

# A text that was cut may have more tokens than were left of it; each try cuts more.
_TRIES = 5


async def embedded(call: Call, ask: Ask, *, truncate: bool) -> dict[str, Any]:
    """The result of an `embed`.

    Args:
        truncate: Whether a text that is too long is cut; else it is an error.

    Raises:
        HybriddError: Any of those that a request can meet.
    """
    tries, limit = 0, None
    while True:
        try:
            return await call.infer(ask)
        except ContextExceeded as exc:
            tries += 1
            if not truncate or tries > _TRIES:
                raise
            limit = await _room(call, ask, exc) if limit is None else limit - limit // 16 - 1
            if limit < 1:
                raise
        texts = [await _cut(call, ask, text, limit) for text in ask.request["input"]]
        ask = replace(ask, request={**ask.request, "input": texts})


async def _room(call: Call, ask: Ask, exceeded: ContextExceeded) -> int:
    """How many tokens of its own a text may have; the model adds some to it."""
    text = ask.request["input"][exceeded.data["index"]]
    added = int(exceeded.data["prompt_tokens"]) - len(await _tokens(call, ask, text))
    return int(exceeded.data["context_length"]) - max(0, added)


async def _cut(call: Call, ask: Ask, text: str, limit: int) -> str:
    if len(text.encode("utf-8", "replace")) <= limit:
        return text  # a token is at least a byte
    tokens = await _tokens(call, ask, text)
    if len(tokens) <= limit:
        return text
    asked = Ask("detokenize", ask.model, {"tokens": tokens[:limit]}, autoload=ask.autoload)
    return str((await call.infer(asked))["text"])


async def _tokens(call: Call, ask: Ask, text: str) -> list[int]:
    asked = Ask("tokenize", ask.model, {"text": text}, autoload=ask.autoload)
    return list((await call.infer(asked))["tokens"])
