"""An echo engine that says what its template had ready for its model."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from pathlib import Path

from hybridd.backends.api import LoadedFacts, LoadSpec, Report
from hybridd.backends.echo.engine.generator import EchoEngine
from hybridd.wire.errors import LoadFailed

KEPT_BYTES = 8 * 1024 * 1024
_kept: dict[str, bytearray] = {}


class KeepingEngine(EchoEngine):
    """Its name is what was kept."""

    def load(self, spec: LoadSpec, report: Report) -> LoadedFacts:
        """As the echo engine does."""
        facts = super().load(spec, report)
        facts["engine"] = " ".join(_kept) or "nothing"
        return facts


def keep(path: str) -> None:
    """Keep the model's name, and `KEPT_BYTES` that can be seen."""
    _kept[Path(path).stem] = bytearray(b"x" * KEPT_BYTES)


def fail(path: str) -> None:
    """There is nothing to keep."""
    raise LoadFailed("nothing to keep", reason="no_vocabulary")


def crash(path: str) -> None:
    """As native code does over a hostile file."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path: str) -> None:
    """As on a disk that does not answer."""
    os.kill(os.getpid(), signal.SIGSTOP)


def lie(path: str) -> None:
    """As native code might that a hostile file has taken over."""
    line = b'{"op":"failed","error":{"message":"no","data":{"message":"x","self":1}}}\n'
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, line)


def claim(path: str) -> None:
    """As `lie`, but about what it forks: a process whose pid is the model's name."""
    template = sys.modules["__main__"].Template
    template._fork = lambda *_: {"op": "forked", "pid": int(Path(path).stem)}


def start_thread(path: str) -> None:
    """After which no process may be forked."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
