"""What a child process writes: its last lines, and all of them in the daemon's log.

A line may begin with its level as sd-daemon(3) has it: `<4>text`. The worker's own logging and
what listens to llama.cpp write so; anything else, such as a native library's print, counts as
information. A child is not trusted: its lines are cut to a bearable length, hold nothing that would
move a cursor, and are left out where there are too many.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import trio

from hybridd.wire.levels import parsed

_LOG = logging.getLogger("hybridd.worker")
# A line may be one byte: what one read brings is dealt with in some milliseconds, whatever it is.
_READ_BYTES = 8 * 1024
# llama.cpp's report of a load has some 150 lines; the last ones hold the reason of a failure.
_LINES = 200
_LINE_CHARS = 500
# A pipe holds 64 KiB; who goes on writing into it after the end is not listened to for ever.
_READS_AT_END = 16
# Two loads' reports at once, with the level at debug; then as much as can still be read.
_BURST_LINES = 400
_LINES_PER_S = 5.0
# After a flood it is quiet until there is room for so many, so that one notice tells of it all.
_RESUME_LINES = 50


def clean(text: str, length: int = _LINE_CHARS) -> str:
    """A line that may be shown and logged: printable, and not too long."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text[:length])


class Line(NamedTuple):
    """What was written, with its level as Python's logging has it."""

    level: int
    text: str


def _parsed(line: bytes) -> Line:
    level, text = parsed(line.decode("utf-8", "replace").rstrip())
    return Line(level, clean(text))


class LogTail:
    """The last lines that a process wrote, each cut to a bearable length."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._partial = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[Line]:
        """Add what was read, and return the lines that ended; of a long one the rest is dropped."""
        *whole, rest = (self._partial + data).split(b"\n")
        if len(whole) > 0 and self._skipping:
            del whole[0]
            self._skipping = False
        if len(rest) > 4 * _LINE_CHARS:
            if not self._skipping:
                whole.append(rest)
            rest, self._skipping = b"", True
        self._partial = rest
        return self._keep(whole)

    def last(self, count: int) -> list[str]:
        """Up to `count` lines, the newest last, an unfinished one included."""
        lines = list(self._lines)
        if self._partial.strip() and not self._skipping:
            lines.append(_parsed(self._partial).text)
        return lines[-count:] if count > 0 else []

    def end(self) -> list[Line]:
        """Take an unfinished line as a whole one: nothing more comes."""
        line, self._partial = self._partial, b""
        return self._keep([] if self._skipping else [line])

    def _keep(self, lines: Iterable[bytes]) -> list[Line]:
        kept = [line for line in map(_parsed, filter(bytes.strip, lines)) if line.text.strip()]
        self._lines.extend(line.text for line in kept)
        return kept


class Relay:
    """Passes one process's lines on to the daemon's log, as many as can be borne.

    Args:
        name: Whose they are: a model's id, or a template.
        clock: Seconds; never goes back.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._room = float(_BURST_LINES)
        self._filled = clock()
        self._left_out = 0

    def __call__(self, lines: Iterable[Line]) -> None:
        """Log lines, or count them among those that are left out."""
        for level, text in lines:
            self._take(level, text)

    def _take(self, level: int, text: str) -> None:
        if not _LOG.isEnabledFor(level):
            return
        now = self._clock()
        self._room = min(_BURST_LINES, self._room + (now - self._filled) * _LINES_PER_S)
        self._filled = now
        if self._room < (_RESUME_LINES if self._left_out else 1):
            self._left_out += 1
            return
        self.end()
        self._room -= 1
        self._log(level, text)

    def end(self) -> None:
        """Say how many lines were left out, if any were."""
        if self._left_out:
            self._log(logging.WARNING, f"lines left out: {self._left_out}")
            self._left_out = 0

    def _log(self, level: int, text: str) -> None:
        _LOG.log(level, "%s: %s", self._name, text, extra={"model": self._name})


class LogPipe:
    """Reads a process's standard output and error until it is told to finish.

    Args:
        fd: The reading end of a pipe, owned from now on.
        name: Whose it is, as the daemon's log is to call it.

    Attributes:
        tail: What it read last.
    """

    def __init__(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.tail = LogTail()
        self._relay = Relay(name)

    async def run(self) -> None:
        """Read as it comes, until every writer has closed."""
        while self._fd >= 0:
            await trio.lowlevel.wait_readable(self._fd)
            if not self._read():
                return

    def say(self, text: str) -> None:
        """Add a line of the daemon's own, as an error."""
        self._take(f"<3>hybridd: {text}\n".encode())

    def finish(self) -> None:
        """Read what lies there now, and close: a process's own children may keep it open."""
        if self._fd < 0:
            return
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS_AT_END):
                if not self._read():
                    break
        os.close(self._fd)
        self._fd = -1
        self._relay(self.tail.end())
        self._relay.end()

    def _read(self) -> bool:
        data = os.read(self._fd, _READ_BYTES)
        self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        self._relay(self.tail.feed(data))
