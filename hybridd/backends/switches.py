"""`formats.NAME`: the settings that turn formats on and off, one for each that is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hybridd.core.fields import Bool
from hybridd.core.keys import Key

from .api import Backend
from .registry import Format, FormatInfo

SECTION = "formats"
Setting = Callable[[str], Any]


def keys(formats: Mapping[str, Format]) -> dict[str, Key]:
    """The settings, by name."""
    found = {}
    for name, each in formats.items():
        description, on, variable = each.switch
        key = Key(f"{SECTION}.{name}", Bool(), on, description, variable=variable)
        found[key.name] = key
    return found


def enabled(formats: Mapping[str, Format], setting: Setting) -> dict[str, Backend]:
    """The backends that can be used and are on.

    Args:
        setting: Any setting by name.
    """
    return {
        name: each.backend
        for name, each in formats.items()
        if each.backend is not None and setting(f"{SECTION}.{name}")
    }


def shown(formats: Mapping[str, Format], setting: Setting) -> list[FormatInfo]:
    """What `system.info` says of them: one that is off is not available."""
    return [
        each.info
        if setting(f"{SECTION}.{name}")
        else replace(
            each.info,
            available=False,
            reason=f"it is off; turn it on with: hybridctl config set {SECTION}.{name} true",
        )
        for name, each in formats.items()
    ]
