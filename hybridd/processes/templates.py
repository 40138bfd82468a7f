"""Which templates there are: one per backend, and one for each of a few models.

A backend's template has imported its engine; workers are forked from it. A model's template is
forked from that and has read, beside, what all workers of the model can share. It stays while one
of them lives, when that costs nothing, and for a while afterwards, so that the model comes back in
a fraction of the time; the memory it holds then is anyone's who needs it. Where it cannot be had,
its backend's serves as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Literal, Protocol

import trio

from hybridd.host.memory import main_memory
from hybridd.wire.errors import LoadFailed

from .child_io import Ends
from .template_process import (
    ForkRefused,
    Preparation,
    TemplateGone,
    TemplateProcess,
    load_failed,
)
from .worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
TemplatePolicy = Literal["auto", "always", "never"]
# A template that died between two forks is replaced once; one that dies again would for ever.
_ATTEMPTS = 2


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
        last_used: When `users` fell to none, in trio's time.
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
        self.users = 0
        self.last_used = trio.current_time()
        self.changed = trio.Event()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the template from leaving meanwhile."""
        self.users += 1
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
        """Keep a model's template until what is returned is called, at the end of a worker.

        What workers share with it costs nothing more while they live. A backend's may go at any
        time: others are forked from the next one.
        """
        if self.preparation is None:
            return lambda: None
        self.users += 1
        return self._release

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
        """Whether it is a model's that nobody lives on: its memory can be had at once."""
        return self.preparation is not None and self.template is not None and not self.users

    @property
    def shared(self) -> bool:
        """Whether it is a model's that somebody lives on."""
        return self.preparation is not None and self.template is not None and self.users > 0


