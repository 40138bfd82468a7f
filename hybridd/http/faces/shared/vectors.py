"""Bodies with vectors in them, which workers wrote as JSON: decoding them would hold the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hybridd.core.vectors import as_numbers
from hybridd.wire.framing import encode_line


def with_vectors(fields: Mapping[str, Any], name: str, vectors: Sequence[str]) -> bytes:
    """The JSON of `{**fields, name: vectors}`."""
    return _ending(fields, name, b"[%b]" % b",".join(map(as_numbers, vectors)))


def with_vector(fields: Mapping[str, Any], name: str, vector: str) -> bytes:
    """The JSON of `{**fields, name: vector}`."""
    return _ending(fields, name, as_numbers(vector))


def _ending(fields: Mapping[str, Any], name: str, value: bytes) -> bytes:
    begun = encode_line({**fields, name: 0})
    return begun.removesuffix(b"0}\n") + value + b"}\n"
