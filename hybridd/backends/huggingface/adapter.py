"""PEFT adapters: small weights that change a model which lies elsewhere.

Listed so that people find them, with the reason that they are no model by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

from hybridd.core.model import Facts

from .. import card
from ..bounded import number, plain, read_json
from .config import first, text
from .readme import read_card
from .safetensors import read_tensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1024 * 1024
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def is_adapter(names: Set[str]) -> bool:
    """Whether a directory with these names is an adapter and not a model that has one besides."""
    return CONFIG in names and not any(
        name.endswith((".safetensors", ".bin")) and not name.startswith(("adapter_", "training_"))
        for name in names
    )


def inspect(path: Path, names: Set[str], format_name: str) -> Facts:
    """Facts of the adapter in the directory `path`; always with a `reason`.

    Raises:
        ModelInvalid: Its configuration or weights cannot be read.
        OSError: A file went away or cannot be read.
    """
    config = read_json(path / CONFIG, MAX_CONFIG_BYTES)
    kind = text(config, "peft_type", limit=32) or "PEFT"
    base = text(config, "base_model_name_or_path", limit=256)
    if base is not None and not _HUB_NAME.fullmatch(base):
        base = base.rstrip("/").rpartition("/")[2] or None  # a path of whoever trained it
    files, size, stored, parameters = [path / CONFIG], 0, 0, 0
    reason = f"a PEFT adapter ({kind}) for {base or 'a model that it does not name'}"
    if WEIGHTS in names:
        tensors = read_tensors(path / WEIGHTS)
        files.append(path / WEIGHTS)
        size, stored = tensors.size, sum(tensors.bytes_by_dtype.values())
        parameters = sum(_count(shape) for _, shape in tensors.shapes.values())
        reason += ": it is used with that model, by load_options.adapters"
    else:
        reason += f", without safetensors weights ({WEIGHTS})"
    said = read_card(path)
    return Facts(
        format=format_name,
        files=tuple(files),
        size_bytes=size,
        base=base,
        parameters=parameters or None,
        weights_bytes=stored,
        metadata={
            "config": plain(config),
            card.CARD: card.filled(
                kind=card.ADAPTER,
                size_label=card.size_label(parameters),
                adapter=card.filled(
                    type=kind.lower(),
                    rank=first(config, "r"),
                    alpha=number(config.get("lora_alpha"), 0, 1e9),
                    targets=card.words(config.get("target_modules")),
                ),
                base_models=[base] if base else [],
                license=next(iter(said.get("license", [])), None),
            ),
        },
        reason=reason,
    )


def adapter_bytes(facts: Facts) -> int:
    """What an adapter takes once it is loaded.

    peft keeps its weights in float32 whatever they are stored as, so that they can be changed with
    precision.
    """
    return max(facts.weights_bytes, 4 * (facts.parameters or 0))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
