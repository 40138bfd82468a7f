"""A Hugging Face model's forward passes. Knows no requests."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .library import DynamicCache, torch
from .loading import LoadedModel


class Aborted(Exception):
    """A forward pass was ended by its `abort`; its cache is of no use any more."""


class Session:
    """One model at work, everything on one thread.

    Args:
        loaded: The model; the session is its only user.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        model = loaded.model
        self._model: Any = model
        self._device = loaded.device
        self._abort: Callable[[], bool] | None = None
        self._arguments: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in inspect.signature(model.forward).parameters:
            # The logits of a whole prompt would be its largest tensor by far.
            self._arguments["logits_to_keep"] = 1
        for layer in _layers(model):
            layer.register_forward_pre_hook(self._before_layer)

    def new_cache(self) -> Any:
        """The empty cache of one sequence; it grows as the sequence does."""
        return DynamicCache(config=self._model.config)

    def forward(
        self, tokens: Sequence[int], cache: Any, abort: Callable[[], bool] | None = None
    ) -> Any:
        """Run tokens through the model, behind those in the cache; returns the last one's logits.

        Raises:
            Aborted: `abort`, which is asked before each layer, said so.
        """
        self._abort = abort
        try:
            with torch.inference_mode():
                ids = torch.tensor([list(tokens)], device=self._device)
                output = self._model(input_ids=ids, past_key_values=cache, **self._arguments)
                return output.logits[0, -1]
        finally:
            self._abort = None

    def _before_layer(self, _layer: Any, _arguments: Any) -> None:
        if self._abort is not None and self._abort():
            raise Aborted


def _layers(model: Any) -> Any:
    """The decoder's layers: the longest list of modules that the model has."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len, default=[])
