"""The systemd units: the repository's files, systemd's own opinion, `hybridctl service`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hybridctl.cli import main, units
from hybridctl.cli.commands import service

ROOT = Path(__file__).parents[2]

# Writes down what it is asked, and answers as systemctl would.
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> "$SYSTEMCTL_LOG"
case "$*" in
*show\\ hybridd.service*) printf 'ActiveState=%s\\nSubState=listening\\nMainPID=0\\n' \\
    "${ACTIVE_SERVICE:-${ACTIVE:-inactive}}" ;;
*show*) printf 'ActiveState=%s\\nSubState=listening\\nMainPID=0\\n' "${ACTIVE:-inactive}" ;;
esac
if [ -n "$SYSTEMCTL_FAILS" ]; then echo "$SYSTEMCTL_FAILS" >&2; exit 1; fi
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that only takes notes; returns its log."""
    stub = tmp_path / "bin" / "systemctl"
    stub.parent.mkdir()
    stub.write_text(SYSTEMCTL)
    stub.chmod(0o755)
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SYSTEMCTL_LOG", str(log))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HYBRIDD_SOCKET", str(tmp_path / "none.sock"))
    return log


def asked(log: Path) -> list[str]:
    return [line.removeprefix("--user --no-pager ") for line in log.read_text().splitlines()]


def test_the_repositorys_files_are_what_install_writes() -> None:
    assert (ROOT / "systemd" / units.SERVICE).read_text() == units.service_unit()
    assert (ROOT / "systemd" / units.SOCKET).read_text() == units.socket_unit()
    assert (ROOT / "systemd" / units.HTTP_SOCKET).read_text() == units.http_socket_unit()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    home, runtime = tmp_path / "home", tmp_path / "run"
    runtime.mkdir(mode=0o700)
    script = home / ".local" / "bin" / "hybridd"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify"]
        + [
            str(ROOT / "systemd" / name)
            for name in (units.SERVICE, units.SOCKET, units.HTTP_SOCKET)
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)},
        check=False,
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["/opt/x/bin/hybridd"], "/opt/x/bin/hybridd"),
        (["/a b/python", "-m", "hybridd"], '"/a b/python" -m hybridd'),
        (['/100%/$x/"q"\\'], r'"/100%%/$$x/\"q\"\\"'),
    ],
)
def test_paths_are_quoted_as_systemd_reads_them(arguments: list[str], line: str) -> None:
    assert units.command_line(arguments) == line


def test_install_writes_enables_and_starts(
    systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install"]) == 0
    directory = tmp_path / "config" / "systemd" / "user"
    assert sorted(path.name for path in directory.iterdir()) == [units.SERVICE, units.SOCKET]
    text = (directory / units.SERVICE).read_text()
    assert f"ExecStart={service.exec_start()}" in text
    assert os.path.isabs(service.exec_start().split()[0].strip('"'))
    steps = [line for line in asked(systemctl) if not line.startswith("show")]
    assert steps == [
        "daemon-reload",
        "enable hybridd.socket hybridd.service",
        "start hybridd.socket",
    ]
    assert "first request" in capsys.readouterr().out
    assert main(["service", "install", "--now", "--json"]) == 0
    assert asked(systemctl)[-1] == "start hybridd.service"


def test_install_with_the_web_apis_socket(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main(["service", "install", "--http"]) == 0
    directory = tmp_path / "config" / "systemd" / "user"
    assert (directory / units.HTTP_SOCKET).read_text() == units.http_socket_unit()
    steps = [line for line in asked(systemctl) if not line.startswith("show")]
    assert steps == [
        "daemon-reload",
        "enable hybridd.socket hybridd.service hybridd-http.socket",
        "start hybridd-http.socket",
        "start hybridd.socket",
    ]
    capsys.readouterr()
    assert main(["service", "status"]) == 0
    assert units.HTTP_SOCKET in capsys.readouterr().out
    assert main(["service", "uninstall"]) == 0
    assert list(directory.iterdir()) == []
    assert "disable --now hybridd-http.socket hybridd.socket hybridd.service" in asked(systemctl)


def test_the_web_apis_socket_waits_for_the_services_next_start(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("ACTIVE_SERVICE", "active")
    assert main(["service", "install", "--http"]) == 1
    assert "start hybridd-http.socket" not in asked(systemctl)
    assert "hybridctl http on" in capsys.readouterr().err
    monkeypatch.setenv("ACTIVE", "active")  # both run already
    assert main(["service", "install", "--http"]) == 0
    assert "start hybridd-http.socket" in asked(systemctl)


@pytest.mark.parametrize("option", ["--now", "--http"])
def test_options_of_install_belong_to_install(systemctl: Path, option: str, capsys: Any) -> None:
    assert main(["service", "status", option]) == 2
    assert f"{option} belongs to install" in capsys.readouterr().err
    assert asked(systemctl) == []


def test_install_without_a_user_manager_says_what_to_do(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("SYSTEMCTL_FAILS", "Failed to connect to bus: No medium found")
    assert main(["service", "install"]) == 1
    out, err = capsys.readouterr()
    assert out.count("wrote ") == 2
    assert (tmp_path / "config" / "systemd" / "user" / units.SOCKET).exists()
    assert "Failed to connect to bus" in err
    assert "no `systemd --user` runs" in err
    assert "enable --now hybridd.socket" in err


def test_install_without_systemd(
    systemctl: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["service", "install"]) == 1
    assert "no systemctl; start the daemon with: hybridd" in capsys.readouterr().err


def test_install_does_not_take_the_socket_from_a_running_daemon(
    systemctl: Path, daemon: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("HYBRIDD_SOCKET", daemon.path)
    assert main(["service", "install"]) == 1
    assert not any(line.startswith("start") for line in asked(systemctl))
    assert "pid 4710" in capsys.readouterr().err
    monkeypatch.setenv("ACTIVE", "active")  # it is systemd's own
    assert main(["service", "install"]) == 0


def test_uninstall_leaves_nothing(systemctl: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["service", "uninstall"]) == 0
    assert "nothing was installed" in capsys.readouterr().out
    assert asked(systemctl) == []
    main(["service", "install"])
    assert main(["service", "uninstall"]) == 0
    assert list((tmp_path / "config" / "systemd" / "user").iterdir()) == []
    assert asked(systemctl)[-2:] == [
        "disable --now hybridd.socket hybridd.service",
        "daemon-reload",
    ]


def test_uninstall_without_a_user_manager_still_removes_the_files(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["service", "install"])
    monkeypatch.setenv("SYSTEMCTL_FAILS", "Failed to connect to bus")
    assert main(["service", "uninstall"]) == 1
    assert list((tmp_path / "config" / "systemd" / "user").iterdir()) == []


def test_status(systemctl: Path, capsys: Any) -> None:
    assert main(["service"]) == 0
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines()[1:]] == [
        [name, "not", "installed", "inactive", "(listening)", "-"]
        for name in (units.SOCKET, units.SERVICE)
    ]
