"""Bounded reading of files that nobody here wrote, for every backend's inspection.

A file is opened without following what could block (FIFOs, devices) and read by offset; it is
never mapped, because a file that shrinks under a mapping ends the whole daemon with SIGBUS.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridd.wire.errors import ModelInvalid

# A value of JSON takes about 64 bytes once parsed: this holds a document under about 32 MiB.
MAX_JSON_VALUES = 400_000
# Strings and lists of this length or more are left out of a model's metadata.
MAX_TEXT = 2048
MAX_ITEMS = 64
MAX_DEPTH = 8


def invalid(reason: str) -> ModelInvalid:
    """The one error that bad content raises."""
    return ModelInvalid(f"the files are no usable model: {reason}", reason=reason)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[int, int]]:
    """Open a regular file for reading; yields `(descriptor, size)` and closes it.

    Raises:
        ModelInvalid: It is no regular file.
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise invalid(f"{os.fsdecode(path.name)!r} is no regular file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int) -> bytes:
    """A small file's bytes.

    Raises:
        ModelInvalid: It is no regular file or longer than `limit` bytes.
        OSError: It cannot be read.
    """
    with opened(path) as (descriptor, size):
        if size > limit:
            raise invalid(f"{path.name} has {size} bytes; at most {limit} are read")
        return read_at(descriptor, 0, size)


def names_in(path: Path) -> tuple[set[str], set[str]]:
    """The names in a directory, and those that are symlinks to nothing.

    Raises:
        OSError: It went away or cannot be read.
    """
    there: set[str] = set()
    nowhere: set[str] = set()
    with os.scandir(path) as entries:
        for entry in entries:
            dangling = entry.is_symlink() and not os.path.exists(entry.path)
            (nowhere if dangling else there).add(entry.name)
    return there, nowhere


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """`count` bytes from `offset`, fewer only where the file ends."""
    parts = []
    while count > 0:
        part = os.pread(descriptor, count, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_json(path: Path, limit: int) -> dict[str, Any]:
    """A JSON object from a small file; every oddity of the content is a `ModelInvalid`."""
    return parse_json(read_file(path, limit), path.name)


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object that may be hostile.

    Raises:
        ModelInvalid: No JSON, no object, too many values, too deep, NaN or an infinity,
            duplicate keys.
    """
    values = raw.count(b",") + raw.count(b"[") + raw.count(b"{") + raw.count(b":")
    if values > MAX_JSON_VALUES:
        raise invalid(f"{what} holds more than {MAX_JSON_VALUES} values")
    try:
        made = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_unique)
    except RecursionError:
        raise invalid(f"{what} is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, JSONDecodeError, overlong integers
        raise invalid(f"{what} is no valid JSON ({error})"[:300]) from None
    if not isinstance(made, dict):
        raise invalid(f"{what} is no JSON object")
    return made


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key occurs twice")
    return made


def plain(value: Any, depth: int = 0) -> Any:
    """A value as metadata may carry it: finite numbers, valid Unicode, nothing long.

    What is too long or too deep becomes None; objects keep their other keys.
    """
    if isinstance(value, str):
        return valid_text(value) if len(value) <= MAX_TEXT else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if depth < MAX_DEPTH and isinstance(value, list | tuple) and len(value) <= MAX_ITEMS:
        return [plain(item, depth + 1) for item in value]
    if depth < MAX_DEPTH and isinstance(value, dict) and len(value) <= MAX_ITEMS * 4:
        return {valid_text(str(k)): plain(v, depth + 1) for k, v in value.items()}
    return None


def valid_text(text: str) -> str:
    """Text without lone surrogates, which JSON can spell and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def whole(value: Any, least: int = 0, most: int = 2**40) -> int | None:
    """`value` when it is an integer in range, else None: for numbers out of foreign files."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    return None


def number(value: Any, least: float, most: float) -> float | None:
    """`value` as a finite float in range, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            made = float(value)
            if least <= made <= most:
                return made
    return None


def template_capabilities(template: str) -> tuple[str, ...]:
    """What a chat template says of a model: `tools`, `reasoning`."""
    found = []
    if "tools" in template or "tool_call" in template:
        found.append("tools")
    if any(mark in template for mark in ("<think>", "reasoning_content", "<|channel|>", "[THINK]")):
        found.append("reasoning")
    return tuple(found)


# docs/protocol.md's ranges of the options that model files bring defaults for.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repeat_penalty": (0.0, 10.0),
}


def sampling_default(option: str, value: Any) -> float | int | None:
    """A sampling default out of a model's files, or None when it is out of its range."""
    if option == "top_k":
        return whole(value, 0, 2**31 - 1)
    low, high = _RANGES[option]
    found = number(value, low, high)
    return (
        None if found is None else round(found, 6)
    )  # files keep 32-bit floats: 0.6 not 0.60000002
