"""Where things lie, from the environment alone: no directory is looked at or made here."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# sun_path has 108 bytes with its terminating NUL (unix(7)).
MAX_SOCKET_PATH_BYTES = 107


def _xdg(env: Mapping[str, str], name: str, *default: str) -> str:
    value = env.get(name, "")
    # The XDG base directory specification: a relative path is to be ignored.
    if os.path.isabs(value):
        return value
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), *default)


def socket_path(env: Mapping[str, str] = os.environ) -> str:
    """The daemon's socket: HYBRIDD_SOCKET, else the runtime directory, else the state directory.

    Raises:
        ValueError: The path is over the 107 bytes that a Unix socket may have.
    """
    path = env.get("HYBRIDD_SOCKET", "")
    if not path:
        runtime = env.get("XDG_RUNTIME_DIR", "")
        base = os.path.join(runtime, "hybridd") if os.path.isabs(runtime) else state_dir(env)
        path = os.path.join(base, "hybridd.sock")
    return check_socket_path(os.path.abspath(path))


def http_socket_path(env: Mapping[str, str] = os.environ, socket: str | None = None) -> str:
    """The HTTP gateway's socket, beside the daemon's: http.sock beside hybridd.sock.

    A daemon whose socket has another name has one named after it, for two daemons may have their
    sockets in one directory.

    Args:
        env: The environment.
        socket: The daemon's socket; as `socket_path` has it by default.

    Raises:
        ValueError: The path is over the 107 bytes that a Unix socket may have.
    """
    directory, name = os.path.split(socket or socket_path(env))
    stem = name.removesuffix(".sock")
    own = "http.sock" if stem == "hybridd" else f"{stem}-http.sock"
    return check_socket_path(os.path.join(directory, own), variable="HYBRIDD_HTTP_SOCKET")


def check_socket_path(path: str, *, variable: str = "HYBRIDD_SOCKET") -> str:
    """Return `path` if a Unix socket can have it; `variable` is what sets it.

    Raises:
        ValueError: The path is over the 107 bytes that a Unix socket may have.
    """
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"the socket path has {size} bytes, a Unix socket takes at most "
            f"{MAX_SOCKET_PATH_BYTES}; set {variable} to a shorter one: {path}"
        )
    return path


def config_file(env: Mapping[str, str] = os.environ) -> str:
    """`hybridd.toml` of the user."""
    return os.path.join(_xdg(env, "XDG_CONFIG_HOME", ".config"), "hybridd", "hybridd.toml")


def state_dir(env: Mapping[str, str] = os.environ) -> str:
    """What lasts across restarts: values set at run time, logs of workers."""
    return os.path.join(_xdg(env, "XDG_STATE_HOME", ".local", "state"), "hybridd")


def cache_dir(env: Mapping[str, str] = os.environ) -> str:
    """What can be made again: inspection results."""
    return os.path.join(_xdg(env, "XDG_CACHE_HOME", ".cache"), "hybridd")


def models_dir(env: Mapping[str, str] = os.environ) -> str:
    """The default of `catalog.model_dirs`."""
    return os.path.join(_xdg(env, "XDG_DATA_HOME", ".local", "share"), "hybridd", "models")


def user_unit_dir(env: Mapping[str, str] = os.environ) -> str:
    """Where `systemctl --user` looks for a user's own units."""
    return os.path.join(_xdg(env, "XDG_CONFIG_HOME", ".config"), "systemd", "user")
