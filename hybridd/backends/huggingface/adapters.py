"""PEFT adapters on a base model: loaded beside each other, chosen for each request.

Rows with different adapters cannot share a forward pass, so that all of them take turns; what one
row computed is used again only for a row with the same adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hybridd.wire.errors import InvalidParams, ModelInvalid, Unsupported

from ..bounded import read_json
from .adapter import CONFIG, MAX_CONFIG_BYTES, WEIGHTS
from .kv_cache import Row
from .loading import LoadedModel
from .session import Chosen
from .solo import SoloSession

_REASON = "requests may want different adapters"
# Of peft's `init_lora_weights`: what the adapter begins with is subtracted from the base model.
_TAKEN_OUT = ("pissa", "olora", "corda", "loftq", "lora_ga")


class AdapterSession(SoloSession):
    """See the module.

    Args:
        adapters: Name -> directory.

    Raises:
        ModelInvalid: One is no adapter of this model.
        Unsupported: Its kind is not known here.
    """

    def __init__(
        self, loaded: LoadedModel, parallel: int, cells: int, adapters: Mapping[str, Path]
    ) -> None:
        self._names = tuple(adapters)
        self._peft = _load(loaded.model, adapters)
        # Those that bring whole modules in place of the model's own.
        known = self._peft.peft_config
        self._replacing = {name for name in known if known[name].modules_to_save}
        self._in_force: Chosen = ()
        self._wanted: Chosen = ()
        self._of_row: dict[int, Chosen] = {}
        self._apply(())
        super().__init__(loaded, parallel, cells, _REASON)

    def select(self, adapters: Chosen) -> None:
        """See `Session`."""
        unknown = [name for name, _ in adapters if name not in self._names]
        if unknown:
            raise InvalidParams(
                f"no adapter {unknown[0]} was loaded; there is {', '.join(self._names)}",
                field="options.adapters",
                reason="unknown",
            )
        replacing = [name for name, _ in adapters if name in self._replacing]
        if len(replacing) > 1:
            raise InvalidParams(
                f"the adapters {' and '.join(replacing)} replace whole parts of the model, which "
                "only one can at a time; name one of them",
                field="options.adapters",
                reason="both replace modules",
            )
        self._wanted = adapters

    def take(self, prompt: Sequence[int], reserved: int) -> Row | None:
        """See `Session`."""
        row = super().take(prompt, reserved)
        if row is not None:
            alive = {id(one) for one in (*self._running, *self._kept)}
            self._of_row = {key: own for key, own in self._of_row.items() if key in alive}
            self._of_row[id(row)] = self._wanted
        return row

    def forward(
        self, works: Sequence[tuple[Row, Sequence[int]]], abort: Callable[[], bool] | None = None
    ) -> Any:
        """See `Session`."""
        self._apply(self._of_row[id(works[0][0])])
        return super().forward(works, abort)

    def _continues(self, row: Row, prompt: Sequence[int]) -> bool:
        return self._of_row.get(id(row)) == self._wanted and super()._continues(row, prompt)

    def _apply(self, chosen: Chosen) -> None:
        if chosen == self._in_force and chosen:
            return
        tuner = self._peft.base_model
        if chosen:
            tuner.enable_adapter_layers()
            tuner.set_adapter([name for name, _ in chosen])
            for layer in tuner.modules():
                if hasattr(layer, "set_scale"):
                    for name, scale in chosen:
                        layer.set_scale(name, scale)
        else:
            tuner.disable_adapter_layers()
        self._in_force = chosen


def _load(model: Any, adapters: Mapping[str, Path]) -> Any:
    import peft

    untyped: Any = peft
    made: Any = None
    for name, path in adapters.items():
        _check(name, path)
        try:
            if made is None:
                made = untyped.PeftModel.from_pretrained(model, str(path), adapter_name=name)
            else:
                made.load_adapter(str(path), adapter_name=name)
        except Exception as exc:
            # peft and torch raise what they like at weights that do not fit.
            raise ModelInvalid(
                f"the adapter {name} does not fit the model", reason="an adapter that does not fit"
            ) from exc
    return made.eval()


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
