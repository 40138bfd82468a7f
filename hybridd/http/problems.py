"""What goes wrong, as HTTP tells it: one status for each kind of error, one record for all faces.

Each face writes a `Problem` in the shape that its clients know; nothing else here knows faces.
"""

from __future__ import annotations

import math
import time
from typing import Any

from hybridd.wire.errors import HybriddError

Headers = tuple[tuple[str, str], ...]

# By kind. Clients try 408, 409, 429 and 5xx again; what will not get better by itself says so.
_STATUS = {
    "parse_error": 400,
    "invalid_request": 400,
    "invalid_params": 400,
    "line_too_long": 413,
    "method_not_found": 404,
    "model_not_found": 404,
    "model_ambiguous": 400,
    "does_not_fit": 507,
    "load_failed": 500,
    "worker_died": 500,
    "busy": 429,
    "shutting_down": 503,
    "unsupported": 400,
    "context_exceeded": 400,
    "not_loaded": 400,
    "model_invalid": 422,
    "timeout": 504,
    "slow_consumer": 408,
    "quarantined": 503,
    # nginx's code for a client that left; one that cancelled its request reads it seldom.
    "cancelled": 499,
}
_AGAIN_IN_VAIN = frozenset({"does_not_fit", "load_failed"})
# A restart of the daemon, about.
_SHUTDOWN_S = 5


class Problem(Exception):
    """An answer that is an error.

    Attributes:
        status: Of HTTP.
        kind: The stable name that programs test: `HybriddError.kind` or one of HTTP's own
            (`not_found`, `method_not_allowed`, `unauthorized`, `forbidden`, …).
        message: A plain sentence for people.
        data: Facts of the kind.
        headers: More of the response's headers.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        headers: Headers = (),
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers
        self.data = data or {}

    @classmethod
    def of(cls, error: HybriddError) -> Problem:
        """The same error, as HTTP tells it."""
        headers: Headers = ()
        wait = error.data.get("retry_after_s")
        if isinstance(until := error.data.get("until"), (int, float)):
            wait = until - time.time()
        if isinstance(wait, (int, float)) and math.isfinite(wait):
            headers = (("retry-after", str(max(1, math.ceil(wait)))),)
        elif error.kind == "shutting_down":
            headers = (("retry-after", str(_SHUTDOWN_S)),)
        if error.kind in _AGAIN_IN_VAIN:
            # The openai and anthropic packages would try a 5xx twice more.
            headers = (*headers, ("x-should-retry", "false"))
        data = {name: value for name, value in error.data.items() if value is not None}
        return cls(
            _STATUS.get(error.kind, 500), error.kind, error.message, headers=headers, data=data
        )
