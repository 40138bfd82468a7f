"""One client: its lines in, its requests as tasks, its replies out.

A connection owns everything that its client began: when the client is gone, its requests are
cancelled and its subscriptions end. It knows JSON-RPC's envelope and limits; what methods do is
`dispatch`'s business. The stream is any `trio` stream that can tell a hang-up from a half-close
(see `host/byte_stream`), so that tests run over memory.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import trio

from hybridd.daemon.events import Subscription
from hybridd.host.byte_stream import ByteStream
from hybridd.parts import Daemon
from hybridd.rpc.call import Call
from hybridd.rpc.dispatch import Dispatcher
from hybridd.rpc.encoded import EncodedModels, encode_error, encode_response, response_line
from hybridd.rpc.limits import Limits
from hybridd.rpc.outbox import Id, Outbox
from hybridd.serving.requests import Flush, Sink
from hybridd.wire import protocol
from hybridd.wire.delta import Delta
from hybridd.wire.errors import (
    Busy,
    Cancelled,
    HybriddError,
    InvalidRequest,
    LineTooLong,
    ShuttingDown,
    SlowConsumer,
)
from hybridd.wire.framing import LineDecoder, decode_line

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
# After a refused line: how long input is thrown away so that the client can read why.
DISCARD_S = 1.0
# When the daemon ends: what a request gets that waits for something else than a worker.
CLOSE_GRACE_S = 1.0
# There are five topics; each subscription may hold some thousand events that nobody reads.
MAX_SUBSCRIPTIONS = 64


class Connection:
    """See the module's text; made by `rpc/listener`."""

    def __init__(
        self,
        wire: ByteStream,
        daemon: Daemon,
        dispatcher: Dispatcher,
        limits: Limits,
        encoded: EncodedModels,
    ) -> None:
        self._wire = wire
        self._daemon = daemon
        self._encoded = encoded
        self._dispatcher = dispatcher
        self._limits = limits
        self._outbox = Outbox()
        self._decoder = LineDecoder(limits.max_line_bytes)
        self._requests: dict[Id, trio.CancelScope] = {}
        self._in_flight = 0
        self._wakened = trio.Event()
        self._sending = False  # the writer has taken what is not sent yet
        self._ended = False  # the client sends no more
        self._closing = False  # nothing is accepted any more
        self._told_to_close = trio.Event()
        self._failure: HybriddError | None = None  # why requests end that nobody cancelled
        self._nursery: trio.Nursery | None = None

    # ---------------------------------------------------------------- life

    async def run(self) -> None:
        """Serve the client until it is gone and everything it is owed was sent."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._write)
                nursery.start_soon(self._end_late)
                await self._read()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away; its requests were cancelled with the nursery
        finally:
            for name in self._outbox.subscriptions:
                self._daemon.events.unsubscribe(name)
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await self._wire.aclose()

    def close(self) -> None:
        """The daemon ends: take nothing more, finish what is owed, then close.

        Workers are gone by now; a request that still waits (for a scan, say) ends after a grace.
        """
        self._closing = True
        self._told_to_close.set()
        self.wake()

    async def _end_late(self) -> None:
        # A task of its own from the start: when `close` comes, the nursery may take no more.
        await self._told_to_close.wait()
        await trio.sleep(CLOSE_GRACE_S)
        self._end_requests(_shutting_down())

    # ---------------------------------------------------------------- reading

    async def _read(self) -> None:
        while True:
            try:
                line = self._decoder.next_line()
                if line is None:
                    data = await self._wire.receive_some(RECEIVE_BYTES)
                    if not data:
                        # `printf | socat` ends its half without a last newline.
                        self._take(self._decoder.rest())
                        break
                    self._decoder.feed(data)
                    continue
                self._take(line)
            except LineTooLong as exc:
                self._refuse(exc)
                await self._discard()
                return
            # A client that pipelines hundreds of lines must not hold the loop.
            await trio.lowlevel.checkpoint()
        self._ended = True
        self.wake()
        await self._wire.wait_hangup()
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _discard(self) -> None:
        """Read and forget for a moment, so that the answer is not lost to a reset; then close."""
        with trio.move_on_after(DISCARD_S):
            while await self._wire.receive_some(RECEIVE_BYTES):
                pass
        self._end_requests(Cancelled("the connection is closed: a line was too long"))

    def _end_requests(self, why: HybriddError) -> None:
        """Answer whatever is in flight with `why`, then close; soon, whether it is read or not."""
        assert self._nursery is not None
        self._failure = self._failure or why
        self._closing = True
        for scope in self._requests.values():
            scope.cancel()
        deadline = trio.current_time() + DISCARD_S
        self._nursery.cancel_scope.deadline = min(self._nursery.cancel_scope.deadline, deadline)
        self.wake()

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = decode_line(line)
        except LineTooLong:
            raise
        except HybriddError as exc:
            self._refuse(exc)
            return
        if isinstance(message, list):
            self._take_batch(message)
        else:
            self._take_one(message)

    def _take_one(self, message: Any) -> None:
        try:
            self._dispatcher.validate(message)
            if "id" not in message:
                self._take_notification(message)
                return
            id = self._check_id(message["id"])
        except HybriddError as exc:
            self._refuse(exc)
            return
        if (refusal := self._no_room(1)) is not None:
            self._put(encode_error(id, refusal))
            return
        self._requests[id] = trio.CancelScope()
        self._in_flight += 1
        self._spawn(self._run_one, message, id)

    def _take_notification(self, message: dict[str, Any]) -> None:
        if message["method"] != protocol.CANCEL_REQUEST:
            return
        params = message.get("params")
        id = params.get("id") if isinstance(params, dict) else None
        if isinstance(id, (int, str)) and not isinstance(id, bool) and id in self._requests:
            self._requests[id].cancel()

    def _take_batch(self, batch: list[Any]) -> None:
        if not 1 <= len(batch) <= protocol.MAX_BATCH:
            self._refuse(
                InvalidRequest(
                    f"a batch takes 1 to {protocol.MAX_BATCH} requests, got {len(batch)}"
                )
            )
            return
        responses: list[bytes] = []
        runnable: list[dict[str, Any]] = []
        for element in batch:
            try:
                self._dispatcher.validate(element)
                if "id" not in element:
                    self._take_notification(element)
                    continue
                id = self._check_id(element["id"])
                if (refusal := self._no_room(1)) is not None:
                    responses.append(encode_error(id, refusal))
                    continue
                params = element.get("params")
                if isinstance(params, dict) and (params.get("stream") or params.get("progress")):
                    unfit = InvalidRequest("stream and progress cannot be used inside a batch")
                    responses.append(encode_error(id, unfit))
                    continue
            except HybriddError as exc:
                responses.append(encode_error(None, exc))
                continue
            self._requests[id] = trio.CancelScope()
            self._in_flight += 1
            runnable.append(element)
        if runnable or responses:
            self._spawn(self._run_batch, runnable, responses)

    def _check_id(self, id: Any) -> Id:
        """Return the id.

        Raises:
            InvalidRequest: No string or integer within the limits, or in flight already.
        """
        if isinstance(id, str) and len(id) <= protocol.MAX_ID_CHARACTERS:
            if not id.isascii():
                try:
                    id.encode()
                except UnicodeEncodeError:
                    raise InvalidRequest("an id must be valid Unicode") from None
        elif not isinstance(id, int) or isinstance(id, bool) or abs(id) > protocol.MAX_ID_INTEGER:
            raise InvalidRequest(
                f"an id is a string of at most {protocol.MAX_ID_CHARACTERS} characters or an "
                "integer within 2^53"
            )
        made: Id = id
        if made in self._requests:
            raise InvalidRequest(f"the id {made!r} is in flight already on this connection")
        return made

    def _no_room(self, count: int) -> HybriddError | None:
        if self._closing:
            return self._failure or _shutting_down()
        if self._in_flight + count > protocol.MAX_IN_FLIGHT:
            return Busy(
                f"{self._in_flight} requests are in flight on this connection; "
                "wait for some of them",
                queue_length=self._in_flight,
                retry_after_s=1.0,
            )
        return None

    # ---------------------------------------------------------------- running

    async def _run_one(self, message: dict[str, Any], id: Id) -> None:
        try:
            response = await self._answer(message, id, id)
            self._check_pending()
            self._outbox.finish(id, response_line(response))
        finally:
            self._in_flight -= 1
            self._requests.pop(id, None)
            self.wake()

    async def _run_batch(self, runnable: list[dict[str, Any]], responses: list[bytes]) -> None:
        async def run(element: dict[str, Any]) -> None:
            id = element["id"]
            try:
                responses.append(encode_response(await self._answer(element, id, None)))
            finally:
                self._in_flight -= 1
                self._requests.pop(id, None)

        async with trio.open_nursery() as nursery:
            for element in runnable:
                nursery.start_soon(run, element)
        self._put(b"[" + b",".join(line[:-1] for line in responses) + b"]\n")

    async def _answer(self, message: dict[str, Any], id: Id, own: Id | None) -> dict[str, Any]:
        """The response to a request, also when it is cancelled meanwhile."""
        call = Call(self._daemon, self, own, self._encoded)
        with self._requests[id]:
            return await self._dispatcher.run(message, call)
        if self._failure is not None:
            return protocol.error_response(id, self._failure.to_wire())
        error = Cancelled("the request was cancelled")
        return protocol.error_response(id, error.to_wire())

    # ---------------------------------------------------------------- writing

    async def _write(self) -> None:
        while True:
            while self._outbox.ready:
                await self._send(self._outbox.take())
                if self._outbox.ready:
                    await trio.lowlevel.checkpoint()
            if self._done:
                break
            self._wakened = trio.Event()
            await self._wakened.wait()
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _send(self, data: bytes) -> None:
        left = memoryview(data)[self._wire.send_now(data) :]
        self._sending = bool(left)
        while left:
            patience = math.inf if self._failure else self._limits.slow_s
            with trio.move_on_after(patience) as scope:
                left = left[await self._wire.send_some(left) :]
            if scope.cancelled_caught:
                await self._give_up("it read nothing for too long")
        self._sending = False

    def _flush(self) -> None:
        """Send what waits from where it came up: waking the writer would double a token's cost.

        The writer keeps what it had begun to send, and gets what the kernel does not take: only
        then somebody has to wait, and to lose patience.
        """
        if not self._sending:
            data = self._outbox.take()
            if (sent := self._wire.send_now(data)) < len(data):
                self._outbox.put_back(data[sent:])
            if self._outbox.ready:  # also where it is more than one chunk
                self.wake()

    async def _give_up(self, why: str) -> None:
        """End every request of a client that does not read, and then the connection."""
        if self._failure is None:
            log.warning("a client is disconnected: %s", why)
            self._end_requests(SlowConsumer(f"the connection is closed: {why}"))

    @property
    def _done(self) -> bool:
        """Whether nothing more can come: the client sends no more and is owed nothing."""
        if self._in_flight or self._outbox.ready:
            return False
        return self._closing or (self._ended and not self._outbox.subscriptions)

    # ---------------------------------------------------------------- for handlers

    def sink(self, id: Id) -> Sink:
        """Where a stream's deltas go; see `call.Client`."""

        flush = self._flush

        def take(delta: Delta) -> Flush:
            self._outbox.delta(id, delta)
            self._check_pending()
            return flush

        return take

    def progress(self, id: Id, params: dict[str, Any]) -> None:
        """Send progress of a request."""
        self._outbox.progress(id, params)
        self.wake()

    def attach(self, subscription: Subscription) -> None:
        """Send a subscription's events on this connection.

        Raises:
            Busy: It has as many as it may have.
        """
        if len(self._outbox.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Busy(
                f"a connection has at most {MAX_SUBSCRIPTIONS} subscriptions; one takes all topics",
                queue_length=MAX_SUBSCRIPTIONS,
            )
        self._outbox.attach(subscription)

    def detach(self, name: str) -> bool:
        """Stop sending a subscription's events; whether it was this connection's."""
        return self._outbox.detach(name)

    def wake(self) -> None:
        """Let the writer look again."""
        self._wakened.set()

    def _refuse(self, error: HybriddError) -> None:
        self._put(encode_error(None, error))

    def _put(self, line: bytes) -> None:
        # One large reply is no sign of a slow reader; what waited before it is.
        self._check_pending()
        self._outbox.put(line)
        self.wake()

    def _check_pending(self) -> None:
        if self._outbox.pending_bytes > self._limits.slow_bytes and self._failure is None:
            self._spawn(self._give_up, f"{self._outbox.pending_bytes} bytes wait to be read")

    def _spawn(self, task: Any, *args: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(task, *args)


def _shutting_down() -> HybriddError:
    return ShuttingDown("hybridd is shutting down; ask again once it is back")
