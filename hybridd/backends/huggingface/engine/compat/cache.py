"""transformers' caches: what models call them, what layers keep in them, and one of our own.

The name of the argument differs between versions and models, and the attribute of the output is
called the same: it is found once for a model and spelled nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from .imports import Tensor, transformers
from .leaning import Leaning, Missing

ARGUMENT = Leaning(
    name="the cache argument of `forward`",
    purpose="a pass goes on from what the passes before it computed",
    seen="transformers 5.18.0 to 5.23.0 (past_key_values, cache_params), 5.24.0 (cache)",
    without="each token takes a pass over the whole text: the model takes no cache by a name that "
    "is known here",
)
LAYERS = Leaning(
    name="transformers.DynamicLayer, and the layers of a cache",
    purpose="how far back each layer looks, and the keys and values that it keeps",
    seen="transformers 5.18.0 to 5.24.0",
    without="this transformers does not say what its layers keep",
)

# As models call it, the usual name last.
_NAMES = ("cache", "cache_params", "state", "past_key_values")


class PassCache(transformers.Cache):  # type: ignore[misc] # transformers is untyped
    """What a forward pass takes as its cache; a subclass has `update` put keys and values away.

    Args:
        layers: How many the model has.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_plain_layer()() for _ in range(layers)])


def new_cache(config: Any) -> Any:
    """An empty cache of transformers', with the layers that a configuration asks for."""
    return transformers.DynamicCache(config=config)


def new_pair() -> Any:
    """An empty cache of an encoder-decoder."""
    own, of_encoder = transformers.DynamicCache(), transformers.DynamicCache()
    return transformers.EncoderDecoderCache(own, of_encoder)


def argument(model: Any) -> str | None:
    """What the model's `forward` calls its cache; None where that is not known."""
    for part in (model, getattr(model, "base_model", None)):
        # `signature` looks through wrappers that say what they wrap.
        accepted = inspect.signature(part.forward).parameters if part is not None else {}
        for name in _NAMES:
            if name in accepted:
                return name
        if not any(one.kind is one.VAR_KEYWORD for one in accepted.values()):
            return None  # what it does not name it does not hand on to what it is built on
    return None


def returned(output: Any) -> Any:
    """The cache in a model's output; None where it has none."""
    # By key: an output may have it under an old name as well, with a warning.
    return next((output[name] for name in _NAMES if name in output), None)


def windows(config: Any) -> list[int | None]:
    """How far back each layer of a model looks; None is everything.

    Raises:
        Missing: Layers keep something else than keys and values, or it cannot be told.
    """
    windows: list[int | None] = []
    for layer in _layers(new_cache(config)):
        kind = type(layer)
        if kind is _plain_layer():
            windows.append(None)
        elif _plain_layer() in kind.__bases__ and layer.is_sliding:
            windows.append(int(layer.sliding_window))
        else:
            raise Missing("its layers keep something else than keys and values")
    return windows


def keys_and_values(cache: Any) -> list[tuple[Tensor, Tensor]]:
    """What each layer of a cache holds, `[rows, heads, tokens, dim]`.

    Raises:
        Missing: Layers keep something else, or it cannot be told.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for layer in _layers(cache):
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise Missing("its cache is not keys and values of every layer")
        pairs.append((keys, values))
    return pairs


def _layers(cache: Any) -> Sequence[Any]:
    layers = getattr(cache, "layers", None)
    if not layers:
        raise Missing(LAYERS.without)
    return list(layers)


def _plain_layer() -> Any:
    kind = getattr(transformers, "DynamicLayer", None)
    if kind is None:
        raise Missing(LAYERS.without)
    return kind
