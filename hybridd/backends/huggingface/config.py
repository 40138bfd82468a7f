"""Reading config.json: where its dialects keep one thing. Anybody wrote it: all is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bounded import valid_text, whole

# Under these keys configurations that join several models keep the language model's.
_PARTS = ("text_config", "llm_config", "language_config", "decoder")
# One of these makes it one of a model.
_SIZES = ("hidden_size", "num_hidden_layers", "n_embd", "d_model")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a configuration that joins several."""
    for key in _PARTS:
        part = config.get(key)
        if isinstance(part, dict) and any(key in part for key in _SIZES):
            return {**config, **part}
    return config


def first(config: Mapping[str, Any], *keys: str) -> int | None:
    """The first positive integer under these keys."""
    for key in keys:
        found = whole(config.get(key), 1)
        if found is not None:
            return found
    return None


def text(config: Mapping[str, Any], *keys: str, limit: int = 128) -> str | None:
    """The first text that is not empty under these keys, cut at `limit` characters."""
    for key in keys:
        found = config.get(key)
        if isinstance(found, str) and found.strip():
            return valid_text(found.strip()[:limit])
    return None


def part(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The first object under these keys, or an empty one."""
    for key in keys:
        found = config.get(key)
        if isinstance(found, dict):
            return found
    return {}


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes that the model was saved from."""
    found = config.get("architectures")
    found = found[:8] if isinstance(found, list) else []
    return [valid_text(name[:128]) for name in found if isinstance(name, str)]


def model_type(config: Mapping[str, Any]) -> str | None:
    """What transformers calls the architecture."""
    return text(config, "model_type") or next(iter(architectures(config)), None)
