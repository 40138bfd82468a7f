"""What is refused before any work: wishes that a model or its engine cannot fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.wire import errors

# Kind of request -> the capability that a model needs for it, and what to say without.
_NEEDS = {
    "generate": ("completion", "generates no text"),
    "chat": ("chat", "has no chat template; use generate with a plain prompt"),
    "apply_template": ("chat", "has no chat template"),
    "embed": ("embedding", "makes no embeddings; take a model with the capability embedding"),
    "rerank": ("reranking", "is no reranker; take a model with the capability reranking"),
}
_INSTEAD = {"embedding": "embed", "reranking": "rerank"}


def check_kind(record: ModelRecord, kind: str) -> None:
    """Say so before a load.

    Raises:
        Unsupported: With the capability.
    """
    capability, sentence = _NEEDS.get(kind, (None, ""))
    has = record.facts.capabilities
    if capability is None or capability in has:
        return
    if "completion" not in has and capability in ("completion", "chat"):
        instead = [_INSTEAD[name] for name in has if name in _INSTEAD]
        sentence = "generates no text" + (f"; use {' or '.join(instead)}" if instead else "")
    raise errors.Unsupported(f"{record.id} {sentence}", capability=capability, format=record.format)


_WITH_ADAPTERS = frozenset({"gguf", "huggingface"})


def check_wishes(
    record: ModelRecord, request: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Say so before any work, rather than leave a wish silently undone.

    Raises:
        Unsupported: With the capability.
    """
    if options.get("adapters") and record.format not in _WITH_ADAPTERS:
        raise errors.Unsupported(
            f"adapters (options.adapters) are not supported for {record.format} models yet",
            capability="adapters",
            format=record.format,
        )
    if request.get("tools") and "tools" not in record.facts.capabilities:
        raise errors.Unsupported(
            f"the chat template of {record.id} knows no tools; leave them out",
            capability="tools",
            format=record.format,
        )
