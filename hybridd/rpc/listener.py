"""Accepts clients on the Unix socket, lets in those who may, and owns their connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

import trio

from hybridd.host.byte_stream import SocketByteStream
from hybridd.host.sockets import Endpoint, may_connect
from hybridd.parts import Daemon
from hybridd.rpc.connection import Connection
from hybridd.rpc.dispatch import Dispatcher
from hybridd.rpc.encoded import EncodedModels
from hybridd.rpc.limits import Limits

log = logging.getLogger(__name__)

# What other connections get to finish when the daemon ends.
DRAIN_S = 3.0


class Listener:
    """See the module's text.

    Args:
        workers: Pids of our own workers, which are no clients: a model's code must not drive the
            daemon that runs it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        daemon: Daemon,
        dispatcher: Dispatcher,
        limits: Limits,
        workers: Callable[[], Collection[int]],
    ) -> None:
        self._endpoint = endpoint
        self._daemon = daemon
        self._dispatcher = dispatcher
        self._limits = limits
        self._workers = workers
        self._encoded = EncodedModels()
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
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._endpoint.socket))
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

    async def _serve(self, stream: trio.SocketStream) -> None:
        wire = SocketByteStream(stream.socket)
        if not may_connect(stream.socket, self._workers):
            await wire.aclose()
            return
        connection = Connection(wire, self._daemon, self._dispatcher, self._limits, self._encoded)
        self._connections.add(connection)
        try:
            await connection.run()
        except Exception:
            # A bug in one connection ends that connection, never the daemon.
            log.exception("a connection failed")
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._empty.set()
