"""Small JSON files in the cache directory: what can be found out again, if not in no time.

Knows nothing of what is in them; `probe_results` keeps there how models were found to be served.

A file that is not as expected is as good as none, and one that cannot be written is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hybridd.wire import paths

# A hundred models' results have some 100 kB.
_MOST_BYTES = 1024 * 1024


def read(name: str) -> Any:
    """What a file holds; None where there is none, or it holds no JSON."""
    try:
        with open(Path(paths.cache_dir(), name), "rb") as file:
            return json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def write(name: str, value: Any) -> None:
    """Replace a file, at once; without a word where that cannot be."""
    file = Path(paths.cache_dir(), name)
    unfinished = file.with_name(f"{name}.tmp{os.getpid()}")
    try:
        os.makedirs(file.parent, mode=0o700, exist_ok=True)
        unfinished.write_text(json.dumps(value))
        unfinished.replace(file)
    except OSError:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def fingerprint(*sources: Path) -> str:
    """Tells this state of files, and of all files in directories, from any other.

    Only their names, times and sizes are looked at; of what Python compiled, nothing.

    Raises:
        OSError: They cannot be looked at.
    """
    seen: list[tuple[str, int, int]] = []
    directories: list[str] = []
    for source in sources:
        if source.is_dir():
            directories.append(str(source))
        else:
            seen.append(_seen(str(source), source.stat()))
    while directories:
        directory = directories.pop()
        seen.append((directory, 0, 0))
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.is_dir():
                    seen.append(_seen(entry.path, entry.stat()))
                elif entry.name != "__pycache__":
                    directories.append(entry.path)
    return hashlib.blake2b(repr(sorted(seen)).encode()).hexdigest()


def _seen(path: str, about: os.stat_result) -> tuple[str, int, int]:
    return path, about.st_mtime_ns, about.st_size
