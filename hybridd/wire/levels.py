"""Log lines that carry their level, as sd-daemon(3) has it: `<4>text`.

So a worker writes them to the daemon, and the daemon to the journal.
"""

from __future__ import annotations

import logging
import re

_PREFIX = re.compile(r"<([0-7])>")
_DIGITS = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
# By the digit. Python's logging knows no notice (5), and nothing above critical.
_LEVELS = (
    *(logging.CRITICAL,) * 3,
    logging.ERROR,
    logging.WARNING,
    *(logging.INFO,) * 2,
    logging.DEBUG,
)


class LevelFormatter(logging.Formatter):
    """Writes each line with its level; who reads it adds the time."""

    def format(self, record: logging.LogRecord) -> str:
        digit = _DIGITS.get(record.levelno, 6)
        # Each line of a traceback needs its own level.
        return "\n".join(f"<{digit}>{line}" for line in super().format(record).splitlines())


def parsed(line: str) -> tuple[int, str]:
    """A line's level and its text; without a prefix it is information."""
    if prefix := _PREFIX.match(line):
        return _LEVELS[int(prefix[1])], line[prefix.end() :]
    return logging.INFO, line
