"""The echo format: a small JSON file that says how a pretended model behaves.

It needs no dependency, takes any memory it is told to take, and fails on demand: a test double,
off unless `formats.echo` is turned on. An unknown key is refused, so that a typo in a test does not
pass for a behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridd.core.model import Facts

from ..bounded import invalid, number, read_json, whole

FORMAT = "echo"
MAX_BYTES = 64 * 1024
DEFAULT_CONTEXT_LENGTH = 4096
CAPABILITIES = ("completion", "chat", "embedding", "reranking")
DEFAULT_CAPABILITIES = CAPABILITIES[:2]


def _seconds(value: Any) -> bool:
    return number(value, 0, 3600) is not None


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _capabilities(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(one in CAPABILITIES for one in value)


# key -> whether a value is one that the engine takes
KEYS: dict[str, Callable[[Any], bool]] = {
    "context_length": lambda value: whole(value, 1, 2**31) is not None,
    "parallel": lambda value: whole(value, 1, 4096) is not None,
    "token_delay_s": _seconds,  # between two tokens
    "load_s": _seconds,  # how long a load takes, in `load_steps` steps of progress
    "load_steps": lambda value: whole(value, 1, 100_000) is not None,
    "fail": _text,  # the reason that a load fails with
    "crash_on": _text,  # a prompt that holds this text ends the worker
    "crash_signal": _text,  # by this signal, such as SEGV
    "hang_on": _text,  # load or generate: the worker stands still
    "weights_bytes": lambda value: whole(value, 0, 2**50) is not None,
    "reply": _text,  # what is said instead of the prompt
    "notes": _texts,  # what its load is said to be unlike what was expected
    "capabilities": _capabilities,  # instead of completion and chat
}


def inspect(path: Path) -> Facts:
    """Facts of the echo model in the file `path`.

    Raises:
        ModelInvalid: With `reason`.
        OSError: The file went away or cannot be read.
    """
    said = read_json(path, MAX_BYTES)
    for key, value in said.items():
        check = KEYS.get(key)
        if check is None:
            raise invalid(f"unknown key {key[:80]!r}; there are {', '.join(KEYS)}")
        if not check(value):
            raise invalid(f"the value of {key!r} is out of range or of the wrong type")
    return Facts(
        format=FORMAT,
        files=(path,),
        size_bytes=path.stat().st_size,
        name=path.stem,
        architecture=FORMAT,
        context_length=said.get("context_length", DEFAULT_CONTEXT_LENGTH),
        capabilities=tuple(said.get("capabilities", DEFAULT_CAPABILITIES)),
        weights_bytes=said.get("weights_bytes", 0),
        metadata=said,
    )
