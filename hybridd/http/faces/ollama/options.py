"""Ollama's `options` as the protocol's, and what else of a request says how to generate. Pure.

What is null is not set. What would change only how it is computed (`num_gpu`, `num_thread`,
`num_batch`, `use_mmap`, …) is the daemon's to decide, and ignored; what would change the answer and
is not there is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridd.backends.data_urls import bad
from hybridd.wire.errors import Unsupported

_SAME = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)
# Each with the value at which it does nothing.
_MISSING: Mapping[str, float] = {"mirostat": 0, "tfs_z": 1}
_MOST_TOKENS = 2**31 - 1


def sampling(options: object) -> dict[str, Any]:
    """The protocol's sampling options. Their ranges are checked where they are used.

    Raises:
        InvalidParams: They are no object, or not of their types.
        Unsupported: One that no engine here has.
    """
    given = _given(options)
    for name, off in _MISSING.items():
        if given.get(name, off) != off:
            raise Unsupported(f"the option {name} is not supported; leave it out", capability=name)
    made = {name: given[name] for name in _SAME if name in given}
    most = _whole(given, "num_predict")
    # -1 is without end and -2 until the context is full, which is the same here.
    if most is not None and most >= 0:
        made["max_tokens"] = min(most, _MOST_TOKENS)
    for name in ("top_k", "seed"):
        value = _whole(given, name)
        if value is not None:
            made[name] = max(0 if name == "top_k" else -1, value)
    return made


def load_options(options: object) -> dict[str, Any] | None:
    """The protocol's load options: the context, where one was asked for."""
    length = _whole(_given(options), "num_ctx")
    return {"context_length": length} if length else None


def logprobs(asked: object, alternatives: object) -> dict[str, int]:
    """The protocol's `logprobs`, which tells of the tokens where there is one alternative too."""
    if asked is not True:
        return {}
    if alternatives is None:
        return {"logprobs": 1}
    if not isinstance(alternatives, int) or isinstance(alternatives, bool):
        raise bad("top_logprobs", "must be a whole number from 0 to 20")
    return {"logprobs": max(1, alternatives)}


def thinking(think: object) -> dict[str, Any]:
    """What `think` says to a chat template: whether to reason, and how hard.

    Raises:
        InvalidParams: Neither true, false nor a level.
    """
    if think is None or think == "":
        return {}
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if isinstance(think, str):
        return {"enable_thinking": True, "reasoning_effort": think}
    raise bad("think", "must be true, false or a level such as high")


def refuse_format(format: object) -> None:
    """Constrained output is not there yet.

    Raises:
        Unsupported: One was asked for.
    """
    if format is None or format == "":
        return
    raise Unsupported(
        "constrained output (format) is not supported yet; leave it out",
        capability="response_format",
    )


def _given(options: object) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise bad("options", "must be an object")
    return {name: value for name, value in options.items() if value is not None}


def _whole(given: Mapping[str, Any], name: str) -> int | None:
    """A whole number, which many clients write as 128.0."""
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise bad(f"options.{name}", "must be a whole number")
