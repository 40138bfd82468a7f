"""`jobs.*`: work that outlasts a request."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Bool, Text
from hybridd.rpc import results
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method
from hybridd.wire import types

JobName = Annotated[str, Text(1, 128), "Its name."]


@method("jobs.list", result=results.Jobs)
async def list_jobs(call: Call) -> dict[str, Any]:
    """All jobs that run, and those that ended lately."""
    return {"jobs": [job.to_wire() for job in call.daemon.jobs.all()]}


@method("jobs.get", result=types.Job)
async def get(call: Call, *, job: JobName) -> dict[str, Any]:
    """One job as it is now."""
    return call.daemon.jobs.get(job).to_wire()


@method("jobs.cancel", result=types.Job)
async def cancel(call: Call, *, job: JobName) -> dict[str, Any]:
    """Stop a job and everything that waits for it; returns it as it is then.

    It works from any connection. One that is over already, or cannot be stopped (a scan), stays as
    it is.
    """
    found = call.daemon.jobs.get(job)
    if not found.over and found.cancel is not None:
        found.cancel()
    return found.to_wire()


@method("jobs.wait", result=types.Job)
async def wait(
    call: Call,
    *,
    job: JobName,
    progress: Annotated[bool, Bool(), "Sends `$/progress` meanwhile."] = False,
) -> dict[str, Any]:
    """Answer when the job is over, in whatever way: the result says how."""
    found = call.daemon.jobs.get(job)
    while not found.over:
        if progress:
            call.follow(found)
        await found.changed()
    if progress:
        call.follow(found)
    return found.to_wire()
