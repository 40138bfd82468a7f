"""LM Studio: `publisher/repository/file.gguf` below one directory, older versions below another.

Nothing but its places is special: the folders are the names that the walk goes by anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

from .base import Store, home


def places(environment: Mapping[str, str]) -> list[str]:
    """Where it keeps models unless it was told otherwise."""
    return [
        home(environment, ".lmstudio", "models"),
        home(environment, ".cache", "lm-studio", "models"),
    ]


STORE = Store("lmstudio", "catalog.lmstudio", places)
