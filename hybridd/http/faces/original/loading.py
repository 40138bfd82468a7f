"""`/api/v1/models/{id}/load` and `/unload`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio

from hybridd.core.fields import Bool, Struct
from hybridd.core.options import LOAD_FIELD
from hybridd.core.unit_fields import Duration
from hybridd.daemon.jobs import Job
from hybridd.http.faces.api import SSE, Answer, Call, Produced, Reply, Route, Send
from hybridd.http.faces.original.errors import error
from hybridd.http.faces.shared import bodies
from hybridd.http.faces.shared.events import event
from hybridd.http.problems import Problem
from hybridd.wire.errors import HybriddError

_BODY = Struct(
    {"load_options": LOAD_FIELD, "keepalive": Duration(), "pin": Bool()},
    open=True,
    what="what a load takes",
)
_FORCE = Struct({"force": Bool()}, open=True, what="how it is unloaded")
_PROGRESS_S = 5.0


async def load(call: Call) -> Answer:
    """Load a model; with `Accept: text/event-stream` its progress comes first."""
    wanted = _wanted(call.body)
    if SSE in call.headers.get("accept", ""):
        await call.daemon.manager.find(call.path["id"])  # a wrong name is a 404, no event
        return Produced(SSE, lambda send: _load_told(call, wanted, send))
    return Reply(await call.daemon.manager.load(call.path["id"], **wanted))


async def unload(call: Call) -> Answer:
    """Unload a model once its requests are done, or at once with `force`."""
    asked = call.query.get("force", "false").lower() in ("true", "1")
    force = bodies.read(_FORCE, call.body).get("force", asked)
    return Reply(await call.daemon.manager.unload(call.path["id"], force=force))


async def _load_told(call: Call, wanted: Mapping[str, Any], send: Send) -> None:
    """Send a load's progress while it goes on, then how it ended."""
    jobs: list[Job] = []
    changed = trio.Event()
    outcome: list[bytes] = []

    async def run() -> None:
        try:
            loaded = await call.daemon.manager.load(call.path["id"], **wanted, on_job=follow)
            outcome.append(event("loaded", loaded))
        except HybriddError as exc:
            outcome.append(event("error", error(Problem.of(exc))))
        changed.set()

    def woken(job: Job) -> None:
        changed.set()

    def follow(job: Job) -> None:
        jobs.append(job)
        job.watchers.add(woken)
        changed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not outcome:
            changed = trio.Event()
            await send(event("progress", jobs[-1].progress()) if jobs else b": waiting\n\n")
            with trio.move_on_after(_PROGRESS_S):
                await changed.wait()
        nursery.cancel_scope.cancel()
    for job in jobs:
        job.watchers.discard(woken)
    await send(outcome[0])


def _wanted(body: Any) -> dict[str, Any]:
    """What a load takes of a body."""
    given = bodies.read(_BODY, body)
    made = {name: given[name] for name in _BODY.fields if name in given}
    if made.get("keepalive") == -1:
        made["keepalive"] = math.inf
    return made


_LOADS, _UNLOADS = "Load a model.", "Unload a model."
_PATH = "/api/v1/models/{id}"
_OBJECT = {"type": "object"}
ROUTES = (
    Route("POST", f"{_PATH}/load", load, _LOADS, body=bodies.schema(_BODY), result=_OBJECT),
    # The original's own example loads by GET.
    Route("GET", f"{_PATH}/load", load, _LOADS, result=_OBJECT, acts=True),
    Route("POST", f"{_PATH}/unload", unload, _UNLOADS, body=bodies.schema(_FORCE), result=_OBJECT),
    Route("GET", f"{_PATH}/unload", unload, _UNLOADS, result=_OBJECT, acts=True),
)
