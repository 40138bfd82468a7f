"""Accepts HTTP clients on one listening socket, and owns their connections.

Past the limit of connections the one that has been idle for longest makes room; where all are at
work, the new client is told to come back.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Collection

import trio

from hybridd.host.byte_stream import SocketByteStream
from hybridd.http.problems import Problem
from hybridd.http.server.connection import Connection, Handler, Refuse
from hybridd.http.server.limits import Limits

log = logging.getLogger(__name__)

# What connections get to send what they owe when the listener ends.
DRAIN_S = 3.0
_FULL = Problem(
    503,
    "too_many_connections",
    "hybridd has as many HTTP connections as it may have (http.max_connections); try again soon",
    headers=(("retry-after", "1"),),
)


class Listener:
    """See the module's text.

    Args:
        listening: Bound and listening; its owner closes it.
        admit: Whether a connected client may be served at all.
        limits: Of each connection, asked anew for each, as is:
        most: Connections at a time.
    """

    def __init__(
        self,
        listening: socket.socket,
        handler: Handler,
        refuse: Refuse,
        limits: Callable[[], Limits],
        most: Callable[[], int],
        admit: Callable[[trio.socket.SocketType], bool] = lambda connected: True,
    ) -> None:
        self._socket = listening
        self._handler = handler
        self._refuse = refuse
        self._limits = limits
        self._most = most
        self._admit = admit
        self._connections: set[Connection] = set()
        self._accepting = trio.CancelScope()
        self._empty = trio.Event()

    async def serve(
        self,
        nursery: trio.Nursery,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept until `stop_accepting`; connections live in `nursery`."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._socket))
        with self._accepting:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener], handler_nursery=nursery)

    def stop_accepting(self) -> None:
        """Take no new clients."""
        self._accepting.cancel()

    async def drain(self) -> None:
        """Let every connection send what it owes, for a few seconds at most."""
        for connection in list(self._connections):
            connection.close()
        with trio.move_on_after(DRAIN_S):
            while self._connections:
                self._empty = trio.Event()
                await self._empty.wait()

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return list(self._connections)

    async def _serve(self, stream: trio.SocketStream) -> None:
        over_tcp = stream.socket.family != socket.AF_UNIX
        client = SocketByteStream(stream.socket, half_close_is_leaving=over_tcp)
        if not self._admit(stream.socket):
            await client.aclose()
            return
        connection = Connection(client, self._handler, self._refuse, self._limits())
        if len(self._connections) >= self._most() and not self._make_room():
            await connection.turn_away(_FULL)
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()

    def _make_room(self) -> bool:
        idle = [(c.idle_since, c) for c in self._connections if c.idle_since is not None]
        if not idle:
            return False
        min(idle, key=lambda pair: pair[0])[1].close()
        return True
