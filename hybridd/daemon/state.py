"""What lasts across restarts: small JSON files in the state directory, each replaced at once."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# A file of ours is some kilobytes; anything larger is not ours.
MAX_BYTES = 4 * 1024 * 1024


class StateFile:
    """One JSON object on disk. A broken file is put aside, never an obstacle to starting."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """The object; {} when there is none yet or it cannot be used."""
        try:
            with open(self.path, "rb") as file:
                text = file.read(MAX_BYTES + 1)
            if len(text) > MAX_BYTES:
                raise ValueError("it is too large")
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("it is no object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as exc:
            log.warning("%s cannot be used and is put aside: %s", self.path, exc)
            with contextlib.suppress(OSError):
                os.replace(self.path, self.path.with_suffix(".broken"))
            return {}
        return values

    def write(self, text: str) -> None:
        """Replace the file: after a crash it is the old one or the new one, never half of one.

        Raises:
            OSError: The directory is not writable or the disk is full.
        """
        os.makedirs(self.path.parent, mode=0o700, exist_ok=True)
        temporary = self.path.with_suffix(f".tmp{os.getpid()}")
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
