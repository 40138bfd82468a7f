"""What is refused before any work: wishes that a model or its engine cannot fulfil."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.backends import data_urls
from hybridd.backends.api import Backend
from hybridd.core.kinds import Kind, Mode, of_mode
from hybridd.core.model import ModelRecord
from hybridd.wire import errors

_ENCODED = of_mode(Mode.ENCODE)
_GENERATING = {kind.capability for kind in of_mode(Mode.GENERATE).values()}


def check_kind(record: ModelRecord, kind: Kind) -> None:
    """Say so before a load.

    Raises:
        Unsupported: With the capability.
    """
    capability, has = kind.capability, record.facts.capabilities
    if capability is None or capability in has:
        return
    lacking = kind.lacking
    if "completion" not in has and capability in _GENERATING:
        instead = [each.name for each in _ENCODED.values() if each.capability in has]
        lacking = "generates no text" + (f"; use {' or '.join(instead)}" if instead else "")
    raise errors.Unsupported(f"{record.id} {lacking}", capability=capability, format=record.format)


def check_wishes(
    record: ModelRecord,
    backend: Backend,
    request: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Say so before any work, rather than leave a wish silently undone.

    Args:
        backend: The model's.

    Raises:
        Unsupported: With the capability.
        InvalidParams: Pictures that are not to be had.
    """
    _check_parts(record, backend, request.get("messages"))
    if options.get("adapters") and backend.adapters is None:
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


def _check_parts(record: ModelRecord, backend: Backend, messages: object) -> None:
    """Pictures need a model that reads them, and an engine that does."""
    urls = []
    for where, part in data_urls.parts(messages):
        sense = data_urls.SENSES[part["type"]]
        what = "pictures" if sense == "vision" else "sound"
        if sense not in record.facts.capabilities:
            message = f"{record.id} reads no {what}; take a model with the capability {sense}"
            raise errors.Unsupported(message, capability=sense, format=record.format)
        if sense not in backend.senses:
            message = f"{what} in messages are not supported for {record.format} models yet"
            raise errors.Unsupported(message, capability=sense, format=record.format)
        if sense == "vision":
            urls.append(data_urls.url_of(part, where))
    data_urls.check(urls)
