"""What the user settled for single models: `models.configure`, kept in the state directory.

The one writer of these settings. Keyed by the model's id, so that they are there again when its
files come back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from hybridd.core.model import ModelRecord
from hybridd.daemon.state import StateFile
from hybridd.wire.errors import HybriddError, InternalError, InvalidParams

# Settings that make a model usable which is not without them: each says how it is unsafe.
PERMISSIONS = ("allow_pickle", "trust_remote_code")
KEYS = ("alias", "keepalive", "pin", "load_options", "options", *PERMISSIONS)
# More than anyone sets by hand; keeps the file small.
MAX_MODELS = 10_000


class ModelSettings:
    """See the module.

    Args:
        state: Where they last; None keeps them in memory only.
    """

    def __init__(self, state: StateFile | None = None) -> None:
        self._state = state
        read = state.read() if state is not None else {}
        self._models: dict[str, dict[str, Any]] = {
            model: {key: value for key, value in said.items() if key in KEYS}
            for model, said in read.items()
            if isinstance(said, dict)
        }
        self._watchers: list[Callable[[str], None]] = []

    def on_change(self, watcher: Callable[[str], None]) -> None:
        """Call `watcher(model)` after each change."""
        self._watchers.append(watcher)

    def get(self, model: str) -> Mapping[str, Any]:
        """A model's settings; empty for most."""
        return self._models.get(model, {})

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """The aliases that were given, by the models' ids."""
        return {model: (said["alias"],) for model, said in self._models.items() if "alias" in said}

    def permissions(self, model: str) -> list[str]:
        """What the model may do that others may not."""
        said = self.get(model)
        return [name for name in PERMISSIONS if said.get(name) is True]

    def permits(self, record: ModelRecord) -> bool:
        """Whether a model is usable that is invalid without its settings."""
        needed = record.facts.metadata.get("permissions")
        if not needed or record.reason != record.facts.reason:
            return False
        return set(needed) <= set(self.permissions(record.id))

    def change(self, record: ModelRecord, values: Mapping[str, Any], taken: set[str]) -> None:
        """Change a model's settings, all or none; None removes one.

        Args:
            taken: Names that other models answer to.

        Raises:
            InvalidParams: The alias is one of them.
            InternalError: They cannot be written.
        """
        if (alias := values.get("alias")) is not None and alias in taken:
            raise InvalidParams(
                f"another model is called {alias} already; take another alias",
                field="alias",
                reason="taken",
            )
        changed = {**self.get(record.id), **values}
        kept = {key: value for key, value in changed.items() if value is not None}
        models = {**self._models, record.id: kept}
        if not kept:
            del models[record.id]
        if len(models) > MAX_MODELS:
            raise InvalidParams(
                f"at most {MAX_MODELS} models can have settings of their own",
                field="model",
                reason="too many",
            )
        self._write(models)
        self._models = models
        for watcher in self._watchers:
            watcher(record.id)

    def _write(self, models: Mapping[str, Any]) -> None:
        if self._state is None:
            return
        try:
            self._state.write(json.dumps(models, indent=2, sort_keys=True))
        except OSError as exc:
            raise _unwritable(exc) from exc


def _unwritable(exc: OSError) -> HybriddError:
    return InternalError(
        f"the settings cannot be kept: {exc.strerror or exc}; nothing was changed",
        reason="state_unwritable",
    )
