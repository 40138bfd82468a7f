"""Real sockets: who may come in, half-close and hang-up told apart, the order of the end."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.host.sockets import open_endpoint
from hybridd.rpc.dispatch import Dispatcher
from hybridd.rpc.listener import Listener
from tests.rpc.support import LIMITS, METHODS, World

# Generous: a busy machine is no failure.
PATIENCE_S = 30.0


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = b""

    async def call(self, method: str, id: Any = 1, **params: Any) -> None:
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
        await self.stream.send_all(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Any:
        while b"\n" not in self._buffer:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)


class Served:
    def __init__(self, path: str, world: World, listener: Listener) -> None:
        self.path = path
        self.world = world
        self.listener = listener

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        async with await trio.open_unix_socket(self.path) as stream:
            yield Client(stream)


@asynccontextmanager
async def serving(
    directory: Path, workers: Callable[[], Collection[int]] = lambda: ()
) -> AsyncIterator[Served]:
    world = World()
    endpoint = open_endpoint(str(directory / "run" / "d.sock"))
    listener = Listener(endpoint, world.daemon, Dispatcher(METHODS), LIMITS, workers)
    try:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(listener.serve, nursery)
                yield Served(endpoint.path, world, listener)
                listener.stop_accepting()
                await listener.drain()
    finally:
        endpoint.close()
    assert os.listdir(directory / "run") == []
    assert world.waiting == set()


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_a_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert stat.S_IMODE(os.stat(served.path).st_mode) == 0o600
        async with served.client() as client, served.client() as other:
            await client.call("echo", value="x" * 500_000)
            await other.call("echo", value=2)
            assert (await other.receive())["result"] == {"value": 2}
            assert (await client.receive())["result"] == {"value": "x" * 500_000}


async def test_a_worker_is_no_client(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, lambda: {os.getpid()}) as served,
        served.client() as client,
    ):
        assert await client.receive() is None


async def test_half_close_and_hang_up_are_told_apart(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client:
        await client.call("wait", name="half")
        await client.stream.send_eof()
        async with served.client() as other:
            await other.call("wait", name="gone")
            await until(lambda: served.world.waiting == {"half", "gone"})
        await until(lambda: served.world.cancelled == ["gone"])
        await trio.testing.wait_all_tasks_blocked()
        assert served.world.waiting == {"half"}
        served.world.gate("half").set()
        assert (await client.receive())["result"] == {"name": "half"}
        assert await client.receive() is None


async def test_a_hang_up_after_a_half_close_is_noticed(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with served.client() as client:
            await client.call("wait", name="a")
            await client.stream.send_eof()
            await until(lambda: served.world.waiting == {"a"})
            await trio.testing.wait_all_tasks_blocked()
        await until(lambda: served.world.cancelled == ["a"])


async def test_a_client_that_is_reset_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as served:
        async with served.client() as client:
            await client.call("stream", deltas=["x" * 1000] * 2000, stream=True)
            await client.stream.receive_some(10)
        async with served.client() as client:
            await client.call("echo")
            assert (await client.receive())["id"] == 1
    assert "failed" not in caplog.text


async def test_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.client() as client, served.client() as idle:
        await client.call("wait", name="a")
        await until(lambda: served.world.waiting == {"a"})
        served.listener.stop_accepting()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.listener.drain)
            assert await idle.receive() is None
            served.world.gate("a").set()
            assert (await client.receive())["result"] == {"name": "a"}
            assert await client.receive() is None


async def test_a_hundred_clients_that_come_and_go(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:

        async def one(number: int) -> None:
            async with served.client() as client:
                await client.call("wait" if number % 2 else "echo", id=number,
                                  **({"name": f"{number}"} if number % 2 else {}))  # fmt: skip
                if number % 2 == 0:
                    assert (await client.receive())["id"] == number

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        await until(lambda: not served.listener._connections)


async def test_bytes_that_are_no_protocol(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(served.path)
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.shutdown(socket.SHUT_WR)
            raw.setblocking(False)
            data = b""
            await trio.lowlevel.wait_readable(raw)
            while chunk := raw.recv(65536):
                data += chunk
                await trio.lowlevel.wait_readable(raw)
        answers = [json.loads(line) for line in data.splitlines()]
        assert [a["error"]["code"] for a in answers] == [-32700, -32700]
