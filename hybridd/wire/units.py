"""Durations and sizes as people write them, and back.

Durations are seconds as floats; for ever is `math.inf` inside and a negative number on the wire.
Sizes are integers of bytes.
"""

from __future__ import annotations

import re

FOREVER = float("inf")

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b?|b)?", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}

DURATION_TAKES = 'a number of seconds or a text such as "90s", "5m", "1h30m"; negative is for ever'
SIZE_TAKES = 'bytes, or a text such as "8GiB", "12GB" or "80%"'


def parse_duration(value: object) -> float:
    """Seconds from `90`, `"90"`, `"90s"`, `"1h30m"`, `"300ms"`; negative (also `"-1"`): for ever.

    Raises:
        ValueError: With what a duration may be.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e15 else value
        if number != number or number in (FOREVER, -FOREVER) or abs(number) >= 1e15:
            raise ValueError(DURATION_TAKES)
        return FOREVER if number < 0 else float(number)
    if isinstance(value, str) and len(value) <= 64:
        text = value.strip().lower()
        try:
            plain = float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None
        except ValueError:
            plain = None
        if plain is not None:
            return parse_duration(plain)
        negative = text.startswith("-")
        position, total = int(negative), 0.0
        while match := _DURATION_PART.match(text, position):
            total += float(match[1]) * _SECONDS[match[2]]
            position = match.end()
        if position == len(text) > int(negative):
            return FOREVER if negative else parse_duration(total)
    raise ValueError(DURATION_TAKES)


def parse_size(value: object, total: int | None = None) -> int:
    """Bytes from `1024`, `"8GiB"`, `"12GB"` or, when `total` is given, `"80%"` of it.

    Raises:
        ValueError: With what a size may be.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        if text.endswith("%") and total is not None:
            try:
                share = float(text[:-1])
            except ValueError:
                share = -1.0
            if 0 <= share <= 100:
                return int(total * share / 100)
        elif match := _SIZE.fullmatch(text):
            unit = (match[2] or "b").lower()
            base = 1024 if "i" in unit or len(unit) == 1 else 1000
            number = float(match[1]) * base ** _POWER.get(unit[0], 0)
            if number < 2**63:
                return int(number)
    raise ValueError(SIZE_TAKES)


def format_size(size: float) -> str:
    """`4.4 GB`: decimal units, as file managers and model hubs say them."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def format_count(count: float) -> str:
    """`7.2B`, `135M`: parameters as model names say them."""
    for unit in ("", "K", "M", "B", "T"):
        if count < 999.5 or unit == "T":
            return f"{count:.0f}{unit}" if not unit or count >= 99.5 else f"{count:.1f}{unit}"
        count /= 1000
    raise AssertionError


def format_duration(seconds: float | None) -> str:
    """`5m`, `1h30m`, `42s`, `for ever` (also for None)."""
    if seconds is None or seconds == FOREVER:
        return "for ever"
    if seconds < 1 and seconds > 0:
        return f"{seconds * 1000:.0f}ms"
    left = round(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size:
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2]) or "0s"
