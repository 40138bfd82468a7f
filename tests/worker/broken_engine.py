"""Engines that do what the echo engine cannot, above all fail."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from hybridd.backends.api import Delta, Output
from hybridd.backends.echo.engine.generator import EchoEngine


class OutOfMemory(EchoEngine):
    """As the host's memory runs out."""

    def load(self, spec: Any, report: Any) -> Any:
        raise MemoryError


class Surprised(EchoEngine):
    """As a library does that nobody expected anything of."""

    def load(self, spec: Any, report: Any) -> Any:
        raise KeyError("tensor")


def Missing() -> Any:  # noqa: N802 - stands in for a class
    """As an engine whose library is not installed."""
    import hybridd_absent  # type: ignore[import-not-found]

    return hybridd_absent


class SaysItsThreads(EchoEngine):
    """Answers with the number of threads that it was told last."""

    threads = 0

    def set_threads(self, count: int) -> None:
        self.threads = count

    def step(self) -> Sequence[Output]:
        return [
            {**output, "delta": Delta(f"{self.threads} ", 1)} if "delta" in output else output
            for output in super().step()
        ]


class Talkative(EchoEngine):
    """Says a few things while it loads."""

    def load(self, spec: Any, report: Any) -> Any:
        for name in ("hybridd.engine", "library"):
            logging.getLogger(name).info("for information")
            logging.getLogger(name).warning("as a warning")
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
        warnings.warn("not so good", UserWarning, stacklevel=1)
        return super().load(spec, report)


class FailsOnce(EchoEngine):
    """As a step that fails, after which the engine is sound again."""

    failed = False

    def step(self) -> Sequence[Output]:
        if not self.failed:
            if len(self._running) + len(self._waiting) < 2:
                return []  # the second request is still on its way
            self.failed = True
            raise RuntimeError(self._waiting[0]["prompt"])
        return super().step()
