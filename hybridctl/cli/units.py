"""The texts of the systemd user units. `systemd/` in the repository holds the same, for packagers.

What is not in them, and why: `Type=notify-reload` is unknown to systemd 252; `RuntimeDirectory=`
would remove the directory of the socket, which the socket unit owns, at each stop; namespaces and
`MemoryDenyWriteExecute=` do not suit a user's unit with a JIT and a GPU.
"""

from __future__ import annotations

from hybridd.wire.protocol import HTTP_PORT

SERVICE = "hybridd.service"
SOCKET = "hybridd.socket"
HTTP_SOCKET = "hybridd-http.socket"

# EX_TEMPFAIL: another daemon serves the socket; starting again would only say so again.
_ALREADY_RUNNING = 75
_BAD_CONFIGURATION = 78

_SERVICE_TEXT = f"""\
[Unit]
Description=Local model daemon
Requires={SOCKET}
After={SOCKET}

[Service]
Type=notify
NotifyAccess=main
ExecStart=@EXEC_START@
ExecReload=kill -HUP $MAINPID
WatchdogSec=30
Restart=on-failure
RestartSec=1
RestartPreventExitStatus={_ALREADY_RUNNING} {_BAD_CONFIGURATION}
# One worker that the kernel kills for memory is no reason to end the others.
OOMPolicy=continue
# The daemon ends its workers in order; what is left after the time-out is killed.
KillMode=mixed
TimeoutStopSec=20

[Install]
WantedBy=default.target
Also={SOCKET}
"""

_SOCKET_TEXT = """\
[Unit]
Description=Socket of the local model daemon

[Socket]
ListenStream=%t/hybridd/hybridd.sock
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

# By FileDescriptorName= the daemon knows them from its own socket (host/sockets).
_HTTP_SOCKET_TEXT = f"""\
[Unit]
Description=HTTP sockets of the local model daemon

[Socket]
ListenStream=127.0.0.1:{HTTP_PORT}
ListenStream=%t/hybridd/http.sock
FileDescriptorName=http
Service={SERVICE}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""

# What a packaged unit runs: pipx and `pip install --user` put it there.
PACKAGED_EXEC_START = "%h/.local/bin/hybridd"


def service_unit(exec_start: str = PACKAGED_EXEC_START) -> str:
    """The text of `hybridd.service`; `exec_start` as `command_line` makes it."""
    return _SERVICE_TEXT.replace("@EXEC_START@", exec_start)


def socket_unit() -> str:
    """The text of `hybridd.socket`."""
    return _SOCKET_TEXT


def http_socket_unit() -> str:
    """The text of `hybridd-http.socket`."""
    return _HTTP_SOCKET_TEXT


def command_line(arguments: list[str]) -> str:
    """`arguments` as an `ExecStart=` says them (systemd.service(5), "Command lines")."""
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("%", "%%").replace("$", "$$")
    plain = escaped == argument and argument and not any(c in " \t\n';" for c in argument)
    return argument if plain else f'"{escaped}"'
