"""What is refused before any work: wishes that a model or its engine cannot fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.backends import data_urls
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
_WITH_PICTURES = frozenset({"huggingface"})


def check_wishes(
    record: ModelRecord, request: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Say so before any work, rather than leave a wish silently undone.

    Raises:
        Unsupported: With the capability.
        InvalidParams: Pictures that are not to be had.
    """
    _check_parts(record, request.get("messages"))
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


def _check_parts(record: ModelRecord, messages: object) -> None:
    """Pictures need a model that reads them, and an engine that does."""
    urls = []
    for where, part in data_urls.parts(messages):
        sense = data_urls.SENSES[part["type"]]
        what = "pictures" if sense == "vision" else "sound"
        if sense not in record.facts.capabilities:
            message = f"{record.id} reads no {what}; take a model with the capability {sense}"
            raise errors.Unsupported(message, capability=sense, format=record.format)
        if sense != "vision" or record.format not in _WITH_PICTURES:
            message = f"{what} in messages are not supported for {record.format} models yet"
            raise errors.Unsupported(message, capability=sense, format=record.format)
        urls.append(data_urls.url_of(part, where))
    data_urls.check(urls)
