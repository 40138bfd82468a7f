"""One candidate's facts: what its backend says of its own files, and what belongs to it besides.

A projector lets a language model see or hear; the layers that Ollama keeps beside the weights
bring defaults. What is wrong with an addition never makes its model unusable, except an adapter,
without which it would be another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridd.backends import card
from hybridd.backends.api import Backend, Facts
from hybridd.backends.bounded import (
    invalid,
    plain,
    read_file,
    read_json,
    sampling_default,
    valid_text,
)
from hybridd.core.model import printable
from hybridd.wire.errors import ModelInvalid

from .candidate import Candidate

# Ollama's templates and system prompts have a few KiB; parameters a few lines.
MAX_TEXT_BYTES = 256 * 1024
# docs/protocol.md's bounds of `stop`.
_MAX_STOPS, _MAX_STOP = 64, 1024

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty")


def examine(candidate: Candidate, backend: Backend) -> Facts:
    """Facts of a candidate.

    Raises:
        ModelInvalid: With `reason`.
        OSError: A file went away or cannot be read.
    """
    if candidate.reason is not None:
        raise invalid(candidate.reason)
    facts = backend.inspect(candidate.path)
    for role, path in candidate.additions:
        if facts.reason is None:
            facts = _ADD[role](facts, path, backend)
    return facts


def _projector(facts: Facts, path: Path, backend: Backend) -> Facts:
    try:
        added = backend.inspect(path)
    except ModelInvalid as error:
        return _noted(facts, projector={"reason": str(error.data.get("reason"))})
    name, senses = printable(path.name), card.words(card.of(added.metadata).get("senses"))
    more = tuple(sense for sense in senses if sense not in facts.capabilities)
    rules = dict.fromkeys(more, f"its projector {name} brings it")
    return replace(
        _noted(facts, projector={"file": name, "senses": senses}, rules=rules),
        capabilities=facts.capabilities + more,
        size_bytes=facts.size_bytes + added.size_bytes,
    )


def _adapter(facts: Facts, _path: Path, _backend: Backend) -> Facts:
    reason = "it adds a LoRA adapter to its weights, which is not applied; load the model itself"
    return replace(facts, reason=reason)


def _params(facts: Facts, path: Path, _backend: Backend) -> Facts:
    try:
        said = read_json(path, MAX_TEXT_BYTES)
    except ModelInvalid:
        return facts
    checked = {name: sampling_default(name, said[name]) for name in _SAMPLING if name in said}
    defaults: dict[str, Any] = {k: v for k, v in checked.items() if v is not None}
    stops = said.get("stop")
    stops = [stops] if isinstance(stops, str) else stops
    if isinstance(stops, list):
        usable = [s for s in stops if isinstance(s, str) and 0 < len(s) <= _MAX_STOP]
        defaults["stop"] = [valid_text(stop) for stop in usable[:_MAX_STOPS]]
    return replace(
        _noted(facts, ollama={"parameters": plain(said)}), defaults={**facts.defaults, **defaults}
    )


def _text(role: str) -> Callable[[Facts, Path, Backend], Facts]:
    def add(facts: Facts, path: Path, _backend: Backend) -> Facts:
        try:
            text = read_file(path, MAX_TEXT_BYTES).decode("utf-8", "replace")
        except ModelInvalid:
            return facts
        return _noted(facts, ollama={role: text})

    return add


def _noted(facts: Facts, **more: Mapping[str, Any]) -> Facts:
    """Facts with more on their card; a part that is there already gets the new keys."""
    noted = card.of(facts.metadata)
    for key, value in more.items():
        noted[key] = {**noted.get(key, {}), **value}
    return replace(facts, metadata={**facts.metadata, card.CARD: noted})


_ADD: Mapping[str, Callable[[Facts, Path, Backend], Facts]] = {
    "projector": _projector,
    "adapter": _adapter,
    "params": _params,
    "template": _text("template"),
    "system": _text("system"),
    "messages": _text("messages"),
}
