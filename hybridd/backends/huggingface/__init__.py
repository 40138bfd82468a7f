"""Hugging Face directories, served by transformers and torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.model import Facts

from .. import installed
from ..api import Adapters, Backend, Parallel, Switch
from .adapter import adapter_bytes
from .estimate import estimate
from .inspect import FORMAT, claims, inspect
from .option_checks import check_load_options

# What shares a forward pass costs little more than one request alone; beyond the second number
# processors compute what they do not save on reading weights.
_PARALLEL = Parallel(auto=4, most=64)


class HuggingFaceBackend(Backend):
    """The daemon's half of the format."""

    name = FORMAT
    engine = "transformers"
    extra = "huggingface"
    distributions = ("torch", "transformers", "safetensors", "jinja2")
    engine_factory = "hybridd.backends.huggingface.engine.any_engine:AnyEngine"
    # transformers comes with the engine, which knows how to import it in less time.
    preload = ("torch", "jinja2")
    switch = Switch("Serve Hugging Face models (transformers and torch).")
    senses = ("vision",)
    adapters = Adapters(adapter_bytes)
    claims = staticmethod(claims)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)

    def uses_gpu(self) -> bool:
        """Whether torch is a build with GPU support: only those without say so."""
        version = installed.version_of("torch")
        return version is not None and "+cpu" not in version

    def check_load_options(self, load_options: Mapping[str, Any]) -> None:
        """See `api.Backend`."""
        check_load_options(load_options, self.uses_gpu)

    def parallel(self, facts: Facts) -> Parallel:
        """The same of every model: those whose requests cannot share passes take turns."""
        return _PARALLEL


BACKEND: Backend = HuggingFaceBackend()
