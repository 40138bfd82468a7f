"""A child's channel and log before it is known who holds them."""

from __future__ import annotations

import os
import socket

from .child_log import LogPipe


class Ends:
    """Both ends of a channel and of a log. Leaving the `with` closes what nobody took.

    Args:
        name: Whose they are, as the daemon's log is to call it.

    Attributes:
        theirs: The child's end of the channel.
        writing: The child's end of the log.
        ours: The daemon's end of the channel.
        log: What reads the log.
        taken: Whether `ours` and `log` belong to somebody else by now, who sets it.
    """

    def __init__(self, name: str) -> None:
        self.ours, self.theirs = socket.socketpair()
        reading, self.writing = os.pipe()
        self.log = LogPipe(reading, name)
        self.taken = False

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.theirs.close()
        os.close(self.writing)
        if not self.taken:
            self.ours.close()
            self.log.finish()
