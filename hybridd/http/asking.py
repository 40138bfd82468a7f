"""Runs what a face asks of models: checked by the protocol's own fields, then the manager's.

Knows no HTTP: errors are the protocol's, results the manager's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Field, FieldError
from hybridd.core.options import LOAD_FIELD, SAMPLING_FIELD
from hybridd.core.requests import FIELDS, MODEL
from hybridd.http.faces.api import Ask
from hybridd.http.faces.shared.model_names import meant
from hybridd.parts import Daemon
from hybridd.serving.requests import Sink
from hybridd.wire.errors import InvalidParams


async def run(daemon: Daemon, ask: Ask, sink: Sink | None = None) -> dict[str, Any]:
    """Run one request to its end.

    Args:
        sink: Takes the deltas; without one the result carries the text.

    Raises:
        HybriddError: Any of those that a request can meet.
    """
    fields = FIELDS[ask.kind]
    request = {name: _checked(name, fields[name], value) for name, value in ask.request.items()}
    load_options = ask.load_options
    if load_options is not None:
        load_options = _checked("load_options", LOAD_FIELD, load_options)
    return await daemon.manager.infer(
        ask.kind,
        await meant(daemon, _checked("model", MODEL, ask.model)),
        request,
        options=_checked("options", SAMPLING_FIELD, _without_none(ask.options)),
        load_options=load_options,
        keepalive=ask.keepalive,
        timeout_s=ask.timeout_s,
        sink=sink,
        autoload=ask.autoload,
    )


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Null is unset in every API that faces speak."""
    return {name: value for name, value in options.items() if value is not None}


def _checked(name: str, field: Field, value: Any) -> Any:
    try:
        return field.check(value)
    except FieldError as exc:
        path = exc.inside(name).path.removeprefix("options.")
        raise InvalidParams(f"{path} {exc}", field=path, reason=str(exc)) from None
