"""`service`: the daemon as a systemd service of the user."""

from __future__ import annotations

import os
import subprocess
import sys

from hybridctl.sdk.errors import UNIT_NAMES
from hybridd.wire import paths

from .. import exit_codes, units
from ..parser import UsageError, unknown
from ..render import print_json, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from ..parser import Parser

_ACTIONS = ("install", "uninstall", "status")
# systemctl waits for a unit's start, and that has 90 s; beyond, the manager itself hangs.
_SYSTEMCTL_SECONDS = 120
_SHOWN = ("LoadState", "UnitFileState", "ActiveState", "SubState", "MainPID", "StatusText")


class _SystemdError(Exception):
    """systemctl failed; the message is its reason."""


def configure_service(parser: Parser) -> None:
    """Arguments of `service`."""
    parser.add_argument(
        "action", nargs="?", default="status", help="install, uninstall or status (default)"
    )
    parser.add_argument(
        "--http",
        action="store_true",
        help="with install: the web API's socket too, whose first request starts the daemon",
    )
    parser.add_argument(
        "--now", action="store_true", help="with install: start the daemon, not only its socket"
    )


def service(args: Namespace) -> int:
    """Do what the action says."""
    if args.action not in _ACTIONS:
        raise UsageError(unknown("action", args.action, _ACTIONS))
    for option in ("now", "http"):
        if getattr(args, option) and args.action != "install":
            raise UsageError(f"--{option} belongs to install")
    try:
        return {"install": _install, "uninstall": _uninstall, "status": _status}[args.action](args)
    except _SystemdError as exc:
        return _report(args, [], str(exc))


def exec_start() -> str:
    """How the unit starts this installation's daemon.

    By its absolute path, beside the interpreter: a service has no `PATH` of the user's shell.
    """
    script = os.path.join(os.path.dirname(sys.executable), "hybridd")
    if os.access(script, os.X_OK):
        return units.command_line([script])
    return units.command_line([sys.executable, "-m", "hybridd"])


def _install(args: Namespace) -> int:
    names = [*UNIT_NAMES, *([units.HTTP_SOCKET] if args.http else ())]
    written = _write_units(names)
    done = [f"wrote {path}" for path in written]
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", *names)
        done.append(f"enabled {' and '.join(names)}")
        if (foreign := _foreign_daemon()) is not None:
            raise _SystemdError(foreign)
        if args.http:
            _start_http()
            done.append(f"started {units.HTTP_SOCKET}")
        # Also when it runs: a changed unit takes effect now.
        started = units.SERVICE if args.now else units.SOCKET
        _systemctl("start", started)
        done.append(f"started {started}")
    except _SystemdError as exc:
        return _report(
            args,
            done,
            f"{exc}\nwhen that is mended: systemctl --user daemon-reload && "
            f"systemctl --user enable --now {units.SOCKET}",
        )
    if not args.now:
        done.append("the daemon starts with the first request")
    return _report(args, done, None)


def _start_http() -> None:
    """Start the web API's socket, which systemd does only while its service does not run."""
    active = {name: _show(name).get("ActiveState") for name in (units.SERVICE, units.HTTP_SOCKET)}
    if active[units.SERVICE] == "active" and active[units.HTTP_SOCKET] != "active":
        raise _SystemdError(
            f"{units.SERVICE} runs, and takes a new socket only at its start: "
            f"systemctl --user stop {units.SERVICE}, and install again. "
            "Or let it listen by itself: hybridctl http on"
        )
    _systemctl("start", units.HTTP_SOCKET)


def _write_units(names: list[str]) -> list[str]:
    directory = paths.user_unit_dir()
    os.makedirs(directory, exist_ok=True)
    texts = {
        units.SERVICE: units.service_unit(exec_start()),
        units.SOCKET: units.socket_unit(),
        units.HTTP_SOCKET: units.http_socket_unit(),
    }
    written = []
    for name, text in texts.items():
        if name not in names:
            continue
        path = os.path.join(directory, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        # Whole or not at all: systemd may read it at any time.
        os.replace(path + ".new", path)
        written.append(path)
    return written


def _foreign_daemon() -> str | None:
    """Why the socket must not be started: systemd would take the name from a running daemon."""
    if _show(units.SOCKET).get("ActiveState") == "active":
        return None
    from hybridctl.sdk.blocking import Client
    from hybridd.wire.errors import HybriddError

    try:
        with Client(timeout=5.0) as client:
            pid = client.info().pid
    except (HybriddError, ValueError):
        return None
    return f"a daemon that systemd did not start already runs (pid {pid}); end it: hybridctl stop"


def _uninstall(args: Namespace) -> int:
    done: list[str] = []
    trouble = None
    directory = paths.user_unit_dir()
    names = (units.HTTP_SOCKET, *UNIT_NAMES)
    installed = [n for n in names if os.path.exists(os.path.join(directory, n))]
    if not installed:
        return _report(args, ["nothing was installed"], None)
    try:
        # The sockets first, or they would start the service again.
        _systemctl("disable", "--now", *installed)
        done.append(f"stopped and disabled {' and '.join(installed)}")
    except _SystemdError as exc:
        trouble = str(exc)
    for name in installed:
        os.unlink(os.path.join(directory, name))
        done.append(f"removed {os.path.join(directory, name)}")
    if trouble is None:
        _systemctl("daemon-reload")
    return _report(args, done, trouble)


def _status(args: Namespace) -> int:
    shown = {name: _show(name) for name in UNIT_NAMES}
    if os.path.exists(os.path.join(paths.user_unit_dir(), units.HTTP_SOCKET)):
        shown[units.HTTP_SOCKET] = _show(units.HTTP_SOCKET)
    if args.json:
        print_json(shown)
        return exit_codes.OK
    rows = [
        (
            name,
            state.get("UnitFileState") or "not installed",
            f"{state.get('ActiveState')} ({state.get('SubState')})",
            "-" if state.get("MainPID", "0") == "0" else state["MainPID"],
            state.get("StatusText", ""),
        )
        for name, state in shown.items()
    ]
    print(table(("UNIT", "INSTALLED", "ACTIVE", "PID", "STATUS"), rows))
    return exit_codes.OK


def _show(unit: str) -> dict[str, str]:
    text = _systemctl("show", unit, "--property", ",".join(_SHOWN))
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs if name in _SHOWN}


def _report(args: Namespace, done: list[str], trouble: str | None) -> int:
    if args.json:
        print_json({"done": done, "error": trouble})
    else:
        for line in done:
            print(line)
        sys.stdout.flush()
        if trouble is not None:
            print(f"hybridctl: {trouble}", file=sys.stderr)
    return exit_codes.OK if trouble is None else exit_codes.ERROR


def _systemctl(*arguments: str) -> str:
    try:
        ended = subprocess.run(
            ["systemctl", "--user", "--no-pager", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SYSTEMCTL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise _SystemdError(
            "this system has no systemctl; start the daemon with: hybridd"
        ) from None
    except subprocess.TimeoutExpired:
        raise _SystemdError(f"systemctl --user {arguments[0]} does not end") from None
    if ended.returncode:
        reason = ended.stderr.strip() or f"exit code {ended.returncode}"
        if "bus" in reason.lower():
            reason += "\nno `systemd --user` runs in this session; start the daemon with: hybridd"
        raise _SystemdError(f"systemctl --user {arguments[0]} failed: {reason}")
    return ended.stdout


COMMANDS = {"service": (configure_service, service)}
