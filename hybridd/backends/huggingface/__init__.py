"""Hugging Face directories, served by transformers and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hybridd.core.model import Facts

from .. import installed
from ..api import ONE_AT_A_TIME, Backend, Parallel
from .estimate import estimate
from .inspect import FORMAT, claims, inspect

# The engine finishes one request before it begins the next. Change this with the engine.
_PARALLEL = ONE_AT_A_TIME


class HuggingFaceBackend:
    """The daemon's half of the format."""

    name = FORMAT
    engine = "transformers"
    extra: str | None = "huggingface"
    distributions: tuple[str, ...] = ("torch", "transformers", "safetensors", "jinja2")
    engine_factory = "hybridd.backends.huggingface.engine:HuggingFaceEngine"
    preload: tuple[str, ...] = ("torch", "transformers", "safetensors", "jinja2")
    suffixes: tuple[str, ...] = ()
    splits_layers = False
    keeps_states = False
    tagged = False
    claims = staticmethod(claims)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)

    def uses_gpu(self) -> bool:
        """Whether torch is a build with GPU support: only those without say so."""
        version = installed.version_of("torch")
        return version is not None and "+cpu" not in version

    def parallel(self, facts: Facts) -> Parallel:
        """Until the engine has continuous batching."""
        return _PARALLEL

    def companions(self, names: Sequence[str], loose: bool) -> Mapping[str, Sequence[str]]:
        """A model of this format is a directory, never a file."""
        return {}


BACKEND: Backend = HuggingFaceBackend()