class Templates:
    """Owns the templates; their tasks run in a nursery that it is given.

    Args:
        policy: `auto`: a backend's template starts with its first worker and leaves after the
            keepalive without a fork. `always`: it stays. `never`: workers import for themselves.
        keepalive_s: Seconds; negative is for ever.
        most_spare: How many models' templates stay that have no worker; 0 makes none at all.
        nursery: Where their tasks run; raises before there is one.
    """

    def __init__(
        self,
        policy: TemplatePolicy,
        keepalive_s: float,
        most_spare: int,
        nursery: Callable[[], trio.Nursery],
    ) -> None:
        self._policy = policy
        self._keepalive_s = keepalive_s
        self._most_spare = most_spare
        self._nursery = nursery
        self._slots: dict[tuple[str, Preparation | None], Slot] = {}
        self._alive: dict[TemplateProcess, None] = {}  # the oldest first

    def configure(self, policy: TemplatePolicy, keepalive_s: float) -> None:
        """Change both settings; templates that are up follow at once."""
        self._policy = policy
        self._keepalive_s = keepalive_s
        self._notice()

    def _notice(self) -> None:
        for slot in self._slots.values():
            slot.notice()

    @property
    def alive(self) -> dict[str, TemplateProcess]:
        """Those that were started and are not reaped, by what people know them by.

        A model has two when its files changed while the older one had workers, which goes by its
        pid as well then.
        """
        found: dict[str, TemplateProcess] = {}
        for template in self._alive:
            if (older := found.get(template.label)) is not None:
                found[f"{older.label} (pid {older.pid})"] = older
            found[template.label] = template
        return found

    # ------------------------------------------------------------------ forks

    async def fork(
        self,
        backend: Startable,
        model: str,
        preparation: Preparation | None,
        adopt: Callable[[int, Ends], WorkerProcess],
    ) -> tuple[WorkerProcess, Callable[[], None]] | None:
        """A worker out of the model's template or else the backend's.

        Args:
            model: Whose worker it is to be.
            preparation: What the model's template readies; None where it has none.
            adopt: Called at once with the worker's pid and its ends. Raises `TemplateGone` where
                that is no new worker.

        Returns:
            The worker, and what to call at its end; None where there is to be no template.

        Raises:
            LoadFailed: The engine cannot be imported.
        """
        if self._policy == "never":
            return None
        if preparation is not None and self._most_spare:
            try:
                made = await self._fork_from(backend, model, preparation, adopt)
            except LoadFailed as exc:
                # The worker will find the same, and has the words for it; or it does without.
                _LOG.info("no template of %s: %s", preparation.model, exc.message)
            else:
                if made is not None:
                    return made
        return await self._fork_from(backend, model, None, adopt)

    async def _fork_from(
        self,
        backend: Startable,
        model: str,
        preparation: Preparation | None,
        adopt: Callable[[int, Ends], WorkerProcess],
    ) -> tuple[WorkerProcess, Callable[[], None]] | None:
        for _ in range(_ATTEMPTS):
            slot = self._slot(backend, preparation)
            with slot.in_use():
                template = await self._ready(slot)
                # Descriptors anew for each attempt: a template that died may have forked before.
                with Ends(model) as ends:
                    try:
                        return adopt(await template.fork(ends), ends), slot.lived_on()
                    except TemplateGone:
                        template.kill()
                        self._forget(slot)
                    except ForkRefused as exc:
                        _LOG.warning("the template of %s refused to fork: %s", template.label, exc)
                        return None
        return None

    async def warm(self, backend: Startable) -> None:
        """Have the backend's template up, before it is needed. No-op under `never`.

        Raises:
            LoadFailed: The engine cannot be imported.
        """
        if self._policy != "never":
            slot = self._slot(backend, None)
            with slot.in_use():
                await self._ready(slot)

    # ------------------------------------------------------------------ memory

    def spare_bytes(self) -> int:
        """What `make_room` could give back."""
        return _held(self._spare())

    def lived_on_bytes(self) -> int:
        """What workers share with their models' templates."""
        return _held(slot for slot in self._slots.values() if slot.shared)

    def make_room(self, wanted: int, model: str) -> None:
        """End models' templates that nobody lives on, until this many bytes are free.

        Args:
            wanted: For a load; `spare_bytes` were counted as free when it was planned.
            model: What is to be loaded. Its own stays: what it holds is a part of `wanted`.
        """
        spare = self._spare()
        if not spare:
            return
        own = [slot for slot in spare if slot.model == model]
        short = wanted - main_memory()[1] - _held(own)
        for slot in spare:
            if short > 0 and slot not in own:
                _template(slot).kill()
                self._forget(slot)
                short -= _held([slot])

    def _spare(self) -> list[Slot]:
        """The least recently used first."""
        found = [slot for slot in self._slots.values() if slot.spare]
        return sorted(found, key=lambda slot: slot.last_used)

    # ------------------------------------------------------------------ lives

    def _slot(self, backend: Startable, preparation: Preparation | None) -> Slot:
        """The slot for a template; without one, the template is started in a new one."""
        key = (backend.name, preparation)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(backend, preparation, self._notice)
            self._notice()  # the one of an older state of the files may leave
            self._nursery().start_soon(self._keep, slot)
        return slot

    async def _ready(self, slot: Slot) -> TemplateProcess:
        await slot.settled.wait()
        if slot.template is None:
            assert slot.error is not None
            raise load_failed(slot.error)
        return slot.template

    async def _keep(self, slot: Slot) -> None:
        """A template's whole life, from its start to its reaping."""
        try:
            template = await self._started(slot)
        except LoadFailed as exc:
            slot.error = exc
            self._settle(slot)
            return
        self._alive[template] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(template.run)
                try:
                    await template.until_ready()
                    slot.template = template
                except LoadFailed as exc:
                    slot.error = exc
                    template.kill()
                self._settle(slot)
                nursery.start_soon(self._leave_when_idle, slot, template)
                await template.gone()
                nursery.cancel_scope.cancel()
        finally:
            del self._alive[template]
            self._forget(slot)

    async def _started(self, slot: Slot) -> TemplateProcess:
        """Start a backend's template; have it fork a model's.

        Raises:
            LoadFailed: There is none to be had.
        """
        backend = slot.backend
        if slot.preparation is None:
            module = backend.engine_factory.partition(":")[0]
            try:
                return TemplateProcess.start(
                    backend.name, [*backend.preload, module], backend.extra
                )
            except OSError as exc:
                raise no_process(exc) from exc
        above = self._slot(backend, None)
        with above.in_use():
            template = await self._ready(above)
            try:
                return await template.prepare(slot.preparation)
            except TemplateGone:
                self._forget(above)
                raise LoadFailed("the engine's template ended", reason="no_template") from None
            except ForkRefused as exc:
                raise LoadFailed(f"the template refused: {exc}", reason="no_template") from exc
            except OSError as exc:
                raise no_process(exc) from exc

    def _settle(self, slot: Slot) -> None:
        if slot.template is None:
            # The next caller tries again: the missing package may be installed by then.
            self._forget(slot)
        slot.settled.set()

    async def _leave_when_idle(self, slot: Slot, template: TemplateProcess) -> None:
        while (left_s := self._idle_left(slot)) > 0:
            with trio.move_on_after(left_s):
                await slot.changed.wait()
        self._forget(slot)
        template.leave()

    def _idle_left(self, slot: Slot) -> float:
        """Seconds until its template leaves, if nothing changes."""
        if slot.users:
            return inf
        if self._policy == "never" or self._is_outdated(slot) or self._is_one_too_many(slot):
            return 0.0
        if self._policy == "always" or self._keepalive_s < 0:
            return inf
        return slot.last_used + self._keepalive_s - trio.current_time()

    def _is_outdated(self, slot: Slot) -> bool:
        """Whether the model's files have changed since: nobody will ask for it again."""
        alike = [s for s in self._slots.values() if s.model == slot.model]
        return slot.model is not None and alike[-1:] != [slot]

    def _is_one_too_many(self, slot: Slot) -> bool:
        spare = self._spare()
        return slot in spare[: max(0, len(spare) - self._most_spare)]

    def _forget(self, slot: Slot) -> None:
        key = (slot.backend.name, slot.preparation)
        if self._slots.get(key) is slot:
            del self._slots[key]


def _template(slot: Slot) -> TemplateProcess:
    assert slot.template is not None
    return slot.template


def _held(slots: Iterable[Slot]) -> int:
    """Bytes of their templates."""
    return sum(_template(slot).memory()["private_bytes"] for slot in slots)


def no_process(exc: OSError) -> LoadFailed:
    """The error of a process that could not be made."""
    reason = os.strerror(exc.errno or 0)
    return LoadFailed(f"no process could be started: {reason}", reason="no_process")
