"""A place for one template: who uses it, who lives on what it shares, what its memory is.

Knows no process but by its `TemplateProcess`; `Templates` starts and ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from hybridd.wire.errors import LoadFailed

from .template_process import Preparation, TemplateProcess


class Startable(Protocol):
    """The part of a `Backend` that starting a process needs."""

    @property
    def name(self) -> str: ...
    @property
    def extra(self) -> str | None: ...
    @property
    def engine_factory(self) -> str: ...
    @property
    def preload(self) -> tuple[str, ...]: ...


class Slot:
    """A place for a template, from the first one who needs it until it leaves.

    Attributes:
        users: Who waits for it, is having it fork or, of a model's, lives on what it shares.
        candidates: How many processes were started to be its template and have not failed.
        last_used: When `users` fell to none, in trio's time.
        hurry: Set once something waits for it, and once nothing has to any more.
    """

    def __init__(
        self,
        backend: Startable,
        preparation: Preparation | None,
        on_idle: Callable[[], None],
    ) -> None:
        self.backend = backend
        self.preparation = preparation
        self._on_idle = on_idle
        self.template: TemplateProcess | None = None
        self.error: LoadFailed | None = None
        self.settled = trio.Event()
        self.hurry = trio.Event()
        self.users = 0
        self.candidates = 0
        self._workers = 0
        self.last_used = trio.current_time()
        self.changed = trio.Event()

    @contextmanager
    def in_use(self, *, in_time: bool = True) -> Iterator[None]:
        """Keep the template from leaving meanwhile.

        Args:
            in_time: Whether it is needed now, rather than some day.
        """
        self.users += 1
        if in_time:
            self.hurry.set()
        try:
            yield
        finally:
            self._release()

    def _release(self) -> None:
        self.users -= 1
        if not self.users:
            self.last_used = trio.current_time()
            self._on_idle()

    def lived_on(self) -> Callable[[], None]:
        """Note a worker that was forked from it; call what is returned at the worker's end.

        What workers share with a model's costs nothing more while they live, so it stays for them.
        A backend's may go at any time: others are forked from the next one.
        """
        self._workers += 1
        if self.preparation is not None:
            self.users += 1
        return self._worker_ended

    def _worker_ended(self) -> None:
        self._workers -= 1
        if self.preparation is not None:
            self._release()

    def notice(self) -> None:
        """Have the task that waits for idleness look again."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def model(self) -> str | None:
        """Whose it is, whatever the state of the files; None for a backend's."""
        return None if self.preparation is None else self.preparation.model

    @property
    def spare(self) -> bool:
        """Whether no worker lives on it and none is about to."""
        return self.template is not None and not self.users and not self._workers

    @property
    def shared(self) -> bool:
        """Whether it is a model's, and workers live on it."""
        return self.preparation is not None and self.template is not None and self.users > 0

    @property
    def held_bytes(self) -> int:
        """What its template holds; nothing before there is one."""
        return 0 if self.template is None else self.template.memory()["private_bytes"]
