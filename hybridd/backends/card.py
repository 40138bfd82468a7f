"""The card: facts that every format has words for, in the same shape for all of them.

It is `metadata["card"]`. Keys, each only where the files say it: `kind` (`model`, `projector`,
`adapter`, `imatrix`, `control vector`, `vocabulary`), `rules` (capability -> what gave it),
`size_label`, `rope`, `sliding_window`, `experts`, `tokenizer`, `chat_templates`, `license`,
`languages`, `base_models`, `senses` (of a projector), `adapter` (of an adapter).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bounded import valid_text

CARD = "card"
MODEL, PROJECTOR, ADAPTER = "model", "projector", "adapter"
SENSES = ("vision", "audio")
MAX_LISTED = 32
_MAX_WORD = 256
_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def size_label(parameters: int) -> str | None:
    """A number of parameters as models are called by: `7.2B`, `494M`."""
    for unit, letter in _UNITS:
        if parameters >= unit:
            shown = parameters / unit
            return f"{shown:.1f}{letter}" if shown < 99.95 else f"{shown:.0f}{letter}"
    return None


def words(value: Any) -> list[str]:
    """A text, or the texts of a list, bounded."""
    listed = value if isinstance(value, list | tuple) else [value]
    texts = [valid_text(text.strip()) for text in listed[:MAX_LISTED] if isinstance(text, str)]
    return [text for text in texts if 0 < len(text) <= _MAX_WORD]


def filled(**entries: Any) -> dict[str, Any]:
    """A card of the entries that say something."""
    return {key: value for key, value in entries.items() if value not in (None, "", [], {})}


def of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The card in a model's metadata, empty where there is none."""
    card = metadata.get(CARD)
    return dict(card) if isinstance(card, Mapping) else {}
