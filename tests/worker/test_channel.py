"""Framed sockets between real descriptors."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from hybridd.processes import worker_process
from hybridd.wire.errors import LineTooLong, ParseError
from hybridd.worker import channel as module
from hybridd.worker.channel import Channel

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    made = Channel(a), Channel(b)
    yield made
    for end in made:
        end.close()


def test_frames_arrive_whole_and_in_order(pair: Pair) -> None:
    a, b = pair
    a.send({"n": 1}, {"n": 2, "text": "é\n"})
    a.send({"n": 3})
    assert [b.receive() for _ in range(3)] == [{"n": 1}, {"n": 2, "text": "é\n"}, {"n": 3}]


def test_a_frame_larger_than_the_sockets_buffer(pair: Pair) -> None:
    a, b = pair
    big = {"text": "x" * 3_000_000}
    thread = threading.Thread(target=a.send, args=(big,))
    thread.start()
    assert b.receive() == big
    thread.join()


def test_frames_of_several_threads_do_not_mix(pair: Pair) -> None:
    a, b = pair
    threads = [
        threading.Thread(target=lambda n=n: [a.send({"n": n, "x": "y" * 5000}) for _ in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    seen = [b.receive()["n"] for _ in range(200)]
    for thread in threads:
        thread.join()
    assert sorted(seen) == sorted([0, 1, 2, 3] * 50)


def test_the_end(pair: Pair) -> None:
    a, b = pair
    a.send({"last": True})
    a.close()
    assert b.receive() == {"last": True}
    with pytest.raises(EOFError):
        b.receive()
    with pytest.raises(BrokenPipeError):
        b.send({})


def test_what_is_no_frame() -> None:
    a, b = socket.socketpair()
    with a, b:
        a.sendall(b"{nonsense}\n")
        with pytest.raises(ParseError):
            Channel(b).receive()


def test_a_frame_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME_BYTES", 100)
    a, b = socket.socketpair()
    with a, b:
        a.sendall(b"x" * 200)
        with pytest.raises(LineTooLong):
            Channel(b).receive()


def test_both_sides_have_the_same_limits() -> None:
    assert module.MAX_FRAME_BYTES == worker_process.MAX_FRAME_BYTES
    assert module.MAX_FRAME_VALUES == worker_process.MAX_FRAME_VALUES


def test_descriptors_come_with_their_frame(pair: Pair) -> None:
    a, b = pair
    reading, writing = os.pipe()
    a.send_with_descriptors({"op": "fork"}, [writing])
    os.close(writing)
    frame, descriptors = b.receive_with_descriptors()
    assert frame == {"op": "fork"}
    assert len(descriptors) == 1
    assert not os.get_inheritable(descriptors[0])
    os.write(descriptors[0], b"through")
    module.close_all(descriptors)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"through"  # and no other writer is left
    a.send({"op": "next"})
    assert b.receive_with_descriptors() == ({"op": "next"}, [])


def test_descriptors_of_a_bad_frame_are_closed() -> None:
    a, b = socket.socketpair()
    reading, writing = os.pipe()
    with a, b:
        socket.send_fds(a, [b"nonsense\n"], [writing])
        os.close(writing)
        with pytest.raises(ParseError):
            Channel(b).receive_with_descriptors()
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""
