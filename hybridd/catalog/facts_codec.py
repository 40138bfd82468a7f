"""Facts as the bytes that the database keeps of them, quickly read back by the thousand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hybridd.core.model import Facts
from hybridd.core.packed import Packed

# How a field of `Facts` is read back from JSON, which knows neither tuples nor paths: by position.
_NAMES = [f.name for f in fields(Facts)]
_FIELDS = len(_NAMES)
_METADATA, _TEMPLATE = _NAMES.index("metadata"), _NAMES.index("chat_template")
_POSITIONS = tuple(at for at in range(_FIELDS) if at not in (_METADATA, _TEMPLATE))
_PATHS = tuple(at for at in _POSITIONS if "Path" in str(fields(Facts)[at].type))
_TUPLES = tuple(
    at for at in _POSITIONS if str(fields(Facts)[at].type).startswith("tuple") and at not in _PATHS
)
# So many rows' JSON is read at once.
_AT_A_TIME = 256


def loads(texts: Sequence[bytes]) -> list[Any]:
    """Every text's value, None for what is no JSON.

    Many at a time, which takes a third of the time; not all at once, which would keep the
    interpreter from the loop.
    """
    values: list[Any] = []
    for at in range(0, len(texts), _AT_A_TIME):
        some = texts[at : at + _AT_A_TIME]
        try:
            together = json.loads(b"[%b]" % b",".join(some))
        except ValueError:
            together = []
        values += together if len(together) == len(some) else map(_load, some)
    return values


def _load(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def encode(facts: Facts, files: tuple[Path, ...]) -> tuple[bytes, bytes]:
    """Facts without their template as two texts: all but the metadata, and that.

    Args:
        facts: Of a candidate.
        files: The candidate's own.

    Raises:
        TypeError, ValueError: JSON cannot say them.
    """
    values: list[Any] = []
    for at in _POSITIONS:
        value = getattr(facts, _NAMES[at])
        if at in _PATHS and value is not None:
            # How many of the candidate's own they are, or their names.
            count = len(value)
            value = count if value == files[:count] else [os.fspath(path) for path in value]
        values.append(dict(value) if isinstance(value, Mapping) else value)
    encoded = json.dumps(values, separators=(",", ":"), allow_nan=False).encode("ascii")
    return encoded, Packed.of(facts.metadata).raw


def decode(
    values: list[Any], metadata: bytes, template: str | None, files: tuple[Path, ...]
) -> Facts:
    """The facts of `encode`, of a candidate with these files.

    Raises:
        TypeError, ValueError: It is not what `encode` makes.
    """
    arguments: list[Any] = [None] * _FIELDS
    arguments[_METADATA], arguments[_TEMPLATE] = Packed(metadata), template
    for at, value in zip(_POSITIONS, values, strict=True):
        arguments[at] = value
    for at in _TUPLES:
        if arguments[at] is not None:
            arguments[at] = tuple(arguments[at])
    for at in _PATHS:
        if isinstance(arguments[at], int):
            arguments[at] = files[: arguments[at]]
        elif arguments[at] is not None:
            arguments[at] = tuple(map(Path, arguments[at]))
    return Facts(*arguments)
