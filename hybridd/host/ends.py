"""A child's channel and log before it is known who holds them."""

from __future__ import annotations

import os
import socket

from .worker_process import LogPipe


class Ends:
    """Both ends of a channel and of a log. Leaving the `with` closes what nobody took.

    Attributes:
        theirs: The child's end of the channel.
        writing: The child's end of the log.
    """

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        reading, self.writing = os.pipe()
        self._log = LogPipe(reading)
        self._taken = False

    def take(self) -> tuple[socket.socket, LogPipe]:
        """Our ends, which the caller owns from now on."""
        self._taken = True
        return self._ours, self._log

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.theirs.close()
        os.close(self.writing)
        if not self._taken:
            self._ours.close()
            self._log.finish()
