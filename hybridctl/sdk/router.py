"""Who waits for what on one client: mailboxes over a `Session`, sans-IO as it is.

Shared by both connections, which add the socket and the waiting. The router outlives sessions: a
client that lost its connection goes on with a new session, and what waited on the old one finds
the error in its mailbox.
"""

from __future__ import annotations

from collections import deque

from .session import ERROR, EVENT, LOST, REPLY, Message, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hybridd.wire.errors import HybriddError

    from .arguments import Params

# Events kept for a reader that is busy elsewhere; past it they count as lost, as the daemon's do.
MAX_UNREAD_EVENTS = 10_000


class Mailbox:
    """What has arrived for one request or subscription and is not read yet.

    Attributes:
        wake: Called at each delivery; how an asynchronous reader is woken.
        subscription: The subscription's name, once it has one.
        lost: Events dropped here or by the daemon.
    """

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.wake: Callable[[], None] | None = None
        self.subscription = ""
        self.lost = 0

    def put(self, message: Message) -> None:
        """Deliver; an event beyond the limit is counted instead."""
        if message.kind == LOST:
            self.lost += message.value
        elif message.kind == EVENT and len(self.messages) >= MAX_UNREAD_EVENTS:
            self.lost += 1
        else:
            self.messages.append(message)
            if self.wake is not None:
                self.wake()


class Router:
    """The mailboxes of one client."""

    def __init__(self) -> None:
        self._session = Session()
        self._boxes: dict[int, Mailbox] = {}
        self._subscribing: dict[int, Mailbox] = {}
        self._subscribed: dict[str, Mailbox] = {}

    def begin(self) -> Session:
        """Start with a new connection."""
        self._session = Session(self._session.last_id)
        return self._session

    def open(self, method: str, params: Params) -> tuple[int, bytes]:
        """Open a request with a mailbox.

        Returns:
            Its id and the bytes to send.
        """
        id, data = self._session.request(method, params)
        self._boxes[id] = Mailbox()
        return id, data

    def mailbox(self, id: int) -> Mailbox:
        """The mailbox of an open request."""
        return self._boxes[id]

    def cancel(self, id: int) -> bytes:
        """The bytes that ask to cancel `id`; none when it has been answered."""
        return self._session.cancel(id)

    def abandon(self, id: int) -> bytes:
        """Nobody waits for `id` any more.

        Returns:
            The bytes that cancel it; none when it has been answered.
        """
        return self._session.cancel(id) if self._boxes.pop(id, None) is not None else b""

    def subscribing(self, id: int) -> Mailbox:
        """The mailbox for the events of the subscription that request `id` asks for."""
        made = self._subscribing[id] = Mailbox()
        return made

    def unsubscribe(self, mailbox: Mailbox) -> bytes:
        """Give a subscription up.

        Returns:
            The bytes that say so, whose answer nobody waits for; none when it is none any more.
        """
        if self._subscribed.pop(mailbox.subscription, None) is None:
            return b""
        self._session.forget(mailbox.subscription)
        params = {"subscription": mailbox.subscription}
        return self._session.request("events.unsubscribe", params)[1]

    def deliver(self, messages: list[Message]) -> None:
        """Put messages into their mailboxes; what nobody waits for is dropped."""
        for message in messages:
            if message.subscription is not None:
                if (mailbox := self._subscribed.get(message.subscription)) is not None:
                    mailbox.put(message)
                continue
            id = message.id
            assert id is not None
            if message.kind in (REPLY, ERROR):
                asking = self._subscribing.pop(id, None)
                if asking is not None and message.kind == REPLY:
                    # Now and not when the reply is read: its events follow in the same bytes.
                    asking.subscription = str(message.value["subscription"])
                    self._subscribed[asking.subscription] = asking
            if (box := self._boxes.get(id)) is not None:
                box.put(message)

    def fail(self, error: HybriddError) -> None:
        """The connection is gone: everything that waits on it ends with `error`."""
        self.deliver(self._session.close(error))
        for mailbox in self._subscribed.values():
            mailbox.put(Message(ERROR, error, subscription=mailbox.subscription))
        self._subscribed.clear()
