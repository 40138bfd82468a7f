"""Problems in OpenAI's envelope."""

from __future__ import annotations

import pytest

from hybridd.http.faces.openai.errors import error
from hybridd.http.problems import Problem
from hybridd.wire import errors


@pytest.mark.parametrize(
    ("raised", "type", "code", "param"),
    [
        (
            errors.InvalidParams("x", field="stop"),
            "invalid_request_error",
            "invalid_params",
            "stop",
        ),
        (
            errors.Unsupported("x", capability="infill"),
            "invalid_request_error",
            "unsupported",
            None,
        ),
        (errors.ModelNotFound("x", model="m"), "not_found_error", "model_not_found", None),
        (errors.Busy("x", retry_after_s=2.5), "rate_limit_error", "busy", None),
        (errors.ShuttingDown("x"), "server_error", "shutting_down", None),
        (errors.DoesNotFit("x"), "server_error", "does_not_fit", None),
    ],
)
def test_each_kind(raised: errors.HybriddError, type: str, code: str, param: str | None) -> None:
    problem = Problem.of(raised)
    assert error(problem) == {
        "error": {
            "message": "x",
            "type": type,
            "param": param,
            "code": code,
            "hybridd": {"kind": raised.kind, **raised.data},
        }
    }


def test_a_wrong_token() -> None:
    told = error(Problem(401, "unauthorized", "x"))["error"]
    assert (told["type"], told["code"]) == ("authentication_error", "invalid_api_key")


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_look_for() -> None:
    problem = Problem.of(errors.ContextExceeded("9, but 5", prompt_tokens=9, context_length=5))
    assert error(problem)["error"] == {
        "message": "the prompt is too long: 9, but 5",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
        "hybridd": {"kind": "context_exceeded", "prompt_tokens": 9, "context_length": 5},
    }
