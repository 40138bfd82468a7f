"""`jobs.*`: work that outlasts a request."""

from __future__ import annotations

from typing import Annotated, Any

from hybridd.core.fields import Bool, Text
from hybridd.rpc.call import Call
from hybridd.rpc.registry import method

JOB = Text(1, 128)


@method("jobs.list")
async def list_jobs(call: Call) -> dict[str, Any]:
    """All jobs that run, and those that ended lately."""
    return {"jobs": [job.to_wire() for job in call.daemon.jobs.all()]}


@method("jobs.get")
async def get(call: Call, *, job: Annotated[str, JOB]) -> dict[str, Any]:
    """One job as it is now."""
    return call.daemon.jobs.get(job).to_wire()


@method("jobs.cancel")
async def cancel(call: Call, *, job: Annotated[str, JOB]) -> dict[str, Any]:
    """Stop a job and everything that waits for it; returns it as it is then."""
    found = call.daemon.jobs.get(job)
    if not found.over and found.cancel is not None:
        found.cancel()
    return found.to_wire()


@method("jobs.wait")
async def wait(
    call: Call, *, job: Annotated[str, JOB], progress: Annotated[bool, Bool()] = False
) -> dict[str, Any]:
    """Answer when the job is over."""
    found = call.daemon.jobs.get(job)
    while not found.over:
        if progress:
            call.follow(found)
        await found.changed()
    if progress:
        call.follow(found)
    return found.to_wire()
