"""What children write: cut, kept, and in the daemon's log at its level."""

from __future__ import annotations

import logging
import os

import pytest
import trio

from hybridd.processes.child_log import LogPipe, LogTail, Relay
from hybridd.wire.levels import LevelFormatter


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hybridd.worker")


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and text of each line, and forget them."""
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_lines_are_bounded() -> None:
    tail = LogTail()
    for n in range(300):
        assert [line.text for line in tail.feed(b"line %d\n" % n)] == [f"line {n}"]
    assert tail.last(500) == [f"line {n}" for n in range(100, 300)]
    assert tail.last(2) == ["line 298", "line 299"]
    assert [len(line.text) for line in tail.feed(b"x" * 1_000_000)] == [500]
    assert tail.feed(b"x" * 1_000_000) == []
    assert [line.text for line in tail.feed(b"yyy\nshort\npart")] == ["short"]
    assert [len(line) for line in tail.last(3)] == [500, 5, 4]
    tail.feed(b"ial \xff\x1b[0m\n\n")
    assert tail.last(1) == ["partial \ufffd\ufffd[0m"]
    assert tail.end() == []


def test_a_line_says_its_level() -> None:
    tail = LogTail()
    lines = tail.feed(b"<0>a\n<3>b\n<4>c\n<5>d\n<6>e\n<7>f\n<8>g\nh\n<4>\n")
    assert [(logging.getLevelName(line.level), line.text) for line in lines] == [
        ("CRITICAL", "a"), ("ERROR", "b"), ("WARNING", "c"), ("INFO", "d"), ("INFO", "e"),
        ("DEBUG", "f"), ("INFO", "<8>g"), ("INFO", "h"),
    ]  # fmt: skip
    tail.feed(b"<4>unfin")
    assert tail.last(2) == ["h", "unfin"]
    assert [(line.level, line.text) for line in tail.end()] == [(logging.WARNING, "unfin")]


def test_what_is_written_by_level_is_read_by_it() -> None:
    record = logging.makeLogRecord({"msg": "one\ntwo", "levelno": logging.ERROR})
    written = LevelFormatter().format(record) + "\n"
    lines = LogTail().feed(written.encode())
    assert [(line.level, line.text) for line in lines] == [(40, "one"), (40, "two")]


def test_lines_are_logged_under_their_name(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    pipe = LogPipe(reading, "acme/parrot")
    os.write(writing, b"<4>careful\n<7>details\nplain 100%\n<3>no end")
    os.close(writing)
    pipe.say("a frame is bad")
    pipe.finish()
    assert caplog.records[0].__dict__["model"] == "acme/parrot"
    assert logged(caplog) == [
        ("ERROR", "acme/parrot: hybridd: a frame is bad"),
        ("WARNING", "acme/parrot: careful"),
        ("INFO", "acme/parrot: plain 100%"),
        ("ERROR", "acme/parrot: no end"),
    ]
    assert pipe.tail.last(3) == ["details", "plain 100%", "no end"]


def test_a_flood_is_left_out_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    tail, clock = LogTail(), Clock()
    relay = Relay("m", clock)
    relay(tail.feed(b"<7>not logged at this level\n" * 5000))
    relay(tail.feed(b"x\n" * 1000))
    assert logged(caplog) == [("INFO", "m: x")] * 400
    clock.now += 9.9  # 49 lines' worth: one would be followed by the next gap
    relay(tail.feed(b"x\n"))
    assert logged(caplog) == []
    clock.now += 0.1
    relay(tail.feed(b"y\n" * 2))
    assert logged(caplog) == [
        ("WARNING", "m: lines left out: 601"), ("INFO", "m: y"), ("INFO", "m: y"),
    ]  # fmt: skip
    relay(tail.feed(b"z\n" * 49))
    assert logged(caplog) == [("INFO", "m: z")] * 48
    relay.end()
    relay.end()
    assert logged(caplog) == [("WARNING", "m: lines left out: 1")]
    clock.now += 10_000
    relay(tail.feed(b"x\n" * 500))
    assert len(logged(caplog)) == 400


async def test_others_have_their_turns_in_a_flood() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x\n" * 32 * 1024)  # all that a pipe holds
    os.close(writing)
    pipe, turns, over = LogPipe(reading, "m"), 0, trio.Event()

    async def read() -> None:
        await pipe.run()
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        while not over.is_set():
            turns += 1
            await trio.lowlevel.checkpoint()
    pipe.finish()
    assert turns >= 8
