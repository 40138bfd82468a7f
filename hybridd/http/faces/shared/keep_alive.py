"""How long a model stays after a request, as clients write it: `300`, `"5m"`, `-1`."""

from __future__ import annotations

from typing import Any

from hybridd.core.fields import Float, OneOf, Text
from hybridd.wire import units
from hybridd.wire.errors import InvalidParams

# As it stands in a body; `seconds` says what it means.
FIELD = OneOf((Float(), Text()))


def seconds(value: Any, field: str = "keep_alive") -> float | None:
    """Seconds; math.inf is for ever, None where it is not said.

    Raises:
        InvalidParams: No duration.
    """
    if value is None or value == "":
        return None
    try:
        return units.parse_duration(value)
    except ValueError as exc:
        raise InvalidParams(f"{field} takes {exc}", field=field, reason=f"takes {exc}") from None
