"""Entries of `logprobs`: the chosen token and the likeliest ones, in one shape for every engine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

# JSON has no infinity; clients know this number from other servers for "cannot come".
IMPOSSIBLE_LOGPROB = -9999.0


class Pieces(Protocol):
    """What a vocabulary knows of a single token."""

    def piece(self, token: int) -> bytes:
        """The bytes that it adds to a text; none for a special one."""
        ...

    def name(self, token: int) -> str:
        """Its string in the vocabulary; empty where it has none."""
        ...


def finite(logprob: float) -> float:
    """A log probability as JSON can carry it."""
    return round(logprob, 6) if math.isfinite(logprob) else IMPOSSIBLE_LOGPROB


def entry(
    vocabulary: Pieces, token: int, logprob: float, top: Iterable[tuple[int, float]]
) -> dict[str, Any]:
    """The entry of a generated token.

    Args:
        token, logprob: The one that was chosen.
        top: The likeliest tokens and their log probabilities, in descending order.
    """
    alternatives = [_one(vocabulary, *each) for each in top]
    return {**_one(vocabulary, token, logprob), "top_logprobs": alternatives}


def _one(vocabulary: Pieces, token: int, logprob: float) -> dict[str, Any]:
    piece = vocabulary.piece(token) or vocabulary.name(token).encode()
    return {
        "id": token,
        "token": piece.decode("utf-8", "replace"),
        "bytes": list(piece),
        "logprob": finite(logprob),
    }
