"""What is installed of the engines' packages, found out without importing any of them."""

from __future__ import annotations

import functools
import os
from importlib import metadata, util


@functools.cache
def version_of(distribution: str) -> str | None:
    """The version of an installed distribution, or None. Kept for the life of the process."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def files_of(package: str, folder: str) -> tuple[str, ...]:
    """Names of the files in one folder of an installed top-level package; empty without it."""
    spec = util.find_spec(package)
    names: list[str] = []
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            names += os.listdir(os.path.join(place, folder))
        except OSError:
            continue
    return tuple(sorted(names))
