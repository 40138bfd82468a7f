"""The errors that a client raises: the wire's tree, and two that only a client can see."""

from __future__ import annotations

import os

from hybridd.wire import paths
from hybridd.wire.errors import (
    Busy,
    Cancelled,
    ContextExceeded,
    DoesNotFit,
    HybriddError,
    InternalError,
    InvalidParams,
    InvalidRequest,
    LineTooLong,
    LoadFailed,
    MethodNotFound,
    ModelAmbiguous,
    ModelInvalid,
    ModelNotFound,
    NotLoaded,
    ParseError,
    Quarantined,
    RequestTimeout,
    ShuttingDown,
    SlowConsumer,
    Unsupported,
    WorkerDied,
)

__all__ = [
    "Busy",
    "Cancelled",
    "ConnectionLost",
    "ContextExceeded",
    "DaemonNotRunning",
    "DoesNotFit",
    "HybriddError",
    "InternalError",
    "InvalidParams",
    "InvalidRequest",
    "LineTooLong",
    "LoadFailed",
    "MethodNotFound",
    "ModelAmbiguous",
    "ModelInvalid",
    "ModelNotFound",
    "NotLoaded",
    "ParseError",
    "Quarantined",
    "RequestTimeout",
    "ShuttingDown",
    "SlowConsumer",
    "Unsupported",
    "WorkerDied",
    "connect_error",
]

UNIT_NAMES = ("hybridd.socket", "hybridd.service")


class DaemonNotRunning(HybriddError):
    """Nobody listens on the socket. data: socket, command (the one that starts the daemon)."""

    kind = "daemon_not_running"


class ConnectionLost(HybriddError):
    """The connection ended, or could not be used, before the answer came. The next call of the
    client connects again."""

    kind = "connection_lost"


def connect_error(error: OSError, socket_path: str) -> HybriddError:
    """The typed error of a failed connect to `socket_path`."""
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        command = start_command(socket_path)
        return DaemonNotRunning(
            f"the daemon is not running (nobody listens on {socket_path}); "
            f"start it with: {command}",
            socket=socket_path,
            command=command,
        )
    reason = error.strerror or str(error)
    return ConnectionLost(f"cannot connect to {socket_path}: {reason}", socket=socket_path)


def start_command(socket_path: str) -> str:
    """The one command that starts a daemon on `socket_path`.

    systemd is named only where it can work: a unit of the user is installed, the user's manager
    runs, and the socket is the one that the unit serves.
    """
    env = os.environ
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if (
        socket_path == os.path.join(runtime, "hybridd", "hybridd.sock")
        and os.path.exists(os.path.join(runtime, "systemd"))
        and any(os.path.exists(os.path.join(paths.user_unit_dir(), u)) for u in UNIT_NAMES)
    ):
        return "systemctl --user start hybridd"
    try:
        usual = paths.socket_path() == socket_path
    except ValueError:
        usual = False
    if usual:
        return "hybridd"
    from shlex import quote

    return f"HYBRIDD_SOCKET={quote(socket_path)} hybridd"
