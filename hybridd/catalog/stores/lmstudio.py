"""LM Studio: `publisher/repository/file.gguf` below one directory, older versions below another.

Its `settings.json` names the directory when a person moved it (`downloadsFolder`), and a file in
the home directory names its own home where that is elsewhere. Nothing but where it lies is special:
the folders are the names that the walk goes by anyway.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hybridd.backends.bounded import read_file, read_json
from hybridd.wire.errors import ModelInvalid

from .base import Store, home

_POINTER = ".lmstudio-home-pointer"
_SETTINGS, _MOVED = "settings.json", "downloadsFolder"
_MAX_POINTER_BYTES = 4096
MAX_SETTINGS_BYTES = 1024 * 1024


def directories(environment: Mapping[str, str]) -> list[str]:
    """Where its settings say, and where it keeps models unless it was told otherwise."""
    homes = [home(environment, ".lmstudio"), home(environment, ".cache", "lm-studio")]
    if (pointed := _pointed(home(environment, _POINTER))) is not None:
        homes = [pointed, *(path for path in homes if path != pointed)]
    moved = [path for path in (_moved(environment, path) for path in homes) if path is not None]
    return [*moved, *(os.path.join(path, "models") for path in homes)]


def _pointed(pointer: str) -> str | None:
    """LM Studio's own home, where a file says it."""
    try:
        path = read_file(Path(pointer), _MAX_POINTER_BYTES).decode().strip()
    except (OSError, ValueError, ModelInvalid):
        return None
    return path if os.path.isabs(path) and "\0" not in path else None


def _moved(environment: Mapping[str, str], own: str) -> str | None:
    """The directory for models that the settings in `own` name; ~ is expanded."""
    try:
        path = read_json(Path(own, _SETTINGS), MAX_SETTINGS_BYTES).get(_MOVED)
    except (OSError, ModelInvalid):
        return None
    if not isinstance(path, str) or "\0" in path:
        return None
    if path == "~" or path.startswith("~/"):
        path = home(environment, path[2:])
    return path if os.path.isabs(path) else None


STORE = Store("lmstudio", "catalog.lmstudio", directories)
