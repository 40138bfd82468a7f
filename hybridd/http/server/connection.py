"""One HTTP client: its requests one after the other, each answered by the handler.

What a client does is contained here: a connection ends by itself, whatever comes, and nothing is
raised into the nursery that it runs in. A client that leaves is noticed in every state, also while
its request is computed and with more requests waiting behind it, and the handler is cancelled. A
client that stops reading is given up after a time and a size.

`h11` parses and says which state a connection is in; this module moves bytes and keeps time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus

import h11
import trio

from hybridd.host.byte_stream import ByteStream
from hybridd.http.problems import Problem
from hybridd.http.server.body import BodyWriter, Stalled
from hybridd.http.server.decoding import check_encoding, decoded, too_large
from hybridd.http.server.exchange import Exchange, Headers
from hybridd.http.server.limits import Limits
from hybridd.http.server.request import Request

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
_NO_BODY = frozenset({204, 304})
_VERSIONS = (b"1.1", b"1.0")
_INVALID = "this is no valid HTTP request"

Handler = Callable[[Exchange], Awaitable[None]]
# A problem before there is a request that a handler could answer.
Refuse = Callable[[Problem], tuple[Headers, bytes]]


class Connection:
    """See the module's text; made by `server/listener`.

    Args:
        handler: Answers a request. What it raises becomes a 500, or ends the connection where the
            answer has begun.
        refuse: Writes what is answered to a client that speaks no HTTP.

    Attributes:
        idle_since: Seconds on trio's clock since it waits for a request; None while it has one.
    """

    def __init__(
        self, stream: ByteStream, handler: Handler, refuse: Refuse, limits: Limits
    ) -> None:
        self._stream = stream
        self._handler = handler
        self._refuse = refuse
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._waiting: trio.CancelScope | None = None
        self._closing = False
        self.idle_since: float | None = None
        self._request: Request | None = None
        self._body: BodyWriter | None = None
        self.begun = False
        self._bodiless = False  # the answer goes without its body

    # ---------------------------------------------------------------- life

    async def run(self) -> None:
        """Serve the client until it is gone or told to go."""
        try:
            while await self._serve_one():
                pass
        except Exception as exc:
            # A bug in one connection ends that connection, never the daemon.
            if not _is_about_client(exc):
                log.exception("an HTTP connection failed")
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await self._stream.aclose()

    async def turn_away(self, problem: Problem) -> None:
        """Say that it cannot be served, without waiting for a request; then end."""
        self._closing = True
        headers, body = self._refuse(problem)
        try:
            with trio.move_on_after(self._limits.linger_s):
                await self.reply(problem.status, headers, body)
                await self._linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await self._stream.aclose()

    def close(self) -> None:
        """End once the request at hand is answered; at once where there is none."""
        self._closing = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        self._request, self._body, self.begun, self._bodiless = None, None, False, False
        try:
            request = await self._next_request()
        except Problem as problem:
            self._closing = True
            await self._refuse_input(problem)
            return False
        if request is None:
            return False
        self._request = request
        answered = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_with_client, nursery.cancel_scope)
            answered = await self._answer()
            nursery.cancel_scope.cancel()
        if not answered or self._closing:
            return False
        if self._http.their_state is h11.SEND_BODY:
            await self._linger()
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def _leave_with_client(self, scope: trio.CancelScope) -> None:
        await self._stream.wait_hangup()
        scope.cancel()

    async def _answer(self) -> bool:
        """Have the request answered; whether it was, to its end."""
        try:
            try:
                await self._handler(self)
            except Exception as exc:
                if _is_about_client(exc):
                    raise
                log.exception("answering an HTTP request failed")
                if self.begun:
                    return False
                failed = Problem(500, "internal_error", "hybridd failed at this; its log says why")
                headers, body = self._refuse(failed)
                await self.reply(500, headers, body)
        except Exception as exc:
            if not _is_about_client(exc):
                raise
            log.debug("an HTTP client left, or reads nothing: %r", exc)
            return False
        return self._http.our_state in (h11.DONE, h11.MUST_CLOSE)

    # ---------------------------------------------------------------- reading

    async def _next_request(self) -> Request | None:
        """The next request's head; None once the client has no more.

        Raises:
            Problem: What came is no HTTP, too much, or too slow.
        """
        begun = bool(self._http.trailing_data[0])
        self.idle_since = trio.current_time()
        patience = self._limits.head_s if begun else self._limits.idle_s
        event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED] = h11.NEED_DATA
        with trio.move_on_after(patience) as self._waiting:
            while (event := self._next_event()) is h11.NEED_DATA:
                if self._closing and not begun:
                    return None
                data = await self._stream.receive_some(RECEIVE_BYTES)
                if data and not begun:
                    begun, self.idle_since = True, None
                    self._waiting.deadline = trio.current_time() + self._limits.head_s
                self._http.receive_data(data)
        self._waiting = self.idle_since = None
        if isinstance(event, h11.Request):
            self._bodiless = event.method == b"HEAD"
            request = self._checked(event)
            if not request.has_body:
                self._next_event()  # the end of the message, which is here already
            return request
        if event is h11.NEED_DATA and begun and not self._closing:
            raise Problem(408, "timeout", "the request's headers did not come in time")
        return None

    def _checked(self, head: h11.Request) -> Request:
        """A head, where it is one that can be served: h11 takes any version, and any size at once.

        Raises:
            Problem: It is not.
        """
        if head.http_version not in _VERSIONS:
            version = head.http_version.decode("ascii")
            raise Problem(505, "bad_request", f"{_INVALID}: it is HTTP/{version}, not HTTP/1.1")
        size = sum(len(name) + len(value) for name, value in head.headers) + len(head.target)
        if size > self._limits.head_bytes:
            raise Problem(431, "bad_request", f"{_INVALID}: its headers have {size} bytes")
        return Request(head.method.decode("ascii"), head.target.decode("ascii"), head.headers)

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError as exc:
            status = exc.error_status_hint
            raise Problem(status, "bad_request", f"{_INVALID}: {exc}") from None

    async def read(self) -> bytes:
        """See `exchange.Exchange`."""
        headers = self.request.headers
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        limit = self._limits.body_bytes
        encoding = headers.get("content-encoding", "").lower()
        check_encoding(encoding)
        if int(headers.get("content-length", "0")) > limit:  # h11 lets digits alone pass
            raise too_large(limit)
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._send(self._http.send(go_on) or b"")
        received = bytearray()
        with trio.move_on_after(self._limits.body_s) as scope:
            while not isinstance(event := self._next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Data):
                    received += event.data
                    if len(received) > limit:
                        raise too_large(limit)
                elif event is h11.NEED_DATA:
                    self._http.receive_data(await self._stream.receive_some(RECEIVE_BYTES))
                else:
                    raise Problem(400, "bad_request", "the body ends before its length")
        if scope.cancelled_caught:
            raise Problem(408, "timeout", "the request's body did not come in time")
        return decoded(bytes(received), encoding, limit)

    async def _refuse_input(self, problem: Problem) -> None:
        """Answer what is no request; the connection is of no use after it."""
        headers, body = self._refuse(problem)
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self.reply(problem.status, headers, body)
            await self._linger()

    async def _linger(self) -> None:
        """Read and forget for a moment, so that the answer is not lost to a reset."""
        with trio.move_on_after(self._limits.linger_s):
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass

    # ---------------------------------------------------------------- answering

    @property
    def request(self) -> Request:
        """See `exchange.Exchange`."""
        assert self._request is not None
        return self._request

    async def reply(self, status: int, headers: Headers, body: bytes) -> None:
        """See `exchange.Exchange`."""
        bare = status in _NO_BODY
        length = [] if bare else [("content-length", str(len(body)))]
        head = self._begin(status, [*length, *headers])
        if not bare and not self._bodiless:
            head += self._http.send(h11.Data(data=body)) or b""
        await self._send(head + (self._http.send(h11.EndOfMessage()) or b""))

    async def begin(self, status: int, headers: Headers) -> BodyWriter:
        """See `exchange.Exchange`."""
        await self._send(self._begin(status, headers))
        # An answer to HTTP/1.0 has no chunks: it ends where the connection does.
        chunked = self._http.their_http_version != b"1.0"
        self._body = BodyWriter(self._stream, self._limits, chunked=chunked)
        return self._body

    async def end(self) -> None:
        """See `exchange.Exchange`."""
        assert self._body is not None
        await self._body.drain()
        await self._send(self._http.send(h11.EndOfMessage()) or b"")

    def _begin(self, status: int, headers: Headers) -> bytes:
        """The bytes of an answer's head."""
        self.begun = True
        fields = [("date", formatdate(usegmt=True)), *headers]
        if self._closing or self._http.their_state in (h11.SEND_BODY, h11.ERROR):
            # What of the request is unread would be taken for the next one.
            fields.append(("connection", "close"))
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in fields]
        response = h11.Response(status_code=status, headers=raw, reason=_reason(status))
        return self._http.send(response) or b""

    async def _send(self, data: bytes) -> None:
        left = memoryview(data)[self._stream.send_now(data) :]
        while left:
            with trio.move_on_after(self._limits.slow_s) as scope:
                left = left[await self._stream.send_some(left) :]
            if scope.cancelled_caught:
                raise Stalled


_OF_CLIENT = (trio.BrokenResourceError, trio.ClosedResourceError, Stalled)


def _is_about_client(exc: Exception) -> bool:
    """Whether it only says that the client is gone or reads nothing."""
    if isinstance(exc, ExceptionGroup):
        return all(_is_about_client(each) for each in exc.exceptions)
    return isinstance(exc, _OF_CLIENT)


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Client Closed Request" if status == 499 else b"Error"
