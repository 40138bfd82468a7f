"""The real daemon as a service of a real `systemd --user`, put in place by `hybridctl service`.

systemd needs /run/systemd/system to exist, also where it is not PID 1: root can make it, anybody
else needs a machine that systemd booted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridctl import Client
from hybridctl.sdk.errors import UNIT_NAMES

SYSTEMD = Path("/usr/lib/systemd/systemd")
BOOTED = Path("/run/systemd/system")
WAIT_S = 60.0


def _why_not() -> str | None:
    if not SYSTEMD.exists() or shutil.which("systemctl") is None:
        return "systemd is not installed"
    if not BOOTED.exists() and os.geteuid() != 0:
        return f"{BOOTED} does not exist, and only root can make it"
    return None


class Manager:
    """A `systemd --user` of its own, with directories of its own."""

    def __init__(self, base: Path) -> None:
        self.runtime = base / "run"
        self.units = base / "config" / "systemd" / "user"
        self.socket = str(self.runtime / "hybridd" / "hybridd.sock")
        for name in ("run", "home", "config", "state", "cache", "data"):
            (base / name).mkdir(mode=0o700)
        inherited = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
        self.environment = {k: os.environ[k] for k in inherited if k in os.environ} | {
            "HOME": str(base / "home"),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "XDG_CONFIG_HOME": str(base / "config"),
            "XDG_STATE_HOME": str(base / "state"),
            "XDG_CACHE_HOME": str(base / "cache"),
            "XDG_DATA_HOME": str(base / "data"),
        }
        self.log = base / "log"

    def start(self) -> None:
        """Start it; wait until it says that it is ready. Skips the test where it cannot run."""
        ready = str(self.runtime / "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
            notified.bind(ready)
            notified.settimeout(1.0)
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [str(SYSTEMD), "--user", "--log-target=console"],
                    env={**self.environment, "NOTIFY_SOCKET": ready},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            for _ in range(int(WAIT_S)):
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notified.recv(4096):
                        return
                if self.process.poll() is not None:
                    break
        self.stop()
        pytest.skip(f"systemd --user does not run here: {self.log.read_text()[-300:]}")

    def stop(self) -> None:
        if self.process.poll() is None:
            # SIGRTMIN+24: exit, after stopping every unit (systemd(1), "SIGNALS").
            self.process.send_signal(signal.SIGRTMIN + 24)
        self.process.wait(WAIT_S)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )

    def hybridctl(self, *arguments: str) -> str:
        ran = self.run(sys.executable, "-m", "hybridctl", *arguments)
        assert ran.returncode == 0, (ran.stdout, ran.stderr, self.log.read_text()[-2000:])
        return ran.stdout

    def systemctl(self, *arguments: str) -> str:
        ran = self.run("systemctl", "--user", *arguments)
        assert ran.returncode == 0, (ran.stderr, self.log.read_text()[-2000:])
        return ran.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", "--property", name, unit)


@pytest.fixture
def manager() -> Iterator[Manager]:
    if (reason := _why_not()) is not None:
        pytest.skip(reason)
    # The directory is the machine's: one test at a time makes it and takes it away.
    with open(
        os.path.join(tempfile.gettempdir(), f"hybridd-systemd-{os.geteuid()}.lock"), "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _running()


def _running() -> Iterator[Manager]:
    made = [path for path in (BOOTED.parent, BOOTED) if not path.exists()]
    for path in made:
        path.mkdir()
    # Not tmp_path: its name is too long for the sockets in it.
    base = Path(tempfile.mkdtemp(prefix="hsd"))
    one = Manager(base)
    try:
        one.start()
        yield one
        one.stop()
    finally:
        shutil.rmtree(base)
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir()


def test_the_service_lives_under_systemd(manager: Manager) -> None:
    """Install, start by the first request, status text, reload, stop, start again, uninstall."""
    service, listener = "hybridd.service", "hybridd.socket"
    assert "first request" in manager.hybridctl("service", "install")
    assert manager.show(listener, "ActiveState") == "active"
    assert manager.show(service, "ActiveState") == "inactive"
    assert os.stat(manager.socket).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(manager.socket)).st_mode & 0o777 == 0o700

    with Client(manager.socket, timeout=WAIT_S) as client:
        pid = client.info().pid
    assert manager.show(service, "MainPID") == str(pid)
    assert manager.show(service, "ActiveState") == "active"
    assert manager.show(service, "StatusText") != ""
    assert manager.show(service, "WatchdogUSec") == "30s"
    assert str(pid) in manager.hybridctl("service", "status")

    manager.systemctl("reload", service)
    assert manager.show(service, "ActiveState") == "active"
    with Client(manager.socket, timeout=WAIT_S) as client:
        assert client.info().pid == pid

    manager.systemctl("stop", service)
    assert manager.show(service, "Result") == "success"
    assert not Path(f"/proc/{pid}").exists()
    assert os.path.exists(manager.socket)  # it is the socket unit's

    with Client(manager.socket, timeout=WAIT_S) as client:
        again = client.info().pid
    assert again != pid

    manager.systemctl("stop", listener, service)
    refused = manager.run(sys.executable, "-m", "hybridctl", "ps")
    assert refused.returncode == 3
    command = refused.stderr.rsplit("start it with: ")[-1].split()
    assert command == ["systemctl", "--user", "start", "hybridd"]
    assert manager.run(*command).returncode == 0
    assert manager.hybridctl("ps").startswith("NAME")
    again = int(manager.show(service, "MainPID"))

    manager.hybridctl("service", "uninstall")
    assert not Path(f"/proc/{again}").exists()
    assert not os.path.exists(manager.socket)
    assert not any((manager.units / name).exists() for name in UNIT_NAMES)


def test_the_first_request_of_the_web_api_starts_the_daemon(manager: Manager) -> None:
    """`service install --http`: both sockets are systemd's, and the daemon takes them over."""
    service = "hybridd.service"
    # The usual port may be taken on this machine.
    drop_in = manager.units / "hybridd-http.socket.d" / "port.conf"
    drop_in.parent.mkdir(parents=True)
    port = _free_port()
    web = str(manager.runtime / "hybridd" / "http.sock")
    drop_in.write_text(
        f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\nListenStream={web}\n"
    )
    manager.hybridctl("service", "install", "--http")
    assert os.stat(web).st_mode & 0o777 == 0o600
    assert manager.show(service, "ActiveState") == "inactive"

    assert _status_line(web) == "HTTP/1.1 200 OK"
    assert manager.show(service, "ActiveState") == "active"
    token = manager.hybridctl("http", "token").strip()
    assert _status_line(port) == "HTTP/1.1 401 Unauthorized"
    assert _status_line(port, f"Authorization: Bearer {token}\r\n") == "HTTP/1.1 200 OK"
    with Client(manager.socket, timeout=WAIT_S) as client:
        assert client.http_status().addresses == [f"http://127.0.0.1:{port}", f"unix:{web}"]
    off = manager.run(sys.executable, "-m", "hybridctl", "http", "off")
    assert off.returncode == 1
    assert "disable --now hybridd-http.socket" in off.stderr

    manager.systemctl("stop", service)
    assert manager.show(service, "Result") == "success"
    assert _status_line(web) == "HTTP/1.1 200 OK", "the sockets outlive the daemon"
    manager.hybridctl("service", "uninstall")
    assert not os.path.exists(web)
    drop_in.unlink()
    drop_in.parent.rmdir()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _status_line(where: str | int, headers: str = "") -> str:
    """Ask for the models over TCP (a port) or a Unix socket (a path)."""
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.settimeout(WAIT_S)
        asking.connect(where if isinstance(where, str) else ("127.0.0.1", where))
        host = "localhost" if isinstance(where, str) else f"127.0.0.1:{where}"
        asking.sendall(f"GET /api/v1/models HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        return asking.makefile("rb").readline().decode().strip()
