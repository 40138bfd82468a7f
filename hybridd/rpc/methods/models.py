"""`models.*`: the catalog and what of it is in memory."""

from __future__ import annotations

import math
from typing import Annotated, Any

import trio

from hybridd.catalog.query import Page, Query, decode_cursor
from hybridd.core.fields import Bool, Field, Int, OneOf, Text
from hybridd.core.model import ModelRecord
from hybridd.core.options import LOAD_FIELD, NULL, SAMPLING_FIELD
from hybridd.core.requests import MODEL
from hybridd.core.unit_fields import Duration
from hybridd.daemon.jobs import Job
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.encoded import EncodedList
from hybridd.rpc.registry import method
from hybridd.serving.views import Overlay
from hybridd.wire import types
from hybridd.wire.errors import (
    DoesNotFit,
    LoadFailed,
    ModelAmbiguous,
    ModelInvalid,
    ModelNotFound,
    Quarantined,
    Unsupported,
    WorkerDied,
)
from hybridd.wire.framing import encode_line

# What a model's name and its load can meet.
NAMING = (ModelNotFound, ModelAmbiguous)
LOADING = (*NAMING, ModelInvalid, Unsupported, Quarantined, DoesNotFit, LoadFailed, WorkerDied)

Model = Annotated[str, MODEL, "Its id, or a name for it."]
LoadOptions = Annotated[
    dict[str, Any] | None, LOAD_FIELD, "How to load it, where a load is needed."
]
Keepalive = Annotated[
    float | None,
    Duration(),
    "How long it stays when idle, a duration: from its last request's end, or from when it is "
    "ready. The last one named counts; else the model's setting, else `models.keepalive`.",
]
# Right after the start a list waits this long for the first scan, so that a person's first look is
# not an empty one; with a huge collection it then shows what was found so far.
FIRST_SCAN_WAIT_S = 2.0
# Of a parameter that was left out, where null says something else.
_UNSET: Any = object()


def _or_null(field: Field) -> OneOf:
    return OneOf((field, NULL))


@method("models.list", result=results.ModelPage)
async def list_models(
    call: Call,
    *,
    format: Annotated[str | None, Text(1, 64), "Only models of this format."] = None,
    loaded: Annotated[bool | None, Bool(), "Only those in memory, or only the others."] = None,
    query: Annotated[
        str | None, Text(0, 1024), "Words that all occur in the id or an alias, in any case."
    ] = None,
    all: Annotated[bool, Bool(), "Adds what is no usable model, with its `reason`."] = False,
    limit: Annotated[int | None, Int(1, 100_000), "The most models of one page."] = None,
    cursor: Annotated[str | None, Text(0, 4096), "The `next_cursor` of the page before."] = None,
) -> EncodedList:
    """The models of the catalog, sorted by id.

    Right after the daemon's start it waits up to 2 s for the first scan.
    """
    asked = Query(query, format, loaded, all, limit, decode_cursor(cursor))
    with trio.move_on_after(FIRST_SCAN_WAIT_S):
        await call.daemon.library.wait_complete()
    snapshot, manager = call.daemon.library.snapshot, call.daemon.manager
    page = Page(asked, manager.listed(), manager.usable, manager.overlay)
    items: list[bytes] = []
    for models in page.slices():
        for record, over in models:
            items.append(call.encoded.get(record) if over is None else _encode(record, over))
        await trio.lowlevel.checkpoint()
    call.encoded.keep_only(snapshot.models)
    fields: dict[str, Any] = {"revision": snapshot.revision, "complete": snapshot.complete}
    if page.next_cursor is not None:
        fields["next_cursor"] = page.next_cursor
    return EncodedList(fields, "models", items)


@method("models.show", result=types.ModelDetails, errors=NAMING)
async def show(call: Call, *, model: Model) -> dict[str, Any]:
    """One model with everything that its files' headers say."""
    record = await call.daemon.manager.find(model)
    return {
        **_on_wire(call, record),
        **record.details(),
        "settings": dict(call.daemon.manager.settings.get(record.id)),
        "notes": call.daemon.manager.notes(record.id),
    }


@method(
    "models.configure",
    result=results.ModelSettings,
    errors=(*NAMING, Unsupported),
)
async def configure(
    call: Call,
    *,
    model: Model,
    alias: Annotated[str | None, _or_null(Text(1, 256)), "Another name for it."] = _UNSET,
    keepalive: Annotated[
        float | None, _or_null(Duration()), "How long it stays when idle."
    ] = _UNSET,
    pin: Annotated[
        bool | None, _or_null(Bool()), "Whether it stays until it is told to go."
    ] = _UNSET,
    load_options: Annotated[
        dict[str, Any] | None, _or_null(LOAD_FIELD), "For loads that do not say otherwise."
    ] = _UNSET,
    options: Annotated[
        dict[str, Any] | None, _or_null(SAMPLING_FIELD), "For requests that do not say otherwise."
    ] = _UNSET,
    allow_pickle: Annotated[
        bool | None,
        _or_null(Bool()),
        "Whether weights in pickles are read, which may run code that is hidden in them.",
    ] = _UNSET,
    trust_remote_code: Annotated[
        bool | None,
        _or_null(Bool()),
        "Whether code in the model's directory is run, with the user's rights.",
    ] = _UNSET,
) -> dict[str, Any]:
    """A model's lasting settings; without values they are read, null removes one.

    They are kept by the model's id across restarts. An alias that another model answers to is
    `invalid_params`.
    """
    given = {
        "alias": alias,
        "keepalive": -1 if keepalive == math.inf else keepalive,
        "pin": pin,
        "load_options": load_options,
        "options": options,
        "allow_pickle": allow_pickle,
        "trust_remote_code": trust_remote_code,
    }
    values = {key: value for key, value in given.items() if value is not _UNSET}
    return dict(await call.daemon.manager.configure(model, values))


