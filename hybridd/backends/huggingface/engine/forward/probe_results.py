"""How models were found to be served in the trials of earlier loads; on disk, for the next one.

Trying whether rows can share forward passes takes three passes over all weights, a sixth of a load.
The outcome is the same until the model's files, the libraries or the modules' sources change. Other
weights are tried anew, whatever the code is: where they are zero a trial sees less. Quantized
models are tried each time, for there rounding decides.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .. import cache_files
from ..compat.imports import torch, version
from ..compat.sources import sources
from ..weights.loading import LoadedModel
from .kv_cache import LayerShape

_FILE = "huggingface-trials.json"
_MOST_MODELS = 100


class Trials:
    """What is known of one model, and where to say what was found out.

    Args:
        loaded: The model, as it was loaded.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._device = torch.device(loaded.device)
        self._key = _key(loaded)

    def find(self, layers: int) -> list[LayerShape] | None:
        """What each layer keeps of a token, where the model was tried with success; else None.

        Args:
            layers: How many it has.
        """
        if self._key is None:
            return None
        try:
            known = cache_files.read(_FILE)[self._key]
            shapes = [
                LayerShape(*_sizes(sizes), _dtype(dtype), self._device)
                for *sizes, dtype in known["shapes"]
            ]
        except (LookupError, TypeError, AttributeError, ValueError):
            return None
        return shapes if len(shapes) == layers else None

    def keep(self, shapes: list[LayerShape]) -> None:
        """The model was tried with success."""
        if self._key is None or any(shape.device != self._device for shape in shapes):
            return
        stored = cache_files.read(_FILE)
        known = stored if isinstance(stored, dict) else {}
        known[self._key] = {
            "shapes": [[*s[:3], str(s.dtype).removeprefix("torch.")] for s in shapes]
        }
        cache_files.write(_FILE, dict(list(known.items())[-_MOST_MODELS:]))


def _sizes(values: list[Any]) -> tuple[int, int, int]:
    """Heads and the sizes of their vectors.

    Raises:
        ValueError: They are none.
    """
    heads, key_dim, value_dim = values
    if not all(type(value) is int and value > 0 for value in values):
        raise ValueError("sizes have to be positive")
    return heads, key_dim, value_dim


def _dtype(name: str) -> torch.dtype:
    """torch's dtype of that name.

    Raises:
        ValueError: torch has none.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError("there is no such dtype")
    return dtype


def _key(loaded: LoadedModel) -> str | None:
    """Tells all that decides from anything else; None where that cannot be said."""
    if loaded.quantization != "none":
        return None
    modules = list(loaded.model.modules())
    kinds = {type(module) for module in modules}
    try:
        parts = [
            loaded.model.config.to_json_string(use_diff=False),
            sorted(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds),
            cache_files.fingerprint(Path(__file__).parents[1], *sources(kinds)),
            [loaded.identity, version(), torch.__version__, loaded.device, str(loaded.dtype)],
            sum("forward" in vars(module) for module in modules),  # those that were packed
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    except Exception:
        # The configuration may be of a model's own code, which raises what it likes.
        return None
