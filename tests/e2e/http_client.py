"""A plain HTTP client over the gateway's Unix socket or TCP, with nothing of hybridd in it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

NET_S = 120.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=NET_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(NET_S)
        self.sock.connect(self._path)


def connection(where: str) -> http.client.HTTPConnection:
    """To a path of a Unix socket, or to http://HOST:PORT."""
    if where.startswith("http://"):
        return http.client.HTTPConnection(where.removeprefix("http://"), timeout=NET_S)
    return _UnixConnection(where)


def ask(
    where: str, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    sent = dict(headers or {})
    data = None
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    link = connection(where)
    try:
        link.request(method, target, data, sent)
        response = link.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, received, response.read())
    finally:
        link.close()


def events(
    where: str, method: str, target: str, body: Any = None, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, Any]]:
    """Server-sent events as they come: name and data; comments come as ("", text)."""
    sent = {"Accept": "text/event-stream", **(headers or {})}
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        sent["Content-Type"] = "application/json"
    link = connection(where)
    try:
        link.request(method, target, data, sent)
        response = link.getresponse()
        assert response.status == 200, response.read()
        name = "message"
        while line := response.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                yield "", text[1:].strip()
            elif text.startswith("event: "):
                name = text.removeprefix("event: ")
            elif text.startswith("data: "):
                value = text.removeprefix("data: ")
                yield name, json.loads(value) if value != "[DONE]" else value
            elif not text:
                name = "message"
    finally:
        link.close()
