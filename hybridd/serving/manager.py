"""The facade: everything that the daemon does with models, for any transport.

Turns what clients ask into items for `serving/residency` and waits for their end. Keeps no state of
its own. Knows no JSON-RPC and no socket.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from hybridd.backends.api import Backend
from hybridd.backends.registry import FormatInfo
from hybridd.catalog.library import Library
from hybridd.core import scheduling
from hybridd.core.instance import Instance
from hybridd.core.kinds import KINDS
from hybridd.core.lifecycle import State
from hybridd.core.model import Estimate, Facts, ModelRecord
from hybridd.core.naming import resolve
from hybridd.core.options import complete_sampling, satisfies, wanted_of
from hybridd.core.plan import Need
from hybridd.daemon.configuration import Configuration
from hybridd.daemon.jobs import Job, Jobs
from hybridd.processes.host import ProcessHost
from hybridd.serving import refusals, views
from hybridd.serving.memory import Reading
from hybridd.serving.model_settings import ModelSettings
from hybridd.serving.options import adapters, builds, draft_models
from hybridd.serving.requests import InferenceRequest, Sink
from hybridd.serving.residency import Residency, Waiter
from hybridd.wire import errors

LoadOptions = Mapping[str, Any] | None


class Manager:
    """See the module's text.

    Args:
        formats: What is installed for each backend, by its name.
        settings: Of single models; None for none that last.
    """

    def __init__(
        self,
        configuration: Configuration,
        library: Library,
        backends: Mapping[str, Backend],
        formats: Mapping[str, FormatInfo],
        host: ProcessHost,
        residency: Residency,
        jobs: Jobs,
        settings: ModelSettings | None = None,
    ) -> None:
        self._configuration = configuration
        self._library = library
        self._backends = backends
        self._formats = formats
        self._host = host
        self._residency = residency
        self._scheduler = residency.scheduler
        self._jobs = jobs
        self._keys = itertools.count(1)
        self._departed: dict[str, ModelRecord] = {}
        self.settings = settings or ModelSettings()
        residency.permissions = self.settings.permissions

    def departed(self, record: ModelRecord) -> None:
        """A model's files are gone; while it is loaded it goes on serving."""
        self._departed[record.id] = record

    def files_changed(self, model: str) -> None:
        """The catalog says that the model's files were replaced or went away."""
        self._residency.feed(scheduling.FilesChanged(model))

    async def ping(self) -> None:
        """Answer through the loop that feeds the scheduler."""
        self._residency.feed(scheduling.Tick())
        await trio.lowlevel.checkpoint()

    # ---------------------------------------------------------------- what clients ask

    async def find(self, query: str) -> ModelRecord:
        """The model that a name means.

        Raises:
            ModelNotFound, ModelAmbiguous: With suggestions or candidates.
        """
        gone = self._still_loaded()
        if query in gone:
            return gone[query]
        try:
            return await self._library.find(query, loaded_ids=set(self._scheduler.instances))
        except errors.ModelNotFound:
            with contextlib.suppress(errors.ModelNotFound, errors.ModelAmbiguous):
                return gone[resolve(query, gone)]
            raise

    async def load(
        self,
        query: str,
        *,
        load_options: LoadOptions = None,
        keepalive: float | None = None,
        pin: bool | None = None,
        on_job: Callable[[Job], None] | None = None,
    ) -> dict[str, Any]:
        """Have a model loaded; returns its `Loaded`. Cancelled, it leaves the load to others.

        Args:
            on_job: Hears which job the load is, to follow its progress.

        Raises:
            HybriddError: Any of those that a load can meet.
        """
        record, item = await self._load_item(query, load_options, keepalive, pin)
        waiter = self._residency.waiters[item.key] = Waiter(on_job)
        await self._residency.through(item, self._need(record), waiter.over.wait)
        number = waiter.instance()
        instance = self._scheduler.instance(number)
        if instance is None:
            raise errors.Cancelled(f"{record.id} was unloaded as soon as it was loaded")
        await self._residency.measure()
        return self._loaded(instance)

    async def load_detached(
        self,
        query: str,
        *,
        load_options: LoadOptions = None,
        keepalive: float | None = None,
        pin: bool | None = None,
    ) -> Job:
        """Begin a load that goes on by itself; returns its job."""
        record, item = await self._load_item(query, load_options, keepalive, pin)
        item.detached = True
        waiter = self._residency.waiters[item.key] = Waiter(None, keep=True)
        self._residency.feed(scheduling.Enqueue(item, self._need(record)))
        if waiter.job is None:
            # Loaded already, or refused at once: a job that is over tells it.
            job = self._jobs.create("load", record.id)
            if waiter.error is None:
                self._jobs.finish(job, "done", result={"id": record.id})
            else:
                self._jobs.finish(job, "failed", error=waiter.error)
            return job
        return waiter.job

    async def infer(
        self,
        kind: str,
        query: str,
        request: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        load_options: LoadOptions = None,
        keepalive: float | None = None,
        timeout_s: float | None = None,
        sink: Sink | None = None,
        autoload: bool = True,
    ) -> dict[str, Any]:
        """Run one request on a model, loading it if need be. Cancelled, it is taken back.

        Args:
            kind: One of `core.kinds`.
            request: Its other fields.
            sink: Takes the deltas; without one the result carries the text.
            autoload: Whether a model that is not loaded may be, where the settings let it.

        Raises:
            HybriddError: Any of those that a request can meet.
        """
        with trio.move_on_after(math.inf if timeout_s is None else timeout_s):
            record = await self._loadable(query, load_options)
            settled = self.settings.get(record.id)
            refusals.check_wishes(record, self._backends[record.format], request, options or {})
            refusals.check_kind(record, KINDS[kind])
            inference = InferenceRequest(
                next(self._keys),
                record.id,
                KINDS[kind],
                {
                    **request,
                    "kind": kind,
                    "options": complete_sampling(
                        options or {}, settled.get("options", {}), record.facts.defaults
                    ),
                },
                sink,
                trio.current_time(),
            )
            item = scheduling.Item(
                inference.key,
                record.id,
                load_options=await self._wanted(record, load_options),
                keepalive=self._settled(record, "keepalive", keepalive),
                pin=settled.get("pin"),
                switch=autoload and self._configuration["models.smart_switching"],
            )
            self._residency.requests[inference.key] = inference
            await self._residency.through(item, self._need(record), inference.over.wait)
            return await inference.outcome()
        raise errors.RequestTimeout(
            f"the request was not done within {timeout_s:g} s; give it a longer timeout",
            seconds=timeout_s,
        )

    async def configure(self, query: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change a model's lasting settings (None removes one); returns those it has then."""
        record = await self.find(query)
        if values:
            options, models = values.get("load_options") or {}, self._library.snapshot.models
            builds.chosen(record, record.id, options, self._backends, models)
            builds.checked(options, record, self._backends)
            others = [r for id, r in self._library.snapshot.models.items() if id != record.id]
            given = self.settings.aliases()
            taken = {name for r in others for name in (r.id, *r.aliases, *given.get(r.id, ()))}
            self.settings.change(record, values, taken)
            if "alias" in values:
                self._library.set_aliases(self.settings.aliases())
        return {"model": record.id, **self.settings.get(record.id)}

    def usable(self, record: ModelRecord) -> bool:
        """Whether a model can be loaded, going by its files and its settings."""
        return record.available or self.settings.permits(record)

    async def unload(self, query: str, *, force: bool = False) -> dict[str, Any]:
        """Unload one model, or all with "*"; waits until the memory is back."""
        running = self._scheduler.instances
        models = [query] if query in running else list(running)  # its files may be gone
        if query != "*" and query not in running:
            target = (await self.find(query)).id
            models = [target] if target in running else []
        waiters = {m: (next(self._keys), Waiter(None)) for m in models}
        for model, (key, waiter) in waiters.items():
            self._residency.waiters[key] = waiter
            self._residency.feed(scheduling.Unload(key, model, force))
        try:
            for _, waiter in waiters.values():
                await waiter.over.wait()
        finally:
            for key, _ in waiters.values():
                if self._residency.waiters.pop(key, None):
                    self._residency.feed(scheduling.Abandon(key))
        freed = sum(waiter.freed_bytes for _, waiter in waiters.values())
        return {"unloaded": models, "freed_bytes": freed}

    async def loaded(self, *, all: bool = False) -> list[dict[str, Any]]:
        """docs/protocol.md's `Loaded` of every instance that holds memory or is coming up.

        Args:
            all: Also templates, and models that are in quarantine.
        """
        running = self._scheduler.instances
        reading = await self._residency.measure() if running or all else None
        entries = [self._loaded(i) for i in running.values()]
        if all and reading is not None:
            pids = self._host.template_pids()
            entries += [views.template(n, pids.get(n), m) for n, m in reading.templates.items()]
            held = self._scheduler.quarantine.held(trio.current_time())
            entries += [views.quarantined(model, left) for model, left in held.items()]
        return entries

    def worker_pids(self) -> set[int]:
        """Pids of all workers and templates."""
        return {w.pid for w in self._residency.workers()} | set(self._host.template_pids().values())

    async def measure(self) -> Reading:
        """Read the machine's memory now."""
        return await self._residency.measure()

    def listed(self) -> Mapping[str, ModelRecord]:
        """The catalog's models, sorted by id, and those that serve though their files are gone."""
        gone, models = self._still_loaded(), self._library.snapshot.models
        return dict(sorted({**gone, **models}.items())) if gone else models

    def overlay(self, model: str) -> views.Overlay | None:
        """What the running state adds to a model of the catalog; None for most."""
        instance = self._scheduler.instances.get(model)
        held = self._scheduler.quarantine.check(model, trio.current_time())
        queued = model in self._scheduler.tickets
        if instance is None and held is None and not queued:
            return None
        return views.overlay(instance, queued, held)

    def notes(self, model: str) -> list[str]:
        """What does not go as one would expect with a model that is loaded; else nothing."""
        instance = self._scheduler.instances.get(model)
        return [] if instance is None else list(instance.facts.get("notes", ()))

    @property
    def loaded_models(self) -> Sequence[str]:
        """Ids of the models that are ready."""
        instances = self._scheduler.instances.values()
        return [i.model for i in instances if i.state is State.READY]

    # ---------------------------------------------------------------- inside

    def _still_loaded(self) -> Mapping[str, ModelRecord]:
        """Models that are loaded and not in the catalog any more."""
        instances = self._scheduler.instances
        return {id: record for id, record in self._still_used().items() if id in instances}

    def _still_used(self) -> Mapping[str, ModelRecord]:
        """Those, and what drafts for a loaded model and is not in the catalog any more."""
        models, instances = self._library.snapshot.models, self._scheduler.instances
        used = {*instances, *(i.plan.load_options.get("draft_model") for i in instances.values())}
        self._departed = {
            id: record for id, record in self._departed.items() if id in used and id not in models
        }
        return self._departed

    async def _load_item(
        self, query: str, asked: LoadOptions, keepalive: float | None, pin: bool | None
    ) -> tuple[ModelRecord, scheduling.Item]:
        record = await self._loadable(query, asked)
        return record, scheduling.Item(
            next(self._keys),
            record.id,
            load=True,
            load_options=await self._wanted(record, asked),
            keepalive=self._settled(record, "keepalive", keepalive),
            pin=self._settled(record, "pin", pin),
        )

    async def _loadable(self, query: str, asked: LoadOptions = None) -> ModelRecord:
        record, models = await self.find(query), self._library.snapshot.models
        record = builds.chosen(record, query, asked, self._backends, models)
        # While new files are written over a loaded model's, it goes on serving.
        loaded = record.id in self._scheduler.instances
        if record.available and not loaded:
            record = await self._library.fresh(record)
        if not (record.available or loaded or self.settings.permits(record)):
            raise errors.ModelInvalid(
                f"{record.id} is no usable model: {record.reason}",
                model=record.id,
                reason=record.reason,
            )
        known = self._formats.get(record.format)
        if known is None or not known.available:
            reason = known.reason if known else "its format is not enabled"
            raise errors.Unsupported(
                f"{record.id} cannot be loaded: {reason}",
                capability="load",
                format=record.format,
            )
        return record

    def _settled(self, record: ModelRecord, key: str, asked: Any) -> Any:
        """What was asked for, else what the user settled for the model."""
        value = self.settings.get(record.id).get(key) if asked is None else asked
        return math.inf if key == "keepalive" and value is not None and value < 0 else value

    async def _wanted(self, record: ModelRecord, load_options: LoadOptions) -> dict[str, Any]:
        """Load options with full ids; what is loaded is no other load for what a name means now."""
        own = self.settings.get(record.id).get("load_options", {})
        asked: Mapping[str, Any] = {**own, **(load_options or {})}
        instance = self._scheduler.instances.get(record.id)
        if instance and not instance.leaving and (id := instance.in_force.get("draft_model")):
            drafting = self._library.snapshot.models.get(id) or self._still_used().get(id)
            wanted = await self._named(record, asked, drafting)
            if satisfies(instance.in_force, wanted):
                return wanted
        return await self._named(record, asked)

    async def _named(
        self, record: ModelRecord, asked: Mapping[str, Any], drafting: ModelRecord | None = None
    ) -> dict[str, Any]:
        backend, models = self._backends[record.format], self._library.snapshot.models
        asked = builds.checked(asked, record, self._backends)
        asked = await draft_models.named(asked, record, backend, self._loadable, models, drafting)
        most = backend.parallel(record.facts).most
        return wanted_of(adapters.named(asked, models, backend), most)

    def _need(self, record: ModelRecord) -> Need:
        backend = self._backends[record.format]
        facts = record.facts
        return Need(
            record.id,
            lambda options: self._estimate(backend, facts, options),
            context_length=facts.context_length,
            auto_context=self._configuration["models.auto_context"],
            auto_parallel=backend.parallel(facts).auto,
            host_cache=self._residency.states.host_cache_bytes if backend.keeps_states else 0,
            gpu=backend.uses_gpu(),
            layers=facts.layers if backend.splits_layers else None,
        )

    def _estimate(self, backend: Backend, facts: Facts, options: Mapping[str, Any]) -> Estimate:
        """What a load needs, with all that is loaded beside the model."""
        models = self._library.snapshot.models
        estimate = adapters.with_weights(backend.estimate(facts, options), options, backend, models)
        return draft_models.with_draft(estimate, facts, options, backend, models)

    def _loaded(self, instance: Instance) -> dict[str, Any]:
        return views.loaded(
            instance,
            self._residency.supervisors.get(instance.number),
            self.listed().get(instance.model),
            queued=self._scheduler.queued_requests(instance.model),
            expires_in_s=self._scheduler.expires_in(instance, trio.current_time()),
        )
