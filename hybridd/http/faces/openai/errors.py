"""Problems in OpenAI's envelope, with its types and codes where it has them."""

from __future__ import annotations

from typing import Any

from hybridd.http.problems import Problem

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {
    "context_exceeded": "context_length_exceeded",
    "unauthorized": "invalid_api_key",
}


def error(problem: Problem) -> dict[str, Any]:
    """A problem's body. `hybridd` carries the facts of the kind, which other servers have not."""
    by_class = "invalid_request_error" if problem.status < 500 else "server_error"
    message = problem.message
    if problem.kind == "context_exceeded":
        # litellm and what is built on it look for these words, not for the code.
        message = f"the prompt is too long: {message}"
    return {
        "error": {
            "message": message,
            "type": _TYPES.get(problem.status, by_class),
            "param": problem.data.get("field"),
            "code": _CODES.get(problem.kind, problem.kind),
            "hybridd": {"kind": problem.kind, **problem.data},
        }
    }
