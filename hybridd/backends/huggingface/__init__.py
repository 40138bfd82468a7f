"""Hugging Face directories, served by transformers and torch."""

from __future__ import annotations

from ..api import Backend
from .estimate import estimate
from .inspect import FORMAT, claims, inspect


class HuggingFaceBackend:
    """The daemon's half of the format."""

    name = FORMAT
    engine = "transformers"
    extra: str | None = "huggingface"
    distributions: tuple[str, ...] = ("torch", "transformers", "safetensors", "jinja2")
    engine_factory = "hybridd.backends.huggingface.engine:HuggingFaceEngine"
    preload: tuple[str, ...] = ("torch", "transformers", "safetensors", "jinja2")
    suffixes: tuple[str, ...] = ()
    tagged = False
    claims = staticmethod(claims)
    inspect = staticmethod(inspect)
    estimate = staticmethod(estimate)


BACKEND: Backend = HuggingFaceBackend()
