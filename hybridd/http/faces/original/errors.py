"""How problems look below `/api/v1`: OpenAI's envelope, the protocol's kinds and facts."""

from __future__ import annotations

from typing import Any

from hybridd.http.problems import Problem


def error(problem: Problem) -> dict[str, Any]:
    """A problem's body."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "code": problem.kind,
            "param": problem.data.get("field"),
            "data": problem.data,
        }
    }
