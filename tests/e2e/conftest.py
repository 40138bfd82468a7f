"""A real daemon in a directory of its own, told ready by its own sd_notify message."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridctl import Client

# Generous: the machine may be busy. A test of correctness has no time limit but this net.
NET_S = 120.0
_WARNINGS = ("-W", "error::ResourceWarning")


class RealDaemon:
    """One `python -m hybridd` process with its own XDG directories."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.models = directory / "models"
        self.models.mkdir()
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("HYBRIDD_", "XDG_", "MODEL_"))
        }
        self.environment = {
            **kept,
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "XDG_STATE_HOME": str(directory / "state"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "E2E_MARK": str(directory),
            "HYBRIDD_CATALOG_MODEL_DIRS": str(self.models),
            "HYBRIDD_FORMATS_ECHO": "true",
            **environment,
        }
        self.socket = str(directory / "run" / "hybridd" / "hybridd.sock")
        self.http_socket = str(directory / "run" / "hybridd" / "http.sock")
        self.log = directory / "hybridd.log"
        self.module = "hybridd"  # what is run; benchmarks put their instruments around it
        self.arguments: tuple[str, ...] = ()  # of hybridd's command line
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return once it says READY."""
        (self.directory / "run").mkdir(exist_ok=True)
        path = str(self.directory / "notify")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            open(self.log, "ab") as log,
        ):
            notify.bind(path)
            notify.settimeout(NET_S)
            self.process = subprocess.Popen(
                [sys.executable, *_WARNINGS, "-m", self.module, *self.arguments],
                env={**self.environment, "NOTIFY_SOCKET": path},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            while b"READY=1" not in notify.recv(4096):
                pass

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> Client:
        return Client(self.socket)

    def ctl(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run hybridctl as a person would."""
        return subprocess.run(
            [sys.executable, "-m", "hybridctl", *arguments],
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=NET_S,
            check=False,
        )

    def family(self) -> list[int]:
        """Pids of every living process that came of this daemon, whoever its parent is now."""
        mark = f"E2E_MARK={self.directory}\0".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in Path(f"/proc/{name}/environ").read_bytes():
                        found.append(int(name))
        return found

    def wait_alone(self) -> None:
        """Return once no process but the daemon itself is left."""
        for pid in self.family():
            if pid != self.pid:
                with contextlib.suppress(ProcessLookupError):
                    fd = os.pidfd_open(pid)
                    select.select([fd], [], [], NET_S)
                    os.close(fd)

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(NET_S)


def check_end(daemon: RealDaemon) -> None:
    """End a daemon; it must leave no process, no socket and no traceback."""
    code = daemon.stop()
    if code != 0:
        daemon.wait_alone()  # killed: its processes end by themselves
    log = daemon.log.read_text()
    left = daemon.family()
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"processes were left behind: {left}\n{log}"
    assert code in (0, -signal.SIGKILL), f"exit code {code}\n{log}"
    # A worker's has its model before it.
    assert "\nTraceback" not in f"\n{log}", log
    if code == 0:
        assert not os.path.exists(daemon.socket), "the socket was left behind"


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., RealDaemon]]:
    """Makes daemons that are gone, with all their processes, at the end of the test."""
    made: list[RealDaemon] = []

    def make(**environment: str) -> RealDaemon:
        directory = tmp_path / f"d{len(made)}"
        directory.mkdir()
        daemon = RealDaemon(directory, **environment)
        made.append(daemon)
        daemon.start()
        return daemon

    yield make
    for daemon in made:
        check_end(daemon)


@pytest.fixture
def daemon(make_daemon: Callable[..., RealDaemon]) -> RealDaemon:
    """One daemon with default settings."""
    return make_daemon()


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    """One daemon for all tests of a module that only ask it things."""
    made = RealDaemon(tmp_path_factory.mktemp("shared"))
    made.start()
    yield made
    check_end(made)


class Wire:
    """A raw connection: lines out, messages in."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(NET_S)
        self.socket.connect(path)
        self._file = self.socket.makefile("rb")

    def send(self, *messages: Any) -> None:
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.socket.sendall(data + b"\n")

    def receive(self) -> Any:
        line = self._file.readline()
        return json.loads(line) if line else None

    def call(self, method: str, **params: Any) -> Any:
        self.send({"jsonrpc": "2.0", "id": "call", "method": method, "params": params})
        while True:
            message = self.receive()
            assert message is not None, "the daemon closed the connection"
            if message.get("id") == "call":
                return message

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
