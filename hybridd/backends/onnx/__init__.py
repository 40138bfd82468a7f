"""ONNX directories (onnxruntime-genai's and optimum's): recognised, not yet served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.model import Facts

from ..api import ONE_AT_A_TIME, Backend, Parallel
from .estimate import estimate
from .inspect import FORMAT, claims, inspect


class ONNXBackend:
    """The daemon's half of the format; there is no worker's half yet."""

    name = FORMAT
    engine = "onnxruntime"
    extra: str | None = None
    distributions: tuple[str, ...] = ()
    engine_factory = ""
    preload: tuple[str, ...] = ()
    prepare = ""
    suffixes: tuple[str, ...] = ()
    splits_layers = False
    keeps_states = False
    tagged = False
    claims = staticmethod(claims)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)

    def uses_gpu(self) -> bool:
        """There is no engine that could."""
        return False

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        """Any will do."""

    def parallel(self, facts: Facts) -> Parallel:
        """There is no engine yet."""
        return ONE_AT_A_TIME

    def companions(self, names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
        """A model of this format is a directory, never a file."""
        return {}


BACKEND: Backend = ONNXBackend()
