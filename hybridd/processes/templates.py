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
from collections.abc import Callable
from math import inf
from typing import Literal

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
from .template_slot import Slot, Startable
from .worker_process import WorkerProcess

_LOG = logging.getLogger(__name__)
TemplatePolicy = Literal["auto", "always", "never"]
# A template that died between two forks is replaced once; one that dies again would for ever.
_ATTEMPTS = 2


class Templates:
    """Owns the templates; their tasks run in a nursery that it is given.

    Args:
        policy: `auto`: a backend's template starts with its first worker or when it is warmed,
            and leaves after the keepalive without a fork. `always`: it stays. `never`: workers
            import for themselves.
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

    async def warm(self, backend: Startable, *, low_priority: bool = False) -> None:
        """Have the backend's template up, before it is needed. No-op under `never`.

        Args:
            low_priority: It gives way to whatever else wants the processor, until a load needs it.

        Raises:
            LoadFailed: The engine cannot be imported.
        """
        if self._policy != "never":
            slot = self._slot(backend, None, low_priority=low_priority)
            with slot.in_use(in_time=not low_priority):
                await self._ready(slot)

    # ------------------------------------------------------------------ memory

    def spare_bytes(self) -> int:
        """What `make_room` could give back."""
        return sum(slot.held_bytes for slot in self._spare())

    def lived_on_bytes(self) -> int:
        """What workers share with their models' templates."""
        return sum(slot.held_bytes for slot in self._slots.values() if slot.shared)

    def make_room(self, wanted: int, model: str, backend: str) -> None:
        """End templates that no worker lives on, until this many bytes are free.

        Args:
            wanted: For a load; `spare_bytes` were counted as free when it was planned.
            model, backend: What is to be loaded. Their own stay: what those hold is a part of
                `wanted`.
        """
        spare = self._spare()
        if not spare:
            return
        own = [s for s in spare if s.backend.name == backend and s.model in (None, model)]
        short = wanted - main_memory()[1] - sum(slot.held_bytes for slot in own)
        for slot in spare:
            if short > 0 and slot not in own:
                short -= slot.held_bytes
                self._end(slot)

    def _spare(self) -> list[Slot]:
        """The least recently used first. Not a backend's that models' were forked from."""
        heirs = {t.name for t in self._alive if t.model is not None}
        stay = self._policy == "always"
        found = [
            slot
            for slot in self._slots.values()
            if slot.spare and (slot.model or not (stay or slot.backend.name in heirs))
        ]
        return sorted(found, key=lambda slot: slot.last_used)

    def _end(self, slot: Slot) -> None:
        assert slot.template is not None
        slot.template.kill()
        self._forget(slot)

    # ------------------------------------------------------------------ lives

    def _slot(
        self,
        backend: Startable,
        preparation: Preparation | None,
        *,
        low_priority: bool = False,
    ) -> Slot:
        """The slot for a template; without one, the template is started in a new one."""
        key = (backend.name, preparation)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(backend, preparation, self._notice)
            self._notice()  # the one of an older state of the files may leave
            self._nursery().start_soon(self._keep, slot, low_priority)
        return slot

    async def _ready(self, slot: Slot) -> TemplateProcess:
        await slot.settled.wait()
        if slot.template is None:
            assert slot.error is not None
            raise load_failed(slot.error)
        return slot.template

    async def _keep(self, slot: Slot, low_priority: bool) -> None:
        """All that happens in a slot, until its template is reaped.

        One that starts at low priority gets a rival once it is needed, since raising its priority
        would need privileges: the first to be ready serves, and the other one ends.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live, slot, low_priority)
            if low_priority:
                await slot.hurry.wait()
                if not slot.settled.is_set():
                    nursery.start_soon(self._live, slot, False)

    async def _live(self, slot: Slot, low_priority: bool) -> None:
        """A template's whole life, from its start to its reaping."""
        slot.candidates += 1
        try:
            template = await self._started(slot, low_priority)
        except LoadFailed as exc:
            self._failed(slot, exc)
            return
        self._alive[template] = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(template.run)
                await self._get_ready(slot, template, low_priority)
                if slot.template is template:
                    nursery.start_soon(self._leave_when_idle, slot, template)
                else:
                    template.kill()
                await template.gone()
                nursery.cancel_scope.cancel()
        finally:
            del self._alive[template]
            if slot.template is template:
                self._forget(slot)

    async def _get_ready(self, slot: Slot, template: TemplateProcess, low_priority: bool) -> None:
        """Wait until it is the slot's, has failed, or another one was faster."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after, slot.settled, nursery.cancel_scope)
            try:
                if low_priority:
                    # However long: on a busy machine minutes, and a rival ends it if need be.
                    await template.until_ready(inf)
                else:
                    await template.until_ready()
            except LoadFailed as exc:
                self._failed(slot, exc)
            else:
                self._settle(slot, template)
            nursery.cancel_scope.cancel()

    async def _started(self, slot: Slot, low_priority: bool) -> TemplateProcess:
        """Start a backend's template; have it fork a model's.

        Raises:
            LoadFailed: There is none to be had.
        """
        backend = slot.backend
        if slot.preparation is None:
            module = backend.engine_factory.partition(":")[0]
            try:
                return TemplateProcess.start(
                    backend.name,
                    [*backend.preload, module],
                    backend.extra,
                    low_priority=low_priority,
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

    def _failed(self, slot: Slot, error: LoadFailed) -> None:
        """A template of the slot is none; its rival, where there is one, may still be ready."""
        slot.candidates -= 1
        if not slot.candidates:
            self._settle(slot, error=error)

    def _settle(
        self, slot: Slot, template: TemplateProcess | None = None, error: LoadFailed | None = None
    ) -> None:
        """The slot has its template, or its error. What comes later is of no use."""
        if slot.settled.is_set():
            return
        slot.template, slot.error = template, error
        if template is None:
            # The next caller tries again: the missing package may be installed by then.
            self._forget(slot)
        slot.settled.set()
        slot.hurry.set()

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
        """Whether the model's files have changed since: it is asked for no more."""
        alike = [s for s in self._slots.values() if s.model == slot.model]
        return slot.model is not None and alike[-1:] != [slot]

    def _is_one_too_many(self, slot: Slot) -> bool:
        spare = [s for s in self._spare() if s.model is not None]
        return slot in spare[: max(0, len(spare) - self._most_spare)]

    def _forget(self, slot: Slot) -> None:
        key = (slot.backend.name, slot.preparation)
        if self._slots.get(key) is slot:
            del self._slots[key]


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def no_process(exc: OSError) -> LoadFailed:
    """The error of a process that could not be made."""
    reason = os.strerror(exc.errno or 0)
    return LoadFailed(f"no process could be started: {reason}", reason="no_process")
