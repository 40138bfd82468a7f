"""peft: LoRA adapters in a model's layers, several beside each other.

peft documents loading them and choosing among them; a scale of each, for a pass, it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .leaning import Leaning

SCALES = Leaning(
    name="set_scale of peft's layers",
    purpose="an adapter counts as much as a request says",
    seen="peft 0.20.0 to 0.21.2",
    without="adapters have a scale of 1 alone: this peft does not let others be set",
)


class Tuner:
    """The adapters in a model's layers, none of them in force at first.

    Args:
        model: The base model; the adapters stay in it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._peft: Any = None
        self._scaled: list[Any] = []

    def add(self, name: str, path: Path) -> None:
        """Load an adapter beside the others; raises what peft and torch like."""
        if self._peft is None:
            import peft

            untyped: Any = peft
            self._peft = untyped.PeftModel.from_pretrained(
                self._model, str(path), adapter_name=name
            )
        else:
            self._peft.load_adapter(str(path), adapter_name=name)
        self._peft.eval()
        tuner = self._peft.base_model
        tuner.disable_adapter_layers()
        self._scaled = [layer for layer in tuner.modules() if hasattr(layer, "set_scale")]

    def replacing(self) -> set[str]:
        """Those that bring whole modules, or vectors of tokens, in place of the model's own."""
        return {
            name
            for name, config in self._peft.peft_config.items()
            if config.modules_to_save or config.trainable_token_indices
        }

    @property
    def sets_scales(self) -> bool:
        """Whether an adapter may have a scale other than 1; see `SCALES`."""
        return bool(self._scaled)

    def use(self, chosen: Sequence[tuple[str, float]]) -> None:
        """Have the next passes computed with these adapters, by name and scale, and no others."""
        tuner = self._peft.base_model
        if not chosen:
            tuner.disable_adapter_layers()
            return
        tuner.enable_adapter_layers()
        tuner.set_adapter([name for name, _ in chosen])
        for layer in self._scaled:
            for name, scale in chosen:
                layer.set_scale(name, scale)
