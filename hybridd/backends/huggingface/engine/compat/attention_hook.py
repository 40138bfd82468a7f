"""A function of ours as the attention of a model's text part.

transformers documents the interface (`AttentionInterface`, `set_attn_implementation`), and that a
model computes no masks for a name that has no mask function. It does not say how a model tells that
its code cannot do so: whether our function was called is for the caller to see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .imports import transformers
from .leaning import Leaning, Missing

HOOK = Leaning(
    name="transformers.AttentionInterface, set_attn_implementation by the name of a part",
    purpose="requests share forward passes, each looking at its own tokens, without padding",
    seen="transformers 5.18.0 to 5.24.0",
    without="this transformers does not let its attention be replaced",
)


class AttentionHook:
    """Which attention the text part of a model computes with.

    Args:
        model: transformers' one.
        own: The name of the attention that it was loaded with.
    """

    def __init__(self, model: Any, own: str) -> None:
        self._model = model
        self._own = own
        text, config = model.config.get_text_config(decoder=True), model.config
        parts = getattr(config, "sub_configs", {})
        # "" is the configuration itself.
        self._part = next((key for key in parts if getattr(config, key, None) is text), "")

    def use(self, name: str | None) -> None:
        """Compute with the function of that name from the next pass on; None is the model's own.

        Raises:
            Missing: This transformers has no way to.
        """
        try:
            self._model.set_attn_implementation({self._part: name or self._own})
        except (AttributeError, TypeError, ValueError) as exc:
            raise Missing(HOOK.without) from exc


def register(name: str, attention: Callable[..., Any]) -> None:
    """Let models be told to use this function by that name.

    Where transformers has no such interface, `AttentionHook.use` says so.
    """
    interface = getattr(transformers, "AttentionInterface", None)
    if interface is not None:
        interface.register(name, attention)
