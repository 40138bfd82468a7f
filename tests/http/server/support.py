"""One HTTP connection over memory, and handlers that answer in the ways that faces do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio

from hybridd.http.problems import Problem
from hybridd.http.server.connection import Connection, Handler
from hybridd.http.server.exchange import Exchange, Headers
from hybridd.http.server.limits import Limits
from tests.memory_stream import MemoryStream

LIMITS = Limits(body_bytes=64 * 1024, head_bytes=8 * 1024)


def refuse(problem: Problem) -> tuple[Headers, bytes]:
    body = json.dumps({"error": {"kind": problem.kind, "message": problem.message}})
    return [("content-type", "application/json"), *problem.headers], body.encode()


async def echo(exchange: Exchange) -> None:
    """Answers with what was asked."""
    try:
        body = await exchange.read()
    except Problem as problem:
        headers, told = refuse(problem)
        await exchange.reply(problem.status, headers, told)
        return
    told = {"method": exchange.request.method, "target": exchange.request.target}
    await exchange.reply(200, [], json.dumps({**told, "body": body.decode("latin-1")}).encode())


class Client:
    """The other end: raw bytes out, parsed answers in."""

    def __init__(self, stream: MemoryStream, connection: Connection) -> None:
        self.stream = stream
        self.connection = connection
        self.over = trio.Event()
        self._left = b""

    def send(self, data: bytes) -> None:
        self.stream.feed(data)

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        http.send(h11.EndOfMessage())
        if self._left:
            http.receive_data(self._left)
        status, headers, body = 0, {}, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await self.stream.read())
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {n.decode(): v.decode("latin-1") for n, v in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._left = http.trailing_data[0]
                return status, headers, body
            else:
                assert isinstance(event, h11.InformationalResponse), event

    async def raw(self) -> bytes:
        """What is there; b"" once the server closed."""
        return await self.stream.read()


@asynccontextmanager
async def connected(
    handler: Handler = echo, limits: Limits = LIMITS, room: int = 256 * 1024
) -> AsyncIterator[Client]:
    stream = MemoryStream(room)
    client = Client(stream, Connection(stream, handler, refuse, limits))

    async def run() -> None:
        await client.connection.run()
        client.over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield client
        nursery.cancel_scope.cancel()


def post(body: bytes, *headers: str, target: str = "/") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def parsed(body: bytes) -> Any:
    return json.loads(body)
