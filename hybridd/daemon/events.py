"""The event stream: anyone may publish, each subscriber reads at its own pace or loses.

Publishing never waits. A subscription holds a bounded number of events; what a slow reader has no
room for is counted, and it is told the count.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

# A burst of a catalog scan with a thousand changes must reach a reader that reads at all.
BACKLOG = 4096


class Subscription:
    """One reader's events; made by `EventHub.subscribe`.

    Args:
        wake: Called, without arguments, when something can be taken.
    """

    def __init__(self, name: str, topics: frozenset[str], wake: Callable[[], None]) -> None:
        self.name = name
        self.topics = topics
        self._wake = wake
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._seq = 0

    def offer(self, event: dict[str, Any]) -> None:
        """Take an event, or count it as lost when the reader is too far behind.

        What follows a loss is lost too until the reader was told, so that it hears of the gap where
        the gap is.
        """
        self._seq += 1
        if self._lost or len(self._waiting) >= BACKLOG:
            self._lost += 1
        else:
            self._waiting.append({"subscription": self.name, "seq": self._seq, **event})
        self._wake()

    def take(self) -> tuple[dict[str, Any] | None, int]:
        """The next event (or None) and how many were lost before it could be taken."""
        if self._waiting:
            return self._waiting.popleft(), 0
        lost, self._lost = self._lost, 0
        return None, lost

    @property
    def waiting(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._waiting or self._lost)


class EventHub:
    """All subscriptions. One per daemon, owned by `app`."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._subscriptions: dict[str, Subscription] = {}
        self._numbers = itertools.count(1)

    def publish(self, topic: str, type: str, **data: Any) -> None:
        """Tell every subscriber of the topic. `data` must be JSON-serialisable."""
        if not self._subscriptions:
            return
        event = {"time": self._clock(), "topic": topic, "type": type, **data}
        for subscription in list(self._subscriptions.values()):
            if topic in subscription.topics:
                subscription.offer(event)

    def subscribe(self, topics: Collection[str], wake: Callable[[], None]) -> Subscription:
        """Begin to collect events of these topics."""
        subscription = Subscription(f"sub-{next(self._numbers)}", frozenset(topics), wake)
        self._subscriptions[subscription.name] = subscription
        return subscription

    def unsubscribe(self, name: str) -> None:
        """Forget a subscription; unknown names are no error."""
        self._subscriptions.pop(name, None)

    def __len__(self) -> int:
        return len(self._subscriptions)
