"""What systemd is told: ready, status, reloading, stopping, and that we are alive.

Outside of systemd (no NOTIFY_SOCKET) every call does nothing.
"""

from __future__ import annotations

import os
import time

import sdnotify


class Notifier:
    """sd_notify(3). Synchronous: one datagram to a local socket."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._out = sdnotify.SystemdNotifier()
        self._status = ""
        micro = environment.get("WATCHDOG_USEC", "")
        pid = environment.get("WATCHDOG_PID", str(os.getpid()))
        self.watchdog_s = int(micro) / 1e6 if micro.isdigit() and pid == str(os.getpid()) else None

    def ready(self, status: str) -> None:
        """Requests are answered from now on (also: the reload is done)."""
        self._status = status
        self._out.notify(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent only when it changed."""
        if text != self._status:
            self._status = text
            self._out.notify(f"STATUS={text}")

    def reloading(self) -> None:
        """SIGHUP came; systemd wants the time to match it with its own request."""
        self._out.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon is ending."""
        self._out.notify("STOPPING=1\nSTATUS=stopping")

    def alive(self) -> None:
        """The watchdog's sign of life."""
        self._out.notify("WATCHDOG=1")

    def close(self) -> None:
        """Close the datagram socket."""
        if self._out.socket is not None:
            self._out.socket.close()
