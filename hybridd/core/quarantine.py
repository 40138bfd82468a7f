"""Models whose workers keep dying are left alone for a while, longer each time.

A death counts only when its worker never completed a request since its load: what once worked may
be tried again at once. A success, a change of the file, or the user clears the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridd.wire.errors import Quarantined

DEATHS = 3
WINDOW_S = 60.0
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 60.0


@dataclass
class _Record:
    deaths: list[float] = field(default_factory=list)
    backoff: float = 0.0
    until: float = 0.0
    reason: str = ""


class Quarantine:
    """Deaths by model. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def death(self, model: str, now: float, reason: str) -> None:
        """Count a death; the third in a minute begins a quarantine, each later one doubles it."""
        record = self._records.setdefault(model, _Record())
        record.deaths = [t for t in record.deaths if now - t < WINDOW_S] + [now]
        record.reason = reason
        if len(record.deaths) >= DEATHS:
            record.backoff = min(LAST_BACKOFF_S, record.backoff * 2 or FIRST_BACKOFF_S)
            record.until = now + record.backoff

    def clear(self, model: str) -> None:
        """Forget everything about a model."""
        self._records.pop(model, None)

    def held(self, now: float) -> dict[str, float]:
        """Seconds that each quarantined model has left."""
        return {m: r.until - now for m, r in self._records.items() if r.until > now}

    def check(self, model: str, now: float) -> Quarantined | None:
        """The error for a request of a quarantined model."""
        record = self._records.get(model)
        if record is None or record.until <= now:
            return None
        left = record.until - now
        return Quarantined(
            f"{model} failed {DEATHS} times in a row ({record.reason}); "
            f"it is left alone for {left:.0f} s more",
            reason=record.reason,
            retry_after_s=left,
        )
