"""PEFT adapters on a base model: loaded beside each other, chosen for each request.

They are a state of the model's layers: rows with different ones have forward passes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridd.backends.bounded import read_json
from hybridd.backends.engine.adapters import NO_ADAPTERS, AdapterChoice, choose
from hybridd.wire.errors import InvalidParams, ModelInvalid, Unsupported

from ...adapter import CONFIG, MAX_CONFIG_BYTES, WEIGHTS
from ..compat.peft_tuner import SCALES, Tuner

# Of peft's `init_lora_weights`: what the adapter begins with is subtracted from the base model.
_TAKEN_OUT = ("pissa", "olora", "corda", "loftq", "lora_ga")


class Adapters:
    """The adapters of a loaded model, and which of them are in force; see the module.

    Args:
        model: The base model; the adapters stay in its layers.
        paths: Name -> directory.

    Raises:
        ModelInvalid: One is no adapter of this model.
        Unsupported: Its kind is not known here.
    """

    def __init__(self, model: Any, paths: Mapping[str, Path]) -> None:
        self._names = {name: name for name in paths}
        self._tuner = Tuner(model)
        for name, path in paths.items():
            _check(name, path)
            try:
                self._tuner.add(name, path)
            except Exception as exc:
                # peft and torch raise what they like at weights that do not fit.
                raise ModelInvalid(
                    f"the adapter {name} does not fit the model",
                    reason="an adapter that does not fit",
                ) from exc
        # One of them at a time.
        self._replacing = self._tuner.replacing() if paths else set()
        self._in_force: AdapterChoice | None = NO_ADAPTERS

    @property
    def notes(self) -> list[str]:
        """What a user should know of how adapters are computed."""
        return [] if not self._names or self._tuner.sets_scales else [SCALES.without]

    def choose(self, wanted: Sequence[tuple[str, float]]) -> AdapterChoice:
        """What a request's adapters mean: see `adapters.choose`.

        Raises:
            Unsupported: This peft lets no scales be set.
            InvalidParams: One was not loaded, or two cannot be had together.
        """
        chosen = choose(wanted, self._names)
        if any(scale != 1 for _, scale in chosen) and not self._tuner.sets_scales:
            raise Unsupported(SCALES.without, capability="adapter scales", format="huggingface")
        replacing = [name for name, _ in chosen if name in self._replacing]
        if len(replacing) > 1:
            raise InvalidParams(
                f"the adapters {' and '.join(replacing)} replace parts of the model, which only "
                "one can at a time; name one of them",
                field="options.adapters",
                reason="both replace modules",
            )
        return chosen

    def use(self, chosen: AdapterChoice) -> None:
        """Have the next passes computed with these, and no others."""
        if chosen == self._in_force:
            return
        self._in_force = None  # neither the one nor the other, should it fail halfway
        self._tuner.use(chosen)
        self._in_force = chosen


def _check(name: str, path: Path) -> None:
    try:
        config = read_json(path / CONFIG, MAX_CONFIG_BYTES)
        has_weights = (path / WEIGHTS).is_file()
    except OSError as exc:
        raise ModelInvalid(f"the adapter {name} cannot be read", reason="unreadable") from exc
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unsupported(f"the adapter {name} is of the kind {str(kind)[:40]}; LORA is known")
    if what := _changes_base(config):
        raise _unsupported(
            f"the adapter {name} {what}, which counts for requests without it too; convert it to a "
            "plain LoRA, or merge it into a copy of the model"
        )
    if config.get("alora_invocation_tokens"):
        # Its place in a prompt is peft's business, beside whose own loop it counts nowhere.
        raise _unsupported(
            f"the adapter {name} is an activated LoRA, which counts from certain tokens on; plain "
            "LoRA is known"
        )
    if not has_weights:
        raise ModelInvalid(
            f"the adapter {name} has no {WEIGHTS}; other files are pickles, which are unsafe",
            reason="no safetensors",
        )


def _changes_base(config: Mapping[str, Any]) -> str | None:
    """What peft would do to the base model itself as it loads an adapter; None for nothing."""
    if config.get("bias") not in (None, "none"):
        return "has biases of its own"
    begins = config.get("init_lora_weights")
    if isinstance(begins, str) and begins.lower().startswith(_TAKEN_OUT):
        return f"was begun by taking a part out of the model's weights ({begins[:40]})"
    return "repeats layers of the model" if config.get("layer_replication") else None


def _unsupported(message: str) -> Unsupported:
    return Unsupported(message, capability="adapters", format="huggingface")
