"""One HTTP request through the gateway: guard, route, body, handler, answer, log line.

Where the server's exchanges meet the faces. Every way out of here is an answer: a problem is told
in the shape of the face that was asked, also one of the guard's.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import trio

from hybridd.http import asking
from hybridd.http.faces.api import JSON, Answer, Call, Face, Produced, Reply, Streamed
from hybridd.http.guard import Policy, Verdict, judge
from hybridd.http.problems import Problem
from hybridd.http.routing import Found, Router
from hybridd.http.server.body import Stalled
from hybridd.http.server.exchange import Body, Exchange, Headers
from hybridd.http.streaming import Streaming
from hybridd.parts import Daemon
from hybridd.wire.errors import HybriddError
from hybridd.wire.framing import decode_line, encode_line

log = logging.getLogger(__name__)

# On every answer: what is sent is what it says it is, and no page of another site takes it in.
_ALWAYS = (
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
)
_SHOWN = 200  # characters of a path in the log
_NOT_KEPT = ("cache-control", "no-store")


class Gateway:
    """See the module's text.

    Args:
        faces: The first one's shape is taken for what is below no face's paths.
        policy: Who may ask, on the socket that this gateway answers for.
        slow_bytes: A client that lets so much of a stream wait is given up.
    """

    def __init__(
        self,
        daemon: Daemon,
        faces: Sequence[Face],
        policy: Callable[[], Policy],
        slow_bytes: int,
    ) -> None:
        self._daemon = daemon
        self._router = Router(faces)
        self._policy = policy
        self._slow_bytes = slow_bytes

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; see `server.connection.Handler`."""
        await _Answering(exchange, self._daemon, self._router, self._slow_bytes).run(self._policy)

    def refuse(self, problem: Problem) -> tuple[Headers, bytes]:
        """Write a problem of what is no request; see `server.connection.Refuse`."""
        return _told(self._router.face("/"), problem)


