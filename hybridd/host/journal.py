"""Log lines on standard error: with syslog levels for the journal, with times for a terminal."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class _JournalFormatter(logging.Formatter):
    """sd-daemon(3): `<6>text`; the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelname, 6)
        # Each line of a traceback needs its own level.
        return "\n".join(f"<{level}>{line}" for line in super().format(record).splitlines())


def set_up(level: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send the root logger to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in environment:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
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
