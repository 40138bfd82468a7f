"""The options that bodies of all routes which generate have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.core.fields import Bool, Field, Float, Int, ListOf, OneOf, Struct, Text
from hybridd.core.options import LOAD_FIELD, SAMPLING
from hybridd.core.requests import ANY_OBJECT, MODEL
from hybridd.core.unit_fields import Duration
from hybridd.http.faces.api import Ask
from hybridd.http.faces.shared import keep_alive
from hybridd.wire.errors import Unsupported

MOST_TOKENS = 2**31 - 1
# OpenAI's names for what the protocol calls otherwise, the one that counts first.
_MAX_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
# Taken under their own names. `logprobs` differs from route to route.
_SAME = tuple(name for name in SAMPLING if name not in ("max_tokens", "logprobs", "seed"))

# What every route takes beside its own: which model, and hybridd's own wishes.
COMMON: Mapping[str, Field] = {
    "model": MODEL,
    "keep_alive": keep_alive.FIELD,
    "load_options": LOAD_FIELD,
    "timeout": Duration(),
}
GENERATING: Mapping[str, Field] = {
    **COMMON,
    **{name: SAMPLING[name].field for name in _SAME},
    # Far more than any context has is usual.
    **dict.fromkeys(_MAX_TOKENS, Int(0)),
    "repetition_penalty": SAMPLING["repeat_penalty"].field,
    "seed": Int(),
    "stream": Bool(),
    "stream_options": Struct({"include_usage": Bool()}, open=True),
    "n": Int(1, 128),
    "response_format": ANY_OBJECT,
    "top_logprobs": Int(0, 20),
    "temperature": Float(0, 100),
}
TEXTS = OneOf((Text(), ListOf(Text(), min_length=1)))


def sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body's sampling options as the protocol names them; `logprobs` is the route's."""
    options = {name: body[name] for name in _SAME if name in body}
    if "repetition_penalty" in body:
        options.setdefault("repeat_penalty", body["repetition_penalty"])
    for name in _MAX_TOKENS:
        if name in body:
            options["max_tokens"] = min(body[name], MOST_TOKENS)
            break
    if "seed" in body:
        options["seed"] = max(-1, min(body["seed"], 2**64 - 1))
    return options


def ask(
    kind: str,
    body: Mapping[str, Any],
    request: Mapping[str, Any],
    options: Mapping[str, Any],
    autoload: bool,
) -> Ask:
    """What a body asks of its model."""
    return Ask(
        kind,
        body["model"],
        request,
        options,
        body.get("load_options"),
        keep_alive.seconds(body.get("keep_alive")),
        body.get("timeout"),
        autoload,
    )


def check_format(format: Mapping[str, Any] | None, field: str = "response_format") -> None:
    """Say so where an answer has to have a form.

    Raises:
        Unsupported: It has to.
    """
    if format is not None and format.get("type", "text") != "text":
        raise Unsupported(
            f"constrained output ({field}) is not supported yet; leave it out or ask for the type "
            "text",
            capability="response_format",
        )


def include_usage(body: Mapping[str, Any]) -> bool:
    """Whether a stream ends with what it cost."""
    return bool((body.get("stream_options") or {}).get("include_usage"))


def usage(results: list[Mapping[str, Any]]) -> dict[str, Any]:
    """OpenAI's `usage` of one prompt's answers, or of several prompts' where they differ."""
    each = [result.get("usage", {}) for result in results]
    prompt = sum(one.get("prompt_tokens", 0) for one in each)
    completion = sum(one.get("completion_tokens", 0) for one in each)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(u.get("cached_tokens", 0) for u in each)},
    }
