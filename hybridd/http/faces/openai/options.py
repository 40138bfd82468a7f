"""The options that bodies of all routes which generate have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hybridd.core.fields import Bool, Field, Int, OneOf, Struct
from hybridd.core.options import LOAD_FIELD, NULL, SAMPLING
from hybridd.core.requests import ANY_OBJECT, MODEL
from hybridd.core.unit_fields import Duration
from hybridd.http.faces.api import Ask
from hybridd.http.faces.shared import keep_alive
from hybridd.wire.errors import InvalidParams, Unsupported

MOST_TOKENS = 2**31 - 1
MOST_ANSWERS = 128
# OpenAI's names for what the protocol calls otherwise, the one that counts first.
_MAX_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# Taken under their own names. `logprobs` differs from route to route.
_SAME = tuple(name for name in SAMPLING if name not in ("max_tokens", "logprobs", "seed", "top_k"))

# What every route takes beside its own: which model, and hybridd's own wishes.
COMMON: Mapping[str, Field] = {
    "model": MODEL,
    "keep_alive": keep_alive.FIELD,
    "keepalive": keep_alive.FIELD,
    "load_options": LOAD_FIELD,
    "timeout": Duration(),
}
GENERATING: Mapping[str, Field] = {
    **COMMON,
    **{name: SAMPLING[name].field for name in _SAME},
    # Far more than any context has is usual; other local servers' -1 is no limit.
    **dict.fromkeys(_MAX_TOKENS, Int(-1)),
    "top_k": Int(-1, 2**31 - 1),
    "repetition_penalty": SAMPLING["repeat_penalty"].field,
    "seed": Int(),
    "stream": Bool(),
    "stream_options": Struct({"include_usage": OneOf((Bool(), NULL))}, open=True),
    "top_logprobs": Int(0, 20),
}
# Of the routes that give several answers to one prompt.
ANSWERS: Mapping[str, Field] = {"n": Int(1, MOST_ANSWERS), "response_format": ANY_OBJECT}


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body's sampling options as the protocol names them; `logprobs` is the route's."""
    options = {name: body[name] for name in _SAME if name in body}
    if "repetition_penalty" in body:
        options.setdefault("repeat_penalty", body["repetition_penalty"])
    if "top_k" in body:
        options["top_k"] = max(0, body["top_k"])  # -1 is all as well, with many servers
    limit = next((body[name] for name in _MAX_TOKENS if name in body), -1)
    if limit >= 0:
        options["max_tokens"] = min(limit, MOST_TOKENS)
    if "seed" in body:
        options["seed"] = max(-1, body["seed"])
    return options


def told_alternatives(options: dict[str, Any], count: int | None) -> dict[str, Any]:
    """The same options, which ask for log probabilities.

    Args:
        count: How many alternatives are told with each token; None where nothing is told.
    """
    # At least one, for without alternatives an engine tells nothing.
    return options if count is None else {**options, "logprobs": max(1, count)}


def ask(
    kind: str,
    body: Mapping[str, Any],
    request: Mapping[str, Any],
    options: Mapping[str, Any],
    autoload: bool,
) -> Ask:
    """What a body asks of its model."""
    name = "keep_alive" if "keep_alive" in body else "keepalive"
    return Ask(
        kind,
        body["model"],
        request,
        options,
        body.get("load_options"),
        keep_alive.seconds(body.get(name), name),
        body.get("timeout"),
        autoload,
    )


def answers(asked: Ask, count: int) -> list[Ask]:
    """The asks for several answers to one prompt. With a seed each draws by one of its own."""
    seed = asked.options.get("seed", -1)
    if seed < 0:
        return [asked] * count
    return [
        replace(asked, options={**asked.options, "seed": (seed + number) % 2**63})
        for number in range(count)
    ]


def check_format(format: Any, field: str = "response_format") -> None:
    """Say so where an answer has to have a form.

    Raises:
        InvalidParams: What is said of it is no object.
        Unsupported: It has to have one.
    """
    if format is not None and not isinstance(format, Mapping):
        reason = "takes an object with a type"
        raise InvalidParams(f"{field} {reason}", field=field, reason=reason)
    if format is not None and format.get("type") not in (None, "text"):
        raise Unsupported(
            f"constrained output ({field}) is not supported yet; leave it out or ask for the type "
            "text",
            capability="response_format",
        )


def include_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream ends with what it cost."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def usage(results: Sequence[Mapping[str, Any]], answers: int = 1) -> dict[str, Any]:
    """OpenAI's `usage`.

    Args:
        results: In the order of the choices.
        answers: So many of them that follow each other are of one prompt, which counts once.
    """
    each = [result.get("usage", {}) for result in results]
    prompts, cached = (
        sum(one.get(name, 0) for one in each[::answers])
        for name in ("prompt_tokens", "cached_tokens")
    )
    completion = sum(one.get("completion_tokens", 0) for one in each)
    reasoning = [one["reasoning_tokens"] for one in each if "reasoning_tokens" in one]
    return {
        "prompt_tokens": prompts,
        "completion_tokens": completion,
        "total_tokens": prompts + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        **(
            {"completion_tokens_details": {"reasoning_tokens": sum(reasoning)}} if reasoning else {}
        ),
    }
