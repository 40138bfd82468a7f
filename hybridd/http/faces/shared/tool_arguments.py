"""A tool call's arguments as an object, for the APIs whose clients take nothing else."""

from __future__ import annotations

import json
from typing import Any


def as_object(arguments: Any) -> dict[str, Any]:
    """The object that a text of JSON is. What is none (a call that was cut) is kept as text."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        value = arguments
    if isinstance(value, dict):
        return value
    return {"arguments": value} if value else {}
