"""A worker's own lines: Python's logging and warnings, on standard error, each with its level.

The daemon reads them there and logs them under the model's id. No prompt and no output may be in
them: what is logged here is read by the readers of the daemon's log.
"""

from __future__ import annotations

import logging
import sys

from hybridd.wire.levels import LevelFormatter


def set_up() -> None:
    """Once in a process; what is forked from it has it as well."""
    root, ours = logging.getLogger(), logging.getLogger("hybridd")
    # Libraries log at info what only their authors want to know.
    for logger, level, form in (
        (root, logging.WARNING, "%(name)s: %(message)s"),
        (ours, logging.INFO, "%(message)s"),
    ):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LevelFormatter(form))
        logger.handlers[:] = [handler]
        logger.setLevel(level)
    ours.propagate = False
    logging.captureWarnings(True)
