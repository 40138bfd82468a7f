"""What a user's arguments become in a request: pure, and the same for both clients.

Absent (None) arguments are left out: the daemon refuses what it does not know and applies its own
defaults to what is missing.
"""

from __future__ import annotations

from hybridd.wire.units import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from hybridd.wire.types import Job, Progress

    Params: TypeAlias = dict[str, Any]
    OnProgress: TypeAlias = Callable[[Progress], object]

# Keywords that docs/protocol.md has beside `options`; `context_length` is one of `load_options`.
_BESIDE_OPTIONS = (
    "options",
    "load_options",
    "context_length",
    "keepalive",
    "timeout",
    "response_format",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
)


def inference(arguments: Params, **content: Any) -> Params:
    """The params of `generate`, `chat`, `embed` and whatever else a model does.

    Args:
        arguments: The user's further keywords. Those that the protocol has beside `options` go
            there, the rest is sampling and goes into `options`, where the daemon knows every name.
        **content: What the method names itself: `model`, `prompt`, `messages`, …
    """
    beside = {name: arguments[name] for name in _BESIDE_OPTIONS if name in arguments}
    sampling = {k: v for k, v in arguments.items() if k not in _BESIDE_OPTIONS}
    context = {"context_length": beside.pop("context_length", None)}
    beside["load_options"] = merged(beside.get("load_options"), context)
    beside["options"] = merged(beside.get("options"), sampling)
    for name in ("keepalive", "timeout"):
        beside[name] = duration(beside.get(name))
    return present({**content, **beside})


def present(values: Params) -> Params:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def merged(options: Params | None, more: Params) -> Params | None:
    """Options with those that were given as keywords; None where there are none."""
    # What stands in `options` was said, also null: it turns off what is settled for a model.
    return {**(options or {}), **present(more)} or None


def duration(value: float | str | None) -> float | str | None:
    """Seconds as the wire has them: JSON has no infinity, and negative ones are for ever."""
    return -1 if value == FOREVER else value


def job_name(job: str | Job) -> str:
    """What the protocol calls a job."""
    return job if isinstance(job, str) else job.job
