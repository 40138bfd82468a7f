"""Log lines on standard error: with syslog levels for the journal, with times for a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from hybridd.wire.levels import LevelFormatter


def set_up(level: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send the root logger to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        handler.setFormatter(LevelFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Change how much is logged."""
    logging.getLogger().setLevel(level.upper())
    # Libraries log at info what only their authors want to know.
    for noisy in ("watchdog", "jsonrpcserver"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
