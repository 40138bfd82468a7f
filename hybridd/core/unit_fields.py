"""Fields whose values have units: durations and sizes, as `wire/units` reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hybridd.core.fields import Field, FieldError
from hybridd.wire import units


@dataclass(frozen=True, slots=True)
class Duration(Field):
    """Seconds as a float; for ever is `math.inf` inside and -1 outside."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return units.DURATION_TAKES

    def check(self, value: Any) -> float:
        try:
            return units.parse_duration(value)
        except ValueError:
            raise FieldError(self.takes, value) from None

    def parse(self, text: str) -> float:
        return self.check(text)

    def schema(self) -> dict[str, Any]:
        return {"type": ["number", "string"]}

    def toml(self, value: Any) -> str:
        if value == math.inf:
            return "-1"
        return str(int(value)) if value == int(value) else repr(value)


@dataclass(frozen=True, slots=True)
class Minutes(Duration):
    """A duration whose text is a number of minutes."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return "a number of minutes; 0 is at once, -1 for ever"

    def parse(self, text: str) -> float:
        try:
            minutes = float(text)
        except ValueError:
            raise FieldError(self.takes, text) from None
        return self.check(-1 if minutes < 0 else minutes * 60)


@dataclass(frozen=True, slots=True)
class Size(Field):
    """A limit: bytes, "8GiB", or "80%" of a total that the user of the value knows."""

    @property
    def takes(self) -> str:  # type: ignore[override]
        return units.SIZE_TAKES

    def check(self, value: Any) -> int | str:
        try:
            units.parse_size(value, total=1)
        except ValueError:
            raise FieldError(self.takes, value) from None
        return value if isinstance(value, int) else str(value)

    def parse(self, text: str) -> int | str:
        plain = text.strip()
        # 64-bit numbers have 19 digits; Python refuses to read some thousands of them.
        return self.check(int(plain) if plain.isdecimal() and len(plain) < 32 else text)

    def schema(self) -> dict[str, Any]:
        return {"type": ["integer", "string"]}
