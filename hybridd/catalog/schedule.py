"""When to look at the disk again, and where.

Hints ask for a look at what was touched; the kernel drops some in a burst, so that a look at
everything follows the last of them, and every few minutes comes one in any case. However many hints
come, looking takes a bounded share of the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

import trio

# However many hints come, a look is followed by so many times its length of rest, up to a bound:
# a change right after the first scan must not wait for minutes.
_REST_PER_LOOK = 2.0
MAX_REST_S = 1.0
# This long after the last hint everything is looked at, for what hints were lost.
TRAILING_S = 2.0
# How often everything is looked at where inotify has no room, and how many times longer than such
# a look takes that is at least.
POLL_S = 5.0
_POLLS_APART = 20.0
# How often the roots themselves are looked at: mounting makes no event.
ROOTS_S = 10.0


class Schedule:
    """Collects the reasons for the next look.

    Args:
        reconcile_s: How often to look at everything without any hint.
        polling: Whether hints cannot be relied on.
        urgent: Whether a client waits for a look.
        roots_changed: Whether a root is another directory than it was.
    """

    def __init__(
        self,
        reconcile_s: float,
        polling: Callable[[], bool],
        urgent: Callable[[], bool],
        roots_changed: Callable[[], Awaitable[bool]],
    ) -> None:
        self.reconcile_s = reconcile_s
        self._polling = polling
        self._urgent = urgent
        self._roots_changed = roots_changed
        self._wake = trio.Event()
        self._touched: frozenset[str] | None = None  # since the last look; None: anywhere
        self._trailing = inf
        self._due = inf
        self._began = 0.0
        self._everywhere_at = -inf  # when the last look at everything began
        self._everywhere_s = 0.0  # how long it took

    def hint(self, touched: frozenset[str] | None) -> None:
        """Something changed: look there soon, and everywhere a little later."""
        self._trailing = trio.current_time() + TRAILING_S
        if touched is None or self._touched is None:
            self._touched = None
        else:
            self._touched |= touched
        self._wake.set()

    def wake(self) -> None:
        """Look soon, for another reason than a change of the disk."""
        self._wake.set()

    def begin(self, *, everywhere: bool) -> frozenset[str] | None:
        """A look begins; returns where it has to look, None for everywhere."""
        touched = None if everywhere else self._touched
        self._wake, self._touched, self._began = trio.Event(), frozenset(), trio.current_time()
        if touched is None:
            self._everywhere_at = self._began
        return touched

    def end(self, due_s: float | None) -> None:
        """The look is over; in `due_s` seconds files may have come to rest."""
        now = trio.current_time()
        self._due = inf if due_s is None else now + due_s
        if self._everywhere_at == self._began:
            self._everywhere_s = now - self._began

    async def rest(self) -> None:
        """Wait for a reason to look again, and a while in any case unless a client asks."""
        now = trio.current_time()
        earliest = now + min(MAX_REST_S, (now - self._began) * _REST_PER_LOOK)
        period = self.reconcile_s
        if self._polling():
            period = min(period, max(POLL_S, self._everywhere_s * _POLLS_APART))
        while not self._wake.is_set():
            everywhere = min(self._trailing, self._everywhere_at + period)
            until = min(self._due, max(earliest, everywhere))
            with trio.move_on_at(min(until, trio.current_time() + ROOTS_S)):
                await self._wake.wait()
            if trio.current_time() >= until:
                break
            if not self._wake.is_set() and await self._roots_changed():
                self._touched = None
                break
        while (left := min(self._due, earliest) - trio.current_time()) > 0 and not self._urgent():
            # Hints came too fast: they are answered together.
            self._wake = trio.Event()
            with trio.move_on_after(left):
                await self._wake.wait()
        now = trio.current_time()
        if now >= min(self._trailing, self._everywhere_at + period):
            self._trailing, self._touched = inf, None
