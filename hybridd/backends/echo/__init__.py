"""Echo models, which repeat what they are told: no dependency, and the example to copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from hybridd.core.model import Facts

from ..api import Backend, Parallel
from .estimate import estimate
from .inspect import FORMAT, inspect

_MOST_PARALLEL = 4096  # as many as a file may say


class EchoBackend:
    """The daemon's half of the format."""

    name = FORMAT
    engine = "echo"
    extra: str | None = None
    distributions: tuple[str, ...] = ()
    engine_factory = "hybridd.backends.echo.engine.generator:EchoEngine"
    preload: tuple[str, ...] = ()
    prepare = ""
    suffixes: tuple[str, ...] = (".echo",)
    splits_layers = False
    keeps_states = False
    tagged = False
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)

    def uses_gpu(self) -> bool:
        """It pretends on the CPU only."""
        return False

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        """Any will do."""

    def parallel(self, facts: Facts) -> Parallel:
        """One at a time, unless the file says more."""
        return Parallel(facts.metadata.get("parallel", 1), _MOST_PARALLEL)

    def claims(self, names: Set[str]) -> bool:
        """A model of this format is a file, never a directory."""
        return False

    def companions(self, names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
        """Each file is a model of its own."""
        return {}


BACKEND: Backend = EchoBackend()
