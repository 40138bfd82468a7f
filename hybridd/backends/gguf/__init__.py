"""GGUF files, served by llama.cpp."""

from __future__ import annotations

from ..api import Backend
from .estimate import estimate
from .inspect import FORMAT, inspect


class GGUFBackend:
    """The daemon's half of the format."""

    name = FORMAT
    engine = "llama.cpp"
    extra: str | None = "gguf"
    distributions: tuple[str, ...] = ("llama-cpp-python", "jinja2")
    engine_factory = "hybridd.backends.gguf.engine:GGUFEngine"
    preload: tuple[str, ...] = ("llama_cpp.llama_cpp", "jinja2")
    suffixes: tuple[str, ...] = (".gguf",)
    markers: tuple[str, ...] = ()
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)


BACKEND: Backend = GGUFBackend()
