"""`models.*`: the catalog and what of it is in memory."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any

import trio

from hybridd.core.fields import Bool, Field, Int, OneOf, Text
from hybridd.core.model import ModelRecord
from hybridd.core.options import LOAD_FIELD, NULL, SAMPLING_FIELD
from hybridd.core.unit_fields import Duration
from hybridd.daemon.jobs import Job
from hybridd.rpc.call import Call
from hybridd.rpc.encoded import EncodedList
from hybridd.rpc.registry import method
from hybridd.serving.views import Overlay
from hybridd.wire.errors import InvalidParams
from hybridd.wire.framing import encode_line

# Three names of 255 bytes, each written as %XX, with their tags.
MODEL = Text(1, 4096)
# Right after the start a list waits this long for the first scan, so that a person's first look is
# not an empty one; with a huge collection it then shows what was found so far.
FIRST_SCAN_WAIT_S = 2.0
# Encoding a model takes about 15 us: ten thousand must not hold the loop.
_AT_A_TIME = 200
# Of a parameter that was left out, where null says something else.
_UNSET: Any = object()
_IN_MEMORY = frozenset({"loaded", "sleeping"})


def _or_null(field: Field) -> OneOf:
    return OneOf((field, NULL))


@method("models.list")
async def list_models(
    call: Call,
    *,
    format: Annotated[str | None, Text(1, 64)] = None,
    loaded: Annotated[bool | None, Bool()] = None,
    query: Annotated[str | None, Text(0, 1024)] = None,
    all: Annotated[bool, Bool()] = False,
    limit: Annotated[int | None, Int(1, 100_000)] = None,
    cursor: Annotated[str | None, Text(0, 4096)] = None,
) -> EncodedList:
    """The models of the catalog, sorted by id; `all` adds what is no usable model."""
    with trio.move_on_after(FIRST_SCAN_WAIT_S):
        await call.daemon.library.wait_complete()
    snapshot = call.daemon.library.snapshot
    after = _decode_cursor(cursor)
    words = query.casefold().split() if query else []
    fields: dict[str, Any] = {"revision": snapshot.revision, "complete": snapshot.complete}
    last, items = "", list[bytes]()
    for count, (id, record) in enumerate(call.daemon.manager.listed().items()):
        if count % _AT_A_TIME == _AT_A_TIME - 1:
            await trio.lowlevel.checkpoint()
        if after is not None and id <= after:
            continue
        if not (all or call.daemon.manager.usable(record)) or (
            format is not None and record.format != format
        ):
            continue
        if words and not all_in(words, record):
            continue
        over = call.daemon.manager.overlay(id)
        status = (over and over.status) or record.status
        if loaded is not None and (status in _IN_MEMORY) is not loaded:
            continue
        if limit is not None and len(items) == limit:
            fields["next_cursor"] = base64.urlsafe_b64encode(last.encode()).decode()
            break
        encoded = call.encoded.get(record) if over is None else _encode(record, over)
        items.append(encoded)
        last = id
    call.encoded.keep_only(snapshot.models)
    return EncodedList(fields, "models", items)


@method("models.show")
async def show(call: Call, *, model: Annotated[str, MODEL]) -> dict[str, Any]:
    """One model with everything that its files' headers say."""
    record = await call.daemon.manager.find(model)
    return {
        **_on_wire(call, record),
        **record.details(),
        "settings": dict(call.daemon.manager.settings.get(record.id)),
        "notes": call.daemon.manager.notes(record.id),
    }


@method("models.configure")
async def configure(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    alias: Annotated[str | None, _or_null(Text(1, 256))] = _UNSET,
    keepalive: Annotated[float | None, _or_null(Duration())] = _UNSET,
    pin: Annotated[bool | None, _or_null(Bool())] = _UNSET,
    load_options: Annotated[dict[str, Any] | None, _or_null(LOAD_FIELD)] = _UNSET,
    options: Annotated[dict[str, Any] | None, _or_null(SAMPLING_FIELD)] = _UNSET,
    allow_pickle: Annotated[bool | None, _or_null(Bool())] = _UNSET,
    trust_remote_code: Annotated[bool | None, _or_null(Bool())] = _UNSET,
) -> dict[str, Any]:
    """A model's lasting settings; without values they are read, null removes one."""
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


@method("models.resolve")
async def resolve(call: Call, *, model: Annotated[str, MODEL]) -> dict[str, Any]:
    """The full id that a name means."""
    return {"id": (await call.daemon.manager.find(model)).id}


@method("models.rescan")
async def rescan(call: Call, *, progress: Annotated[bool, Bool()] = False) -> dict[str, Any]:
    """Scan all stores; answers when a scan begun after the call is in the catalog."""
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


@method("models.load")
async def load(
    call: Call,
    *,
    model: Annotated[str, MODEL],
    load_options: Annotated[dict[str, Any] | None, LOAD_FIELD] = None,
    keepalive: Annotated[float | None, Duration()] = None,
    pin: Annotated[bool | None, Bool()] = None,
    wait: Annotated[bool, Bool()] = True,
    progress: Annotated[bool, Bool()] = False,
) -> dict[str, Any]:
    """Load a model into memory; with `wait` false, answer with the job at once."""
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


@method("models.loaded")
async def loaded(call: Call, *, all: Annotated[bool, Bool()] = False) -> dict[str, Any]:
    """The models in memory or coming up; `all` adds templates and quarantined models."""
    return {"models": await call.daemon.manager.loaded(all=all)}


@method("models.unload")
async def unload(
    call: Call, *, model: Annotated[str, MODEL], force: Annotated[bool, Bool()] = False
) -> dict[str, Any]:
    """Unload a model once its running requests are done, or at once with `force`; "*" is all."""
    return await call.daemon.manager.unload(model, force=force)


def _on_wire(call: Call, record: ModelRecord) -> dict[str, Any]:
    return _laid_over(record, call.daemon.manager.overlay(record.id) or Overlay())


def _laid_over(record: ModelRecord, over: Overlay) -> dict[str, Any]:
    return record.to_wire(status=over.status, stale=over.stale, reason=over.reason)


def _encode(record: ModelRecord, over: Overlay) -> bytes:
    return encode_line(_laid_over(record, over))[:-1]


def all_in(words: list[str], record: ModelRecord) -> bool:
    """Whether every word of a query occurs in the model's id or aliases."""
    text = " ".join((record.id, *record.aliases)).casefold()
    return all(word in text for word in words)


def _decode_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, ValueError):
        raise InvalidParams(
            "cursor takes the next_cursor of an earlier models.list",
            field="cursor",
            reason="no cursor of models.list",
        ) from None
