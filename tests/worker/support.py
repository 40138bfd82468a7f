"""Real workers, without the daemon."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybridd.worker.channel import Channel

ECHO = "hybridd.backends.echo.engine.generator:EchoEngine"
# Long enough for a loaded machine; a test that needs it has failed.
PATIENCE_S = 60


class Worker:
    """A worker process and the daemon's end of its channel."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.process = process
        sock.settimeout(PATIENCE_S)
        self.channel = Channel(sock)
        self.pid = process.pid

    def send(self, op: str, **fields: Any) -> None:
        self.channel.send({"op": op, **fields})

    def receive(self) -> dict[str, Any]:
        frame: dict[str, Any] = self.channel.receive()
        return frame

    def until(self, *ops: str) -> dict[str, Any]:
        """The next frame of one of these kinds."""
        while (frame := self.receive())["op"] not in ops:
            pass
        return frame

    def load(self, path: Path, factory: str = ECHO, **options: Any) -> None:
        spec = {
            "model": "a/model",
            "format": "echo",
            "path": str(path),
            "load_options": options,
            "defaults": {},
        }
        self.send("load", spec=spec, factory=factory)

    def start(self, request_id: int, **request: Any) -> None:
        self.send("start", request={"id": request_id, "kind": "generate", **request})

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def log_line(self) -> str:
        """Wait for the next line of the log."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode()

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextmanager
def worker(*arguments: str) -> Iterator[Worker]:
    """A worker by `python -m hybridd.worker`; killed at the end if it still lives."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "hybridd.worker", "--fd", str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
    with process:
        made = Worker(process, ours)
        try:
            yield made
        finally:
            process.kill()
            made.channel.close()


def echo_file(directory: Path, **file: Any) -> Path:
    """An echo model."""
    path = directory / f"m{len(os.listdir(directory))}.echo"
    path.write_text(json.dumps(file))
    return path