@method("models.resolve", result=results.Resolved, errors=NAMING)
async def resolve(call: Call, *, model: Model) -> dict[str, Any]:
    """The full id that a name means."""
    return {"id": (await call.daemon.manager.find(model)).id}


@method("models.rescan", result=types.Rescan)
async def rescan(
    call: Call,
    *,
    progress: Annotated[bool, Bool(), "Sends `$/progress` meanwhile."] = False,
) -> dict[str, Any]:
    """Scan all stores; answers when a scan begun after the call is in the catalog.

    Changes are found without it too; it is for clients that cannot wait, or count what changed.
    """
    jobs = call.daemon.jobs
    job = jobs.create("rescan", None)
    jobs.update(job, state="running", stage="scan")
    if progress:
        job.watchers.add(call.follow)
        call.follow(job)

    def told(stage: str, done: int, total: int) -> None:
        jobs.update(job, stage=stage, done=done, total=total)

    try:
        result = await call.daemon.library.rescan(told)
    except trio.Cancelled:
        jobs.finish(job, "cancelled")
        raise
    except Exception:
        jobs.finish(job, "failed")
        raise
    finally:
        job.watchers.discard(call.follow)
    jobs.finish(job, "done", result=result)
    if progress:
        call.follow(job)
    return result


@method("models.load", result=types.Loaded | results.JobName, errors=LOADING)
async def load(
    call: Call,
    *,
    model: Model,
    load_options: LoadOptions = None,
    keepalive: Keepalive = None,
    pin: Annotated[bool | None, Bool(), "Whether it stays until it is told to go."] = None,
    wait: Annotated[bool, Bool(), "false: answer with the job at once."] = True,
    progress: Annotated[bool, Bool(), "Sends `$/progress` meanwhile."] = False,
) -> dict[str, Any]:
    """Load a model into memory.

    Where there is no room, idle models leave, the least recently used first; busy ones are waited
    for. Loads of one model join. A load that the instance (or the load under way) satisfies, by a
    larger context say, changes nothing; one with other options waits for the running requests and
    loads the model anew. The load goes on when one of several waiters leaves or is cancelled, and
    stops with the last of them, unless that one had `wait` false; `jobs.cancel` stops it for all.
    """
    manager = call.daemon.manager
    if not wait:
        job = await manager.load_detached(
            model, load_options=load_options, keepalive=keepalive, pin=pin
        )
        return {"job": job.job}
    watched: list[Job] = []

    def on_job(job: Job) -> None:
        if progress:
            watched.append(job)
            job.watchers.add(call.follow)
            call.follow(job)

    if progress:
        call.check_id("progress")
    try:
        return await manager.load(
            model, load_options=load_options, keepalive=keepalive, pin=pin, on_job=on_job
        )
    finally:
        for job in watched:
            job.watchers.discard(call.follow)


@method("models.loaded", result=results.LoadedModels)
async def loaded(
    call: Call,
    *,
    all: Annotated[bool, Bool(), "Adds template processes and quarantined models."] = False,
) -> dict[str, Any]:
    """The models in memory or coming up.

    Templates and quarantined models have only those of the fields that apply.
    """
    return {"models": await call.daemon.manager.loaded(all=all)}


@method("models.unload", result=types.Unloaded, errors=NAMING)
async def unload(
    call: Call,
    *,
    model: Annotated[str, Text(1, 4096), "Its id or a name for it; `*` is all."],
    force: Annotated[bool, Bool(), "Cancels the running requests."] = False,
) -> dict[str, Any]:
    """Unload a model once its running requests are done; answers when its memory is back.

    Requests that wait for the model stay and load it again. Of a model that is not loaded nothing
    is unloaded, which is no error.
    """
    return await call.daemon.manager.unload(model, force=force)


def _on_wire(call: Call, record: ModelRecord) -> dict[str, Any]:
    return _laid_over(record, call.daemon.manager.overlay(record.id) or Overlay())


def _laid_over(record: ModelRecord, over: Overlay) -> dict[str, Any]:
    return record.to_wire(status=over.status, stale=over.stale, reason=over.reason)


def _encode(record: ModelRecord, over: Overlay) -> bytes:
    return encode_line(_laid_over(record, over))[:-1]
