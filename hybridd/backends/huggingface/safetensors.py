"""A bounds-first reader of safetensors headers.

The format: eight bytes of header length, a JSON object of tensors, then their data without
holes. Reads the header only, and checks what the safetensors library would check later: dtypes,
shapes that match their bytes, offsets without gaps, the data all there. Bad content raises
`ModelInvalid`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bounded import invalid, opened, parse_json, read_at

# The library's own limit is 100 MB, but a header takes some twenty times its size once parsed.
# 16 MiB hold 150,000 tensors; files that are really published have under 1,000 each.
MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_DIMENSIONS = 16

# dtype -> bits of one element
DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}


@dataclass(slots=True)
class Tensors:
    """What one safetensors file holds.

    Attributes:
        size: The file's size in bytes.
        shapes: dtype and shape of every tensor.
        bytes_by_dtype: Data bytes by dtype.
        metadata: The header's `__metadata__`, strings only.
    """

    size: int
    shapes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    bytes_by_dtype: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


def read_tensors(path: Path) -> Tensors:
    """Read the header of the safetensors file at `path`.

    Raises:
        ModelInvalid: With `reason`, for anything that is wrong with the content.
        OSError: The file went away or cannot be read.
    """
    name = path.name
    with opened(path) as (descriptor, size):
        start = read_at(descriptor, 0, 8)
        if len(start) < 8:
            raise invalid(f"truncated: {name} ends before its header")
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER_BYTES:
            raise invalid(f"{name} claims a header of {length} bytes; {MAX_HEADER_BYTES} are read")
        if length > size - 8:
            raise invalid(f"truncated: {name} ends inside its header")
        raw = read_at(descriptor, 8, length)
    if len(raw) < length:
        raise invalid(f"truncated: {name} ends inside its header")
    if not raw.startswith(b"{"):
        raise invalid(f"{name} is no safetensors file")
    header = parse_json(raw.rstrip(b" "), f"the header of {name}")
    return _check(header, Tensors(size), size - 8 - length, name)


def _check(header: dict[str, Any], made: Tensors, data: int, name: str) -> Tensors:
    spans = []
    for key, entry in header.items():
        if key == "__metadata__":
            if isinstance(entry, dict):
                made.metadata = {k: v for k, v in entry.items() if isinstance(v, str)}
            continue
        dtype, shape, begin, end = _entry(key, entry, name)
        made.shapes[key] = (dtype, shape)
        made.bytes_by_dtype[dtype] = made.bytes_by_dtype.get(dtype, 0) + end - begin
        spans.append((begin, end))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise invalid(f"{name}: its tensors overlap or leave gaps")
        at = end
    if at > data:
        raise invalid(f"truncated: the tensors of {name} need {at} bytes, it has {data}")
    if at < data:
        raise invalid(f"{name}: {data - at} bytes follow its last tensor")
    return made


def _entry(key: str, entry: Any, name: str) -> tuple[str, tuple[int, ...], int, int]:
    what = f"{name}: the tensor {key[:80]!r}"
    if not isinstance(entry, dict):
        raise invalid(f"{what} is no object")
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise invalid(f"{what} has an unknown dtype")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not _sizes(shape):
        raise invalid(f"{what} has no usable shape")
    if not isinstance(span, list) or len(span) != 2 or not _sizes(span) or span[0] > span[1]:
        raise invalid(f"{what} has no usable offsets")
    if math.prod(shape) * DTYPE_BITS[dtype] != (span[1] - span[0]) * 8:
        raise invalid(f"{what} has another size than its shape says")
    return dtype, tuple(shape), span[0], span[1]


def _sizes(values: list[Any]) -> bool:
    return all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**56 for n in values)
