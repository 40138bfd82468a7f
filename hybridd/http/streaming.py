"""The answer of one or more asks on its way to the client, written in a face's events.

A delta is written where it comes up, in the supervisor's turn: waking a task for each would double
a token's cost. Where the client has not taken what was sent, deltas wait here, and what waits
becomes one event, so that a reader who is late costs nothing but its own latency.

The head is held back for a moment, so that what fails at once (no such model, a full queue) is
an error with its own status; then it goes out whether the model is there or not, and a line
every few seconds tells what it waits for, since clients give up on a silent server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from hybridd.http.faces.api import Ask, Streamed
from hybridd.http.problems import Problem
from hybridd.http.server.body import Stalled
from hybridd.http.server.exchange import Body
from hybridd.serving.requests import Flush, Sink
from hybridd.wire.delta import Delta
from hybridd.wire.errors import HybriddError

# How long a head waits for an error that would change it.
HEAD_GRACE_S = 0.3
# Between two lines that say why nothing comes; clients' own limits begin at some ten seconds.
WAITING_S = 5.0
# A delta's text is far smaller than what Python keeps of it.
_DELTA_BYTES = 256

Run = Callable[[Ask, Sink], Awaitable[Mapping[str, Any]]]


class Streaming:
    """One streamed answer.

    Args:
        run: Runs an ask; its deltas go to the sink.
        begin: Sends the head and returns the body.
        why: What the answer waits for, in a line.
        slow_bytes: A client that lets so much wait is given up.
    """

    def __init__(
        self,
        answer: Streamed,
        run: Run,
        begin: Callable[[], Awaitable[Body]],
        why: Callable[[], str],
        slow_bytes: int,
    ) -> None:
        self._answer = answer
        self._writer = answer.writer
        self._run = run
        self._begin = begin
        self._why = why
        self._slow_bytes = slow_bytes
        self._body: Body | None = None
        self._waiting: list[tuple[int, Delta | Mapping[str, Any]]] = []
        self._waiting_bytes = 0
        self._running = len(answer.asks)
        self._problem: Problem | None = None
        self._bug: Exception | None = None
        self._wakened = trio.Event()
        self._written_at = trio.current_time()

    async def run(self) -> None:
        """Send the whole answer.

        Raises:
            Problem: It failed before the head was sent.
            Stalled: The client reads too little.
            trio.BrokenResourceError: The client is gone.
        """
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            for index, ask in enumerate(self._answer.asks):
                nursery.start_soon(self._ask, index, ask)
            try:
                await self._send_all()
            # Kept for outside the nursery, which would wrap it in a group.
            except Exception as exc:
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # ---------------------------------------------------------------- what comes

    async def _ask(self, index: int, ask: Ask) -> None:
        try:
            self._put(index, await self._run(ask, self._sink(index)))
        except HybriddError as exc:
            self._problem = self._problem or Problem.of(exc)
        except Exception as exc:
            self._bug = exc
        self._running -= 1
        self._wakened.set()

    def _sink(self, index: int) -> Sink:
        flush = self._flush

        def take(delta: Delta) -> Flush:
            self._put(index, delta)
            return flush

        return take

    def _put(self, index: int, what: Delta | Mapping[str, Any]) -> None:
        self._waiting.append((index, what))
        self._waiting_bytes += _DELTA_BYTES
        if isinstance(what, Delta):
            self._waiting_bytes += len(what.text)

    def _flush(self) -> None:
        if self._body is None or self._body.blocked:
            self._wakened.set()
            return
        self._write()
        if self._body.blocked:
            self._wakened.set()

    # ---------------------------------------------------------------- what goes

    async def _send_all(self) -> None:
        with trio.move_on_after(HEAD_GRACE_S):
            await self._something()
        if self._problem is not None or self._bug is not None:
            raise self._problem or self._bug or AssertionError
        body = self._body = await self._begin()
        body.send_now(self._writer.begin())
        while True:
            await body.drain()
            if self._waiting_bytes > self._slow_bytes:
                raise Stalled
            if self._waiting:
                self._write()
                continue
            if self._bug is not None:
                body.send_now(self._writer.error(Problem(500, "internal_error", _BUG)))
                await body.drain()
                raise self._bug
            if self._problem is not None:
                body.send_now(self._writer.error(self._problem))
                break
            if not self._running:
                body.send_now(self._writer.finish())
                break
            with trio.move_on_at(self._written_at + WAITING_S) as silence:
                await self._something()
            if silence.cancelled_caught and trio.current_time() >= self._written_at + WAITING_S:
                body.send_now(self._writer.waiting(self._why()))
                self._written_at = trio.current_time()
        await body.drain()

    async def _something(self) -> None:
        """Return once there is something to do; a flush that wrote all by itself is nothing."""
        while not (self._waiting or self._problem or self._bug or not self._running):
            self._wakened = trio.Event()
            await self._wakened.wait()
            if self._body is not None and self._body.blocked:
                return

    def _write(self) -> None:
        """Write what waits; deltas of one ask that follow each other become one event."""
        assert self._body is not None
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._written_at = trio.current_time()
        if len(waiting) == 1 and isinstance(waiting[0][1], Delta):
            self._body.send_now(self._writer.delta(waiting[0][0], waiting[0][1]))
            return
        events: list[bytes] = []
        run: list[Delta] = []
        for at, (index, what) in enumerate(waiting):
            if isinstance(what, Delta):
                run.append(what)
                follows = waiting[at + 1] if at + 1 < len(waiting) else None
                if follows and follows[0] == index and isinstance(follows[1], Delta):
                    continue
                events.append(self._writer.delta(index, Delta.merged(run)))
                run = []
            else:
                events.append(self._writer.end(index, what))
        self._body.send_now(b"".join(events))


_BUG = "hybridd failed at this; its log says why"
