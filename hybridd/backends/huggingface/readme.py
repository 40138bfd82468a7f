"""The front matter of a repository's README.md: license, languages, base models.

It is YAML between two lines `---`. Only what such cards are made of is read: `key: value`,
`key: [a, b]` and a list of `- item` lines; anything else is passed over.
"""

from __future__ import annotations

import re
from pathlib import Path

from hybridd.wire.errors import ModelInvalid

from ..bounded import opened, read_at, valid_text

NAME = "README.md"
# Front matters have some 1 KiB; those with evaluation results up to some 60.
_MAX_BYTES = 64 * 1024
_MAX_ITEMS = 32
_MAX_ITEM = 256
_ENTRY = re.compile(r"([A-Za-z_][\w-]{0,63}):[ \t]*(.*)")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)")


def read_card(path: Path) -> dict[str, list[str]]:
    """Key -> its texts, from the README.md in the directory `path`; empty where there is none."""
    try:
        with opened(path / NAME) as (descriptor, _):
            raw = read_at(descriptor, 0, _MAX_BYTES)
    except (OSError, ModelInvalid):
        return {}
    lines = raw.decode("utf-8-sig", "replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, list[str]] = {}
    items: list[str] = []
    for line in lines[1:]:
        if line.strip() in ("---", "..."):
            return found
        entry, item = _ENTRY.fullmatch(line), _ITEM.fullmatch(line)
        if entry is not None:
            items = found.setdefault(entry[1], [])
            _add(items, *_split(entry[2]))
        elif item is not None:
            _add(items, item[1])
    return {}  # it has no end: not a front matter


def _split(value: str) -> list[str]:
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        return value[1:-1].split(",")
    return [value]


def _add(items: list[str], *values: str) -> None:
    for value in values:
        made = valid_text(value.strip().strip("\"'").strip())
        if 0 < len(made) <= _MAX_ITEM and len(items) < _MAX_ITEMS:
            items.append(made)
