"""`python -m hybridd.worker --fd N --daemon PID`: a worker without a template.

The daemon starts it with the channel as descriptor N and the log as its standard output. It takes
as long to be ready as the engine's imports take.
"""

from __future__ import annotations

import argparse
import os

from . import logs, process
from .channel import Channel
from .loop import EXIT_ENDED, run_worker


def main() -> None:
    """Set the process up, then be a worker until the channel closes."""
    parser = argparse.ArgumentParser(prog="python -m hybridd.worker")
    parser.add_argument("--fd", type=int, required=True, help="the channel to the daemon")
    parser.add_argument("--daemon", type=int, help="the parent whose death ends this process")
    arguments = parser.parse_args()
    process.own_session()
    process.reset_signals()
    process.log_to(2)
    logs.set_up()
    process.raise_oom_score(os.getppid())
    process.set_name("hybridd-worker")
    if arguments.daemon is not None and not process.die_with(arguments.daemon):
        os._exit(EXIT_ENDED)
    # Past here nothing may run at exit: native libraries' own exit handlers can hang.
    os._exit(run_worker(Channel.from_fd(arguments.fd)))


if __name__ == "__main__":
    main()
