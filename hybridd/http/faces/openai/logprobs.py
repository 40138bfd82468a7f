"""Log probabilities in OpenAI's two shapes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def of_chat(entries: Iterable[Entry], alternatives: int) -> dict[str, Any]:
    """As chat has them: an object a token.

    Args:
        alternatives: So many of each; the engine tells at least one.
    """
    return {
        "content": [
            {**_shown(entry), "top_logprobs": list(map(_shown, _best(entry, alternatives)))}
            for entry in entries
        ]
    }


def of_completion(entries: Sequence[Entry], alternatives: int, offset: int) -> dict[str, Any]:
    """As completions have them: lists side by side.

    Args:
        offset: Characters of the text before these tokens.
    """
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [
            {other["token"]: other["logprob"] for other in _best(entry, alternatives)}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def _best(entry: Entry, count: int) -> Sequence[Entry]:
    found: Sequence[Entry] = entry.get("top_logprobs", ())
    return found[:count]


def _shown(entry: Entry) -> dict[str, Any]:
    return {name: entry[name] for name in ("token", "bytes", "logprob")}
