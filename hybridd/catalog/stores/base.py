"""What a store is: a program's own way of keeping models, in the directories that it uses."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hybridd.catalog.candidate import Candidate, Root
from hybridd.catalog.walk import Walk


@dataclass(frozen=True, slots=True)
class Store:
    """One program's models on disk.

    Attributes:
        name: What `source.store` says.
        setting: The setting that turns it off.
        directories: From the environment to the directories, the likeliest first.
        lister: What lists its layout, see `walk.Source`; None walks its directories as any others.
    """

    name: str
    setting: str
    directories: Callable[[Mapping[str, str]], Sequence[str]]
    lister: Callable[[Walk, Root], list[Candidate]] | None = None


def home(environment: Mapping[str, str], *below: str) -> str:
    """A path in the user's home directory."""
    return os.path.join(environment.get("HOME") or os.path.expanduser("~"), *below)


def cache(environment: Mapping[str, str], *below: str) -> str:
    """A path in the user's cache directory, by the XDG rules."""
    named = environment.get("XDG_CACHE_HOME", "")
    return os.path.join(named if os.path.isabs(named) else home(environment, ".cache"), *below)


def named(environment: Mapping[str, str], variable: str, *below: str) -> list[str]:
    """The directory that a variable names, if it does; ~ is expanded."""
    value = environment.get(variable, "")
    if value == "~" or value.startswith("~/"):
        value = home(environment, value[2:])
    return [os.path.join(value, *below)] if os.path.isabs(value) else []
