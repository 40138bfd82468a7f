"""A gateway without a server: exchanges in memory, a daemon that is a fake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import trio

from hybridd.http.faces.api import Ask, Face
from hybridd.http.gateway import Gateway
from hybridd.http.guard import Policy
from hybridd.http.problems import Problem
from hybridd.http.server.exchange import Headers
from hybridd.http.server.request import Request
from hybridd.parts import Daemon
from hybridd.serving.requests import Sink
from hybridd.wire.delta import Delta
from hybridd.wire.errors import HybriddError, ModelNotFound

POLICY = Policy(frozenset({"localhost"}), frozenset({"http://app.test"}), None)


class MemoryBody:
    """An answer's body in memory; `blocked` as a test wants it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.blocked = False
        self.unblocked = trio.Event()

    def send_now(self, data: bytes) -> None:
        if data:
            self.pieces.append(data)

    async def drain(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.blocked:
            await self.unblocked.wait()
            self.blocked = False


@dataclass
class MemoryExchange:
    """One request and what was answered."""

    request: Request
    content: bytes = b""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: MemoryBody = field(default_factory=MemoryBody)
    ended: bool = False

    @property
    def begun(self) -> bool:
        return self.status != 0

    async def read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.content

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        assert not self.begun
        self.status, self.headers, self.body = status, dict(headers), body
        self.ended = True

    async def begin(self, status: int, headers: Headers) -> MemoryBody:
        assert not self.begun
        self.status, self.headers = status, dict(headers)
        return self.stream

    async def end(self) -> None:
        self.ended = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakeManager:
    """Answers what a test put in: a result, an error, or what `work` does with the sink."""

    work: Callable[[str, Sink | None], Any] | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    models: Sequence[str] = ("m", "ours")

    async def find(self, name: str) -> Any:
        if name not in self.models:
            raise ModelNotFound(f"no {name}", model=name)
        return SimpleNamespace(id=name)

    async def infer(
        self, kind: str, model: str, request: Mapping[str, Any], **others: Any
    ) -> dict[str, Any]:
        self.asked.append({"kind": kind, "model": model, "request": dict(request), **others})
        assert self.work is not None
        result = await self.work(model, others.get("sink"))
        return dict(result)


def says(*texts: str, error: HybriddError | None = None) -> Callable[[str, Sink | None], Any]:
    """What a model does: brings these texts, each in a step of its own; then ends or fails."""

    async def work(model: str, sink: Sink | None) -> dict[str, Any]:
        for text in texts:
            await trio.lowlevel.checkpoint()
            if sink is not None and (flush := sink(Delta(text, 1))):
                flush()
        if error is not None:
            raise error
        return {"model": model, "finish_reason": "stop", "text": "".join(texts), "usage": {}}

    return work


class Lines:
    """A writer whose events are lines of plain text."""

    media_type = "text/plain"

    def begin(self) -> bytes:
        return b"begin\n"

    def waiting(self, why: str) -> bytes:
        return b"waiting: %b\n" % why.encode()

    def delta(self, index: int, delta: Delta) -> bytes:
        return b"%d %b\n" % (index, delta.text.encode())

    def end(self, index: int, result: Mapping[str, Any]) -> bytes:
        return b"%d ended by %b\n" % (index, result["finish_reason"].encode())

    def finish(self) -> bytes:
        return b"finish\n"

    def error(self, problem: Problem) -> bytes:
        return b"error %b\n" % problem.kind.encode()


def ask(model: str = "m") -> Ask:
    return Ask("generate", model, {"prompt": "p"})


def fake_daemon(manager: FakeManager, jobs: Sequence[Any] = ()) -> Daemon:
    parts: Any = SimpleNamespace(
        manager=manager,
        jobs=SimpleNamespace(all=lambda: list(jobs)),
        configuration={"http.model_map": {"claude-*": "ours"}},
    )
    daemon: Daemon = parts
    return daemon


async def answered(
    faces: Sequence[Face],
    method: str,
    target: str,
    body: bytes | Any = b"",
    *,
    headers: Sequence[tuple[str, str]] = (),
    manager: FakeManager | None = None,
    policy: Policy = POLICY,
) -> MemoryExchange:
    """What the gateway answers to one request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = [("host", "localhost"), *headers]
    if content:
        sent += [("content-length", str(len(content)))]
        if not any(name == "content-type" for name, _ in headers):
            sent += [("content-type", "application/json")]
    raw = [(name.encode(), value.encode()) for name, value in sent]
    exchange = MemoryExchange(Request(method, target, raw), content)
    daemon = fake_daemon(manager or FakeManager(says("hello")))
    gateway = Gateway(daemon, faces, lambda: policy, slow_bytes=100_000)
    await gateway.handle(exchange)
    return exchange
