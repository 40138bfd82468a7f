"""Forward passes of a loaded model, for many rows at a time or for one. Knows no requests.

`Session` is the interface; which kind a model gets is decided by trying (`generator`): rows
together (`batched`) need an attention that can be ours, and have to give the logits that the model
gives by itself.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice
from hybridd.backends.engine.passes import Aborted

from ..compat import cache
from ..compat.imports import Tensor, torch
from ..weights.loading import LoadedModel
from .kv_cache import Row


class Session(ABC):
    """One model at work, everything on one thread.

    Args:
        loaded: The model; the session is its only user.

    Attributes:
        parallel: How many rows can run at a time.
        reason: Why rows do not share forward passes; None when they do.
        divisible: Whether a prompt can be computed in several passes.
    """

    parallel: int
    reason: str | None = None
    divisible = True

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._model: Any = loaded.model
        self._device = loaded.device
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._cache_name = cache.argument(self._model)
        self._layers = _layers(self._model)

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the model is computed."""
        return [] if self.reason is None else [f"requests take turns: {self.reason}"]

    @abstractmethod
    def take(
        self, prompt: Sequence[int], reserved: int, adapters: AdapterChoice = NO_ADAPTERS
    ) -> Row | None:
        """A row for `prompt`; see `kv_cache.KVCache.take`."""

    @abstractmethod
    def give_back(self, row: Row) -> None:
        """A row is finished."""

    def leave(self, row: Row) -> None:
        """A row is finished before its prompt was; see `kv_cache.KVCache.leave`."""
        self.give_back(row)

    def drop(self, row: Row) -> None:
        """A row is finished, and what the model made of it is of no use."""
        row.tokens.clear()
        self.give_back(row)

    @abstractmethod
    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Tensor:
        """Run tokens through the model, each list behind those that its row has.

        All rows have the same adapters, and those are in force.

        Returns:
            The logits behind each row's last token, `(rows, vocabulary)`.

        Raises:
            Aborted: `abort`, which is asked before each layer, said so; the rows are as they were.
        """

    @contextmanager
    def _computing(self, abort: Callable[[], bool] | None) -> Iterator[None]:
        def ask(_layer: Any, _arguments: Any) -> None:
            assert abort is not None
            if abort():
                raise Aborted

        # Only while they are of use: with one, a layer is called by a longer way in each step.
        asked = [] if abort is None else self._layers
        hooks = [layer.register_forward_pre_hook(ask) for layer in asked]
        try:
            with torch.inference_mode():
                yield
        finally:
            for hook in hooks:
                hook.remove()


PROBE_TOKENS = 6
# How far a probe's logits may be from the model's own, as a share of their size. What is not
# understood is off by far more; rounding in sixteen bits by up to a few hundredths, and so is what
# computes in integers, which rounds by the largest values of all rows.
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_ROUNDED = 0.1


def probe_tokens(config: Any) -> list[int]:
    """Some tokens of the vocabulary, the same ones each time."""
    return [(config.vocab_size // 3 + i) % config.vocab_size for i in range(PROBE_TOKENS)]


def close(logits: Tensor, expected: Tensor, quantization: str) -> bool:
    """Whether logits, `(…, vocabulary)`, are the expected ones but for rounding.

    Args:
        quantization: Of the weights, `none` for those that are numbers of the logits' type.
    """
    tolerance = _TOLERANCE_ROUNDED
    if quantization == "none":
        tolerance = _TOLERANCE.get(expected.dtype, tolerance)
    logits, expected = logits.double(), expected.double()
    size = (expected - expected.mean(dim=-1, keepdim=True)).norm()
    return bool((logits - expected).norm() <= tolerance * size)


def _layers(module: Any) -> list[Any]:
    """The layers of each part of a model: what is in lists of modules, but not inside of those."""
    if isinstance(module, torch.nn.ModuleList):
        return list(module)
    return [layer for child in module.children() for layer in _layers(child)]
