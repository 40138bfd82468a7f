"""A blocking, framed socket between the daemon and one process that it started.

Newline-delimited JSON as clients speak it, plus descriptors passed along with a frame
(SCM_RIGHTS). Knows nothing of what the frames mean. Sending is safe from several threads;
receiving belongs to one. The maker of a `Channel` owns its socket and closes it.
"""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from hybridd.wire.framing import LineDecoder, decode_line, encode_line

# Four of a client's longest lines: a request is wrapped once, and a reply that holds the tokens
# of a prompt of 16 MiB is a few times as long as the prompt. `host.worker_process` has the same.
MAX_FRAME_BYTES = 64 * 1024 * 1024
# Every byte of such a frame's numbers and commas at two bytes a value: never less than the bytes.
MAX_FRAME_VALUES = MAX_FRAME_BYTES // 2
_RECEIVE_BYTES = 64 * 1024
# A fork request carries two; the kernel's own limit is 253.
_MAX_DESCRIPTORS = 8


class Channel:
    """One end of a stream socket pair.

    Args:
        sock: A connected, blocking stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._decoder = LineDecoder(MAX_FRAME_BYTES)
        self._descriptors: list[int] = []

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """Take over an inherited descriptor, which is closed in the child's own children."""
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(True)
        return cls(sock)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def send(self, *frames: dict[str, Any]) -> None:
        """Send frames, in order and with nothing of another thread between them.

        Raises:
            OSError: The other side is gone.
        """
        data = b"".join(map(encode_line, frames))
        with self._lock:
            self._sock.sendall(data)

    def send_with_descriptors(self, frame: dict[str, Any], descriptors: Sequence[int]) -> None:
        """Send one frame and, with its first byte, open descriptors; the sender keeps its own."""
        data = encode_line(frame)
        rights = array.array("i", descriptors)
        with self._lock:
            sent = self._sock.sendmsg(
                [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
            )
            self._sock.sendall(data[sent:])

    def receive(self) -> Any:
        """Wait for the next frame.

        Raises:
            EOFError: The other side closed its end.
            HybriddError: A frame that is too long or no JSON.
            OSError: The socket failed.
        """
        while (line := self._decoder.next_line()) is None:
            data = self._sock.recv(_RECEIVE_BYTES)
            if not data:
                raise EOFError("the channel was closed")
            self._decoder.feed(data)
        return decode_line(line, MAX_FRAME_VALUES)

    def receive_with_descriptors(self) -> tuple[Any, list[int]]:
        """Wait for the next frame and the descriptors that came with it; the caller closes them.

        Descriptors are given out with the first frame completed after they arrived, so a sender
        has to wait for a reply before it sends the next frame.

        Raises:
            As `receive`; descriptors that arrived are closed then.
        """
        try:
            while (line := self._decoder.next_line()) is None:
                self._receive_message()
            frame = decode_line(line, MAX_FRAME_VALUES)
        except BaseException:
            close_all(self._descriptors)
            self._descriptors = []
            raise
        descriptors, self._descriptors = self._descriptors, []
        return frame, descriptors

    def _receive_message(self) -> None:
        size = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _flags, _address = self._sock.recvmsg(
            _RECEIVE_BYTES, size, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors.extend(received)
        if not data:
            raise EOFError("the channel was closed")
        self._decoder.feed(data)

    def close(self) -> None:
        """Close the socket; a thread that waits in `receive` is not woken by this."""
        self._sock.close()


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors, those that are closed already too."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            continue
