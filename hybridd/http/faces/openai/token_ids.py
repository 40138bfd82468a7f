"""Texts that clients may send as tokens: what the model's own tokenizer makes of the ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Field, ListOf, OneOf, Text
from hybridd.core.requests import TOKENS
from hybridd.http.faces.api import Call
from hybridd.http.faces.openai.options import ask
from hybridd.http.faces.shared.together import results
from hybridd.wire.errors import InvalidParams


def texts_or_tokens(most: int) -> Field:
    """A text, token ids, or a list of either.

    Args:
        most: How many a list may have.
    """
    lists = (ListOf(item, min_length=1, max_length=most) for item in (Text(), TOKENS))
    return OneOf((Text(), TOKENS, *lists))


def given(value: Any) -> bool:
    """Whether a value that `texts_or_tokens` took is tokens."""
    return not isinstance(value, str) and not isinstance(value[0], str)


async def texts(call: Call, body: Mapping[str, Any], field: str) -> list[str]:
    """The texts that a field of a body is.

    Args:
        field: Its name; `texts_or_tokens` took its value.

    Raises:
        HybriddError: InvalidParams for an empty list, or what the model's tokenizer met.
    """
    value = body[field]
    if isinstance(value, str):
        return [value]
    if not value:
        raise InvalidParams(f"{field} is empty", field=field, reason="is empty")
    if not given(value):
        return list(value)
    lists = [value] if isinstance(value[0], int) else value
    asks = [ask("detokenize", body, {"tokens": tokens}, {}, call.autoload) for tokens in lists]
    return [made["text"] for made in await results(call, asks)]