class _Answering:
    """One request."""

    def __init__(self, exchange: Exchange, daemon: Daemon, router: Router, slow_bytes: int) -> None:
        self._exchange = exchange
        self._request = exchange.request
        self._daemon = daemon
        self._router = router
        self._slow_bytes = slow_bytes
        self._id = "req_" + secrets.token_hex(8)
        # By both names that clients read: OpenAI's and Anthropic's.
        named = [("x-request-id", self._id), ("request-id", self._id)]
        self._headers: list[tuple[str, str]] = [*named, *_ALWAYS]
        self._status = 0

    async def run(self, policy: Callable[[], Policy]) -> None:
        """Answer it."""
        started, ended = trio.current_time(), "left by the client"
        try:
            try:
                await self._answer(policy())
            except HybriddError as exc:
                await self._refuse(Problem.of(exc))
            except Problem as problem:
                await self._refuse(problem)
            ended = ""
        except Stalled:
            ended = "given up: the client reads nothing"
            raise
        finally:
            log.log(
                logging.DEBUG if self._request.method in ("GET", "HEAD") else logging.INFO,
                "%s %s %s in %.3f s, %s%s",
                self._request.method,
                self._request.path[:_SHOWN],
                self._status or "unanswered",
                trio.current_time() - started,
                self._id,
                f", {ended}" if ended else "",
            )

    async def _answer(self, policy: Policy) -> None:
        request = self._request
        if not request.target.startswith("/"):
            raise Problem(400, "bad_request", "the request's target has to be a path")
        found, missing = self._find()
        route = found.route if found else None
        verdict: Verdict = judge(
            request.method,
            request.target,
            request.raw_headers,
            policy,
            open=route.open if route else False,
            acts=route.acts if route else False,
        )
        self._headers += verdict.headers
        if verdict.problem is not None:
            raise verdict.problem
        if request.method == "OPTIONS":
            await self._options(preflight=verdict.preflight)
            return
        if missing is not None:
            raise missing
        assert found is not None
        answer = await found.route.handler(await self._call(found))
        await self._send(answer)

    def _find(self) -> tuple[Found | None, Problem | None]:
        """The route, or why there is none: told after the guard, which strangers meet first."""
        try:
            return self._router.find(self._request.method, self._request.path), None
        except Problem as problem:
            return None, problem

    async def _options(self, *, preflight: bool) -> None:
        allowed = self._router.methods(self._request.path)
        if not allowed and not preflight:
            raise Problem(404, "not_found", f"there is no {self._request.path[:120]} here")
        await self._reply(204, [("allow", allowed)] if allowed else [], b"")

    async def _call(self, found: Found) -> Call:
        request = self._request
        try:
            query = request.query
        except ValueError:
            raise Problem(400, "bad_request", "the query has too many parameters") from None
        return Call(
            daemon=self._daemon,
            method=request.method,
            path=found.names,
            query=query,
            headers=request.headers,
            body=await self._body(found),
            id=self._id,
            created=time.time(),
            infer=functools.partial(asking.run, self._daemon),
        )

    async def _body(self, found: Found) -> Any:
        """The body's JSON; an empty object where a route takes one and none was sent."""
        data = await self._exchange.read()
        if found.route.method in ("GET", "DELETE"):
            return None
        if not data.strip():
            return {}
        body = decode_line(data, what="body")
        if not isinstance(body, dict):
            raise Problem(400, "invalid_params", "the body has to be a JSON object")
        return body

    # ---------------------------------------------------------------- sending

    async def _send(self, answer: Answer) -> None:
        if isinstance(answer, Reply):
            value = answer.value
            data = value if isinstance(value, bytes) else _encoded(value)
            headers = [("content-type", answer.media_type), *answer.headers]
            await self._reply(answer.status, headers, data)
        elif self._request.method == "HEAD":
            media = answer.media_type if isinstance(answer, Produced) else answer.writer.media_type
            await self._reply(200, [("content-type", media)], b"")
        elif isinstance(answer, Produced):
            await self._produce(answer)
        else:
            await Streaming(
                answer,
                functools.partial(asking.run, self._daemon),
                functools.partial(self._begin, answer.writer.media_type),
                functools.partial(_why, self._daemon, answer),
                self._slow_bytes,
            ).run()
            await self._exchange.end()

    async def _produce(self, answer: Produced) -> None:
        body = await self._begin(answer.media_type)

        async def send(data: bytes) -> None:
            body.send_now(data)
            await body.drain()

        await answer.produce(send)
        await self._exchange.end()

    async def _begin(self, media_type: str) -> Body:
        self._status = 200
        headers = [("content-type", media_type), ("x-accel-buffering", "no"), _NOT_KEPT]
        return await self._exchange.begin(200, [*headers, *self._headers])

    async def _refuse(self, problem: Problem) -> None:
        if self._exchange.begun:
            raise problem
        headers, body = _told(self._router.face(self._request.path), problem)
        await self._reply(problem.status, headers, body)

    async def _reply(self, status: int, headers: Headers, body: bytes) -> None:
        self._status = status
        kept = any(name == "cache-control" for name, _ in headers)
        await self._exchange.reply(
            status, [*headers, *self._headers, *(() if kept else (_NOT_KEPT,))], body
        )


def _told(face: Face, problem: Problem) -> tuple[Headers, bytes]:
    return [("content-type", JSON), *problem.headers], _encoded(face.error(problem))


def _encoded(value: Any) -> bytes:
    return encode_line(value)


def _why(daemon: Daemon, answer: Streamed) -> str:
    """What a streamed answer waits for, in a line for people."""
    wanted = {" ".join(ask.model.split()) for ask in answer.asks}
    for job in daemon.jobs.all():
        if job.kind == "load" and not job.over and job.model is not None:
            done = f", {job.fraction:.0%}" if job.total else ""
            if any(name in job.model for name in wanted):
                return f"loading {job.model}{done}"
    return f"waiting for {', '.join(sorted(wanted))}"
