"""Models by the names that people type at Ollama's clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.http.faces.shared import model_names
from hybridd.parts import Daemon
from hybridd.wire.errors import InvalidParams, ModelNotFound

_USUAL = ":latest"


def named(body: Mapping[str, Any]) -> str:
    """The name in a body; older clients call it `name`.

    Raises:
        InvalidParams: There is none.
    """
    name = body.get("model") or body.get("name")
    if not name:
        raise InvalidParams("model is missing; name one", field="model", reason="missing")
    return str(name)


async def record(daemon: Daemon, name: str) -> ModelRecord:
    """The model that is meant. `:latest` is what some clients add where no tag was typed.

    Raises:
        ModelNotFound, ModelAmbiguous: With suggestions or candidates.
    """
    try:
        return await model_names.record(daemon, name)
    except ModelNotFound:
        if not name.endswith(_USUAL):
            raise
    return await model_names.record(daemon, name.removesuffix(_USUAL))
