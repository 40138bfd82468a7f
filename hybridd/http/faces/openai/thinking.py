"""How much a model is to think, as chat templates are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def template_arguments(given: Mapping[str, Any] | None, effort: Any) -> dict[str, Any]:
    """A template's arguments: the client's own go before what an effort means.

    Args:
        given: `chat_template_kwargs`.
        effort: OpenAI's `reasoning_effort`. `none` turns thinking off; a template that knows
            levels gets the word, and one that knows none is left as it is.
    """
    told: dict[str, Any] = {}
    if effort == "none":
        told = {"enable_thinking": False}
    elif isinstance(effort, str) and effort:
        told = {"reasoning_effort": effort}
    return {**told, **(given or {})}
