"""Plain text for people: tables, sizes, durations, bars. No rich, no colour: pipes read it too."""

from __future__ import annotations

import json
import sys

from hybridd.wire.units import FOREVER, format_size

from .terminal import clean_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_BAR_WIDTH = 20


def print_json(value: Any) -> None:
    """One JSON document, indented."""
    print(_encode(value, indent=2))


def print_json_line(value: Any) -> None:
    """One line of JSON, at once."""
    print(_encode(value, indent=None), flush=True)


def _encode(value: Any, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    # A lone surrogate (from a file name that is no UTF-8) is JSON only as an escape.
    return text if _is_utf8(text) else json.dumps(value, indent=indent, allow_nan=False)


def _is_utf8(text: str) -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart; text that looks like a number goes to the right."""
    cells = [[clean_line(cell) for cell in row] for row in rows]
    right = [
        bool(cells) and all(not c or c[0].isdigit() or c == "-" for c in column)
        for column in zip(*cells, strict=True)
    ] or [False] * len(headers)
    lines = [list(headers), *cells]
    widths = [max(width(line[i]) for line in lines) for i in range(len(headers))]
    out = []
    for line in lines:
        padded = [
            " " * (w - width(cell)) + cell if r else cell + " " * (w - width(cell))
            for cell, w, r in zip(line, widths, right, strict=True)
        ]
        out.append("  ".join(padded).rstrip())
    return "\n".join(out)


def width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """`name   value` lines; a value of several lines is indented under its first."""
    shown = [(name, value) for name, value in pairs if value]
    indent = max((len(name) for name, _ in shown), default=0) + 2
    separator = "\n" + " " * indent
    return "\n".join(name.ljust(indent) + separator.join(v.split("\n")) for name, v in shown)


def in_words(seconds: float | None) -> str:
    """`4 minutes`, `1 hour`; None and infinity are `never`: said of when something ends."""
    if seconds is None or seconds == FOREVER or seconds < 0:
        return "never"
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return _plural(round(seconds / size), unit)
    return _plural(round(seconds), "second")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def size(value: float | None) -> str:
    """A size, or `-` for an unknown one."""
    return "-" if value is None else format_size(value)


def or_dash(value: object) -> str:
    """A value, or `-` for none."""
    return "-" if value is None or value == "" else str(value)


def bar(used: float, total: float) -> str:
    """`[#####---------------]`"""
    share = min(1.0, max(0.0, used / total)) if total > 0 else 0.0
    filled = round(share * _BAR_WIDTH)
    return "[" + "#" * filled + "-" * (_BAR_WIDTH - filled) + "]"
