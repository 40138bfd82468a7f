"""What the catalog goes by: which formats to look for, where, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridd.backends.api import Backend

from . import stores
from .walk import Source


@dataclass(frozen=True, slots=True)
class CatalogSettings:
    """The settings of the catalog as values; a change of one is another object.

    Attributes:
        backends: The formats to look for, by name.
        model_dirs: The user's directories; need not exist yet.
        demo: Whether to list the packaged demo models.
        external: The stores of other programs.
        settle_s: How long a file has to rest before it is inspected.
        reconcile_s: How often to look without any hint.
    """

    backends: Mapping[str, Backend]
    model_dirs: Sequence[Path]
    demo: bool
    settle_s: float
    reconcile_s: float
    external: Sequence[Source] = ()

    def sources(self) -> list[Source]:
        """Where to look, in the order of precedence."""
        return stores.sources(self.model_dirs, demo=self.demo, external=self.external)
