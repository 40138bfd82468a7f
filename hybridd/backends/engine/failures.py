"""Turns whatever a library raised into the typed error that may leave the worker.

The loop of a worker does so for what an engine raises, and engines for what one request did, so
that the others go on. No traceback and no prompt text goes on the wire; the traceback goes to the
log, without the text of an exception that may quote a prompt.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import traceback

from hybridd.wire.errors import HybriddError, InternalError, LoadFailed

_log = logging.getLogger(__name__)
# A library's message may quote what it was given: enough to understand it, not to carry a prompt.
_MESSAGE_LIMIT = 300
# How torch says that malloc or mmap failed.
_NO_MEMORY = re.compile(r"can't allocate memory|not enough memory|Cannot allocate memory")


def log_traceback(what: str, *, quotes_request: bool = False) -> None:
    """Log the current exception's traceback.

    Args:
        quotes_request: Whether the exception's text may quote what a client sent. The log gets its
            type alone then.
    """
    if not quotes_request:
        _log.exception("%s", what)
        return
    lines, error = [what], sys.exception()
    while error is not None:
        frames = "".join(traceback.format_tb(error.__traceback__))
        lines += ["Traceback (most recent call last):", frames + type(error).__qualname__]
        error = error.__cause__ or error.__context__
    _log.error("%s", "\n".join(lines))


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether this is the host's or a device's memory running out.

    Named, not typed: torch's class is not to be imported for the question.
    """
    name = type(exc).__name__
    if isinstance(exc, MemoryError) or name == "OutOfMemoryError":
        return True
    if name == "AcceleratorError":
        return "out of memory" in str(exc)
    if isinstance(exc, RuntimeError) and _NO_MEMORY.search(str(exc)):
        return True  # torch has no class of its own for the host's memory
    return isinstance(exc, OSError) and exc.errno == errno.ENOMEM


def first_line(exc: BaseException) -> str:
    """An exception's first line of text, short enough for a message."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    text = lines[0] if lines else type(exc).__name__
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"


def import_failure(exc: BaseException, extra: str | None) -> LoadFailed:
    """What an engine that cannot be imported means, and what to install."""
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    if missing is None:
        message = f"the engine cannot be imported: {first_line(exc)}"
    elif extra is None:
        message = f"the engine needs the Python module {missing}, which is not installed"
    else:
        message = (
            f"the engine needs the Python module {missing}, which is not installed; "
            f"install it with: pip install 'hybridd[{extra}]'"
        )
    return LoadFailed(message, reason="engine_unavailable", module=missing)


def load_failure(exc: BaseException, model: str) -> HybriddError:
    """The error that a failed load ends with."""
    if isinstance(exc, HybriddError):
        return exc
    log_traceback(f"loading {model} failed")
    if is_out_of_memory(exc):
        return LoadFailed(
            f"there was not enough memory to load {model}; unload another model or load it with "
            "a smaller context_length",
            reason="out_of_memory",
        )
    if isinstance(exc, OSError) and exc.errno:
        # Not the exception's own text, which names the file and where it lies.
        reason = os.strerror(exc.errno)
        return LoadFailed(f"{model} could not be read: {reason}", reason="unreadable")
    return LoadFailed(
        f"{model} could not be loaded: {first_line(exc)}",
        reason="engine_error",
    )


def work_failure(exc: BaseException) -> HybriddError:
    """The error that a request ends with when the engine failed at it."""
    if isinstance(exc, HybriddError):
        return exc
    log_traceback("a request failed", quotes_request=True)
    if is_out_of_memory(exc):
        return InternalError(
            "the engine ran out of memory at this request; load the model with a smaller "
            "context_length or unload another one",
            reason="out_of_memory",
        )
    return InternalError(
        f"the engine failed at this request ({type(exc).__name__}); the daemon's log says more",
        reason="engine_error",
    )
