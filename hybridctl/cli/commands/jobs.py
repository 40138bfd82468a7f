"""`jobs`: what outlasts a request, from any terminal."""

from __future__ import annotations

from hybridd.wire.errors import from_wire

from .. import exit_codes
from ..common import connect
from ..parser import UsageError, unknown
from ..progress import ProgressBar
from ..render import or_dash, print_json, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from hybridd.wire.types import Job

    from ..parser import Parser

_ACTIONS = ("list", "show", "wait", "cancel")


def configure_jobs(parser: Parser) -> None:
    """Arguments of `jobs`."""
    parser.add_argument(
        "action", nargs="?", default="list", help="list (default), show, wait or cancel"
    )
    parser.add_argument("job", nargs="?", metavar="JOB", help="for show, wait and cancel")


def jobs(args: Namespace) -> int:
    """List jobs, or do something with one."""
    if args.action not in _ACTIONS:
        raise UsageError(unknown("action", args.action, _ACTIONS))
    if (args.action == "list") == (args.job is not None):
        raise UsageError(
            "list takes no job" if args.job is not None else f"{args.action} which job?"
        )
    with connect(args) as client:
        if args.action == "list":
            found = client.jobs()
            if args.json:
                print_json([job.raw for job in found])
            else:
                print(_table(found))
            return exit_codes.OK
        if args.action == "wait":
            with ProgressBar(args.job, shown=not args.json) as progress:
                job = client.wait_job(args.job, on_progress=progress)
        elif args.action == "cancel":
            job = client.cancel_job(args.job)
        else:
            job = client.job(args.job)
    if args.json:
        print_json(job.raw)
    elif args.action == "cancel":
        print(f"cancelled {job.job}")
    else:
        print(_table([job]))
    if job.error and args.action == "wait":
        raise from_wire(job.error)
    return exit_codes.OK


def _table(found: list[Job]) -> str:
    return table(
        ("JOB", "KIND", "MODEL", "STATE", "STAGE", "DONE"),
        [
            (
                job.job,
                or_dash(job.kind),
                or_dash(job.model),
                or_dash(job.state),
                or_dash(job.stage),
                "-" if job.fraction is None else f"{job.fraction:.0%}",
            )
            for job in found
        ],
    )


COMMANDS = {"jobs": (configure_jobs, jobs)}
