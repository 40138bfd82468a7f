"""Where the gateway listens: its Unix socket, and TCP where the settings ask for it.

Opens and closes sockets as the settings change, and tells `daemon/web_access` which addresses there
are, or why there are none: a port that is taken is no reason for the daemon not to run.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from hybridd.core.web_names import Address
from hybridd.host import sockets
from hybridd.http import addresses
from hybridd.http.faces.known import FACES
from hybridd.http.gateway import Gateway
from hybridd.http.guard import Policy
from hybridd.http.server.limits import Limits
from hybridd.http.server.listener import Listener
from hybridd.parts import Daemon
from hybridd.wire import paths
from hybridd.wire.errors import Unsupported

log = logging.getLogger(__name__)

# Clients that wait to be accepted.
_BACKLOG = 1024
# What decides whether and where is listened; hosts and origins are asked for with each request.
_ABOUT_TCP = frozenset({"http.listen", "http.token"})


@dataclass(frozen=True, slots=True)
class _Open:
    """One socket that is listened on."""

    listener: Listener
    url: str
    close: Callable[[], None]


class Web:
    """See the module's text; owned by `app`.

    Args:
        rpc_socket: Path of the daemon's own socket, beside which the gateway's lies.
        activated: Sockets that systemd opened for the gateway.
        workers: Pids of our own workers, which are no clients.
    """

    def __init__(
        self,
        daemon: Daemon,
        environment: Mapping[str, str],
        rpc_socket: str,
        activated: Sequence[socket.socket],
        workers: Callable[[], Collection[int]],
    ) -> None:
        self._daemon = daemon
        self._configuration = daemon.configuration
        self._environment = environment
        self._rpc_socket = rpc_socket
        self._activated = list(activated)
        self._workers = workers
        self._unix: list[_Open] = []
        self._tcp: list[_Open] = []
        self._problems: list[str] = []
        self._changed = trio.Event()
        self._connections: trio.Nursery | None = None

    # ---------------------------------------------------------------- life

    async def run(
        self,
        connections: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen, and follow the settings, until cancelled; connections live in `connections`."""
        self._connections = connections
        try:
            async with trio.open_nursery() as nursery:
                await self._open_unix(nursery)
                await self._open_tcp(nursery)
                task_status.started()
                while True:
                    await self._changed.wait()
                    self._changed = trio.Event()
                    await self._close(self._tcp)
                    await self._open_tcp(nursery)
        finally:
            for each in (*self._unix, *self._tcp):
                each.close()

    def reconfigure(self, changed: Collection[str]) -> None:
        """Settings have changed; returns at once."""
        if _ABOUT_TCP & set(changed):
            self._daemon.web.changing = True
            self._changed.set()

    def stop_accepting(self) -> None:
        """Take no new clients."""
        for each in (*self._unix, *self._tcp):
            each.listener.stop_accepting()

    async def drain(self) -> None:
        """Let every connection send what it owes, for a few seconds at most."""
        async with trio.open_nursery() as nursery:
            for each in (*self._unix, *self._tcp):
                nursery.start_soon(each.listener.drain)

    # ---------------------------------------------------------------- sockets

    async def _open_unix(self, nursery: trio.Nursery) -> None:
        given = [s for s in self._activated if s.family == socket.AF_UNIX]
        try:
            if given:
                endpoint = None
                listening, path = given[0], str(given[0].getsockname())
            elif self._configuration["http.socket"] == "none":
                return
            else:
                path = self._unix_path()
                endpoint = sockets.open_endpoint(path)
                listening = endpoint.socket
        except (OSError, ValueError, sockets.AlreadyRunning) as exc:
            self._complain(f"the gateway's Unix socket cannot be opened: {exc}")
            return
        close = endpoint.close if endpoint else listening.close
        admit = partial(sockets.may_connect, workers=self._workers)
        await self._serve(nursery, self._unix, listening, f"unix:{path}", close, self._local, admit)

    def _unix_path(self) -> str:
        """The setting's path, else the usual one.

        Raises:
            ValueError: No Unix socket can have it.
        """
        if chosen := self._configuration["http.socket"]:
            return paths.check_socket_path(os.path.abspath(os.path.expanduser(chosen)))
        return paths.http_socket_path(self._environment, self._rpc_socket)

    async def _open_tcp(self, nursery: trio.Nursery) -> None:
        self._problems = [problem for problem in self._problems if "Unix" in problem]
        given = [s for s in self._activated if s.family != socket.AF_UNIX]
        for listening in given:
            await self._serve_tcp(nursery, listening.dup(), str(listening.getsockname()[0]))
        address = addresses.parse_listen(self._configuration["http.listen"])
        if address is not None and not given:
            await self._bind(nursery, address)
        self._tell()

    async def _bind(self, nursery: trio.Nursery, address: Address) -> None:
        refusal = addresses.exposure(address, self._configuration["http.token"])
        try:
            if self._configuration["http.token"] == "auto":
                self._daemon.web.token()  # made now, so that a person finds it
        except Unsupported as exc:
            refusal = exc.message
        if refusal:
            self._complain(refusal)
            return
        for number, binding in enumerate(addresses.bindings(address)):
            try:
                listening = _bound(binding)
            except OSError as exc:
                if number == 0:
                    self._complain(_why_not(address, exc))
                    return
                log.debug("no listener on %s: %s", binding, exc)
                continue
            await self._serve_tcp(nursery, listening, address.host)

    async def _serve_tcp(self, nursery: trio.Nursery, listening: socket.socket, host: str) -> None:
        # The port is the kernel's where the settings say 0.
        real = Address(host, listening.getsockname()[1])
        policy = partial(self._remote, real)
        await self._serve(
            nursery, self._tcp, listening, addresses.url(real), listening.close, policy
        )

    async def _serve(
        self,
        nursery: trio.Nursery,
        opened: list[_Open],
        listening: socket.socket,
        url: str,
        close: Callable[[], None],
        policy: Callable[[], Policy],
        admit: Callable[[trio.socket.SocketType], bool] = lambda connected: True,
    ) -> None:
        gateway = Gateway(self._daemon, FACES, policy, self._limits().slow_bytes)
        listener = Listener(
            listening, gateway.handle, gateway.refuse, self._limits, self._most, admit
        )
        assert self._connections is not None
        opened.append(_Open(listener, url, close))
        await nursery.start(listener.serve, self._connections)
        log.info("HTTP on %s", url)
        self._tell()

    async def _close(self, opened: list[_Open]) -> None:
        """Close listeners; what their connections are at goes on to its end."""
        for each in opened:
            each.listener.stop_accepting()
            for connection in each.listener.connections:
                connection.close()
            each.close()
        opened.clear()
        await trio.lowlevel.checkpoint()

    # ---------------------------------------------------------------- what holds for them

    def _local(self) -> Policy:
        """Who may ask on the Unix socket: the kernel has looked at the user already."""
        hosts = addresses.unix_hosts(self._configuration["http.allow_hosts"])
        return Policy(hosts, frozenset(self._configuration["http.allow_origins"]), None)

    def _remote(self, address: Address) -> Policy:
        """Who may ask on a TCP port."""
        return Policy(
            addresses.hosts(address, self._configuration["http.allow_hosts"]),
            frozenset(self._configuration["http.allow_origins"]),
            self._daemon.web.token() if self._configuration["http.token"] == "auto" else None,
        )

    def _limits(self) -> Limits:
        return Limits(body_bytes=self._configuration["http.max_body_bytes"])

    def _most(self) -> int:
        most: int = self._configuration["http.max_connections"]
        return most

    def _complain(self, problem: str) -> None:
        log.error("%s", problem)
        self._problems.append(problem)

    def _tell(self) -> None:
        self._daemon.web.addresses = [each.url for each in (*self._tcp, *self._unix)]
        self._daemon.web.problem = "; ".join(self._problems) or None
        # Another change may have come meanwhile.
        self._daemon.web.changing = self._changed.is_set()


def _bound(binding: addresses.Binding) -> socket.socket:
    """A listening TCP socket that no child inherits.

    Raises:
        OSError: It cannot be.
    """
    made = socket.socket(binding.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # A daemon that comes back takes its port while old connections still end.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if binding.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((binding.host, binding.port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _why_not(address: Address, exc: OSError) -> str:
    reason = exc.strerror or str(exc)
    hint = ""
    if exc.errno == errno.EADDRINUSE:
        hint = "; another program has that port: take another one (hybridctl http on HOST:PORT)"
    return f"the gateway cannot listen on {address}: {reason}{hint}"
