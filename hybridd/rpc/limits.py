"""The limits that a connection keeps to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings a connection keeps to; see `core/keys`, section server."""

    max_line_bytes: int
    slow_bytes: int
    slow_s: float
