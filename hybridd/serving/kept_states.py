"""What loads may keep of conversations beside their KV cache: main memory (`kv.host_cache`) and
disk space (`kv.persist`).

A worker writes the states of its model into the directory that it is given and stays within the
budget by itself. This module makes the directories, and keeps what all models together have on disk
within the budget, of which the least recently used files go first. It knows nothing of what is in
a file: only the engine that wrote it does, and one that it cannot use it ignores. A file may go at
any time, also while a worker has it open. Blocks; owned by `residency`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridd.backends.api import KVSpec
from hybridd.host import memory as host_memory
from hybridd.wire import units

log = logging.getLogger(__name__)


class KeptStates:
    """See the module's text.

    Args:
        root: Where the models' directories are; made with the first one.
        setting: Any setting by name.
    """

    def __init__(self, root: Path, setting: Callable[[str], Any]) -> None:
        self.root = root
        self._setting = setting
        self._main_bytes = host_memory.main_memory()[0]

    @property
    def host_cache_bytes(self) -> int:
        """The most main memory that one model may use for states."""
        return units.parse_size(self._setting("kv.host_cache"), self._main_bytes)

    def persist_bytes(self) -> int:
        """The disk space that all models together may use; 0 keeps nothing.

        Raises:
            OSError: It is a share of a disk that cannot be asked for its size.
        """
        budget = self._setting("kv.persist")
        # The disk is asked only where its size matters: it may be slow, and off is the default.
        share = isinstance(budget, str) and budget.rstrip().endswith("%")
        return units.parse_size(budget, self._disk_bytes() if share else None)

    def for_load(self, model: str, host_cache_bytes: int, *, persist: bool) -> KVSpec:
        """What the engine of a model is told. Its directory is made if it may keep states on disk.

        Args:
            host_cache_bytes: What the plan reserved for it.
            persist: Whether it can.
        """
        budget, directory = 0, ""
        try:
            if persist and (budget := self.persist_bytes()):
                directory = str(self._make_directory(model))
        except OSError as exc:
            log.error("the conversations of %s are not kept on disk: %s", model, exc)
            budget = 0
        return KVSpec(
            host_cache_bytes=host_cache_bytes, persist_bytes=budget, persist_dir=directory
        )

    def trim(self) -> None:
        """Remove the least recently used files until the rest is within the budget."""
        try:
            budget = self.persist_bytes()
        except OSError as exc:
            log.error("the conversations on disk are left as they are: %s", exc)
            return
        files = sorted(self._files(), reverse=True)
        for _, size, path in files:
            budget -= size
            if budget < 0:
                with contextlib.suppress(OSError):
                    path.unlink()

    def present(self) -> bool:
        """Whether there may be anything to trim."""
        try:
            return self.root.is_dir()
        except OSError:  # a directory above it that may not be entered
            return False

    def _files(self) -> list[tuple[int, int, Path]]:
        """(time of last use, size, path) of every file; what cannot be read is left out."""
        files: list[tuple[int, int, Path]] = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(OSError):
                    path = Path(folder, name)
                    status = path.lstat()
                    # A reader may touch the time of access only; a writer sets both.
                    used = max(status.st_mtime_ns, status.st_atime_ns)
                    files.append((used, status.st_size, path))
        return files

    def _make_directory(self, model: str) -> Path:
        # Ids have slashes and may be longer than a name may be.
        own = self.root / hashlib.sha256(model.encode()).hexdigest()[:32]
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What was said in conversations is for its owner alone, whatever the umask was once.
        for directory in (self.root, own):
            directory.chmod(0o700)
        return own

    def _disk_bytes(self) -> int:
        directory = self.root
        while not directory.exists() and directory != directory.parent:
            directory = directory.parent
        return shutil.disk_usage(directory).total
