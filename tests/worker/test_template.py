"""Forked workers: who their parent is, what they inherit, and who survives whom."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hybridd.worker.channel import Channel
from tests.worker.support import ECHO, PATIENCE_S, echo_file

DRIVER = Path(__file__).parent / "driver.py"


@pytest.fixture(autouse=True)
def no_subreaper() -> None:
    """Orphans are not this process's children, whatever ran in it before."""
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


class Template:
    """A template that this process started, with its control channel."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.process = process
        self.channel = Channel(sock)

    def fork(self) -> tuple[dict[str, Any], Channel, int]:
        """Ask for a worker; its answer, the worker's channel and the reading end of its log."""
        ours, theirs = socket.socketpair()
        reading, writing = os.pipe()
        self.channel.send_with_descriptors({"op": "fork", "n": 1}, [theirs.fileno(), writing])
        theirs.close()
        os.close(writing)
        ours.settimeout(PATIENCE_S)
        reply: dict[str, Any] = self.channel.receive()
        return reply, Channel(ours), reading


@contextmanager
def template(
    *preload: str, daemon: int | None = None, flags: tuple[str, ...] = ()
) -> Iterator[Template]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "hybridd.worker.template", "--fd", str(theirs.fileno())]
    command += ["--daemon", str(daemon or os.getpid()), "--preload", ",".join(preload)]
    with theirs:
        process = subprocess.Popen(
            [*command, "--name", "test", *flags], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
    with process:
        made = Template(process, ours)
        try:
            yield made
        finally:
            process.kill()
            made.channel.close()


def test_ready_then_the_end_of_its_channel() -> None:
    with template("json", "hybridd.backends.echo.engine.generator") as t:
        assert t.channel.receive() == {"op": "ready", "threads": 1}
        assert Path(f"/proc/{t.process.pid}/comm").read_text() == "hybridd-t-test\n"
        t.channel.close()
        assert t.process.wait(PATIENCE_S) == 0


def test_imports_at_low_priority_leave_no_thread_and_no_priority() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with template("json", ECHO.partition(":")[0], flags=("--low-priority",)) as t:
        assert t.channel.receive() == {"op": "ready", "threads": 1}
        assert os.getpriority(os.PRIO_PROCESS, t.process.pid) == own


@pytest.mark.parametrize("flags", [(), ("--low-priority",)])
def test_an_import_that_fails(flags: tuple[str, ...]) -> None:
    with template("json", "hybridd_absent", flags=flags) as t:
        frame = t.channel.receive()
        assert frame["op"] == "failed"
        assert frame["error"]["data"] == {
            "kind": "load_failed",
            "reason": "engine_unavailable",
            "module": "hybridd_absent",
        }
        assert t.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("flags", [(), ("--low-priority",)])
def test_an_import_that_ends_the_process(flags: tuple[str, ...]) -> None:
    with template("tests.worker.exits", flags=flags) as t:
        with pytest.raises(EOFError):
            t.channel.receive()
        assert t.process.wait(PATIENCE_S) == 3


def test_threads_forbid_a_fork() -> None:
    with template("tests.worker.with_thread") as t:
        assert t.channel.receive() == {"op": "ready", "threads": 2}
        reply, channel, reading = t.fork()
        channel.close()
        os.close(reading)
        assert reply == {"op": "refused", "reason": "the template has 2 threads", "n": 1}


def test_a_frame_without_descriptors_is_refused() -> None:
    with template() as t:
        t.channel.receive()
        t.channel.send({"op": "fork", "n": 9})
        assert t.channel.receive()["op"] == "refused"


class Driver:
    """A process that plays the daemon: see `driver`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()


@contextmanager
def driver(*arguments: str) -> Iterator[Driver]:
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Driver(process)
        finally:
            process.kill()


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(PATIENCE_S * 1000), f"{pid} lives on"
    os.close(pidfd)


def test_a_worker_that_its_daemon_does_not_adopt_ends(tmp_path: Path) -> None:
    with driver("stray", str(echo_file(tmp_path)), ECHO) as d:
        assert d.line() == ["the", "channel", "was", "closed"]


def test_a_worker_is_adopted_and_outlives_its_template(tmp_path: Path) -> None:
    with driver("serve", str(echo_file(tmp_path)), ECHO) as d:
        template_pid, worker_pid, parent, session = map(int, d.line())
        assert parent == d.process.pid
        assert session == worker_pid
        title = Path(f"/proc/{worker_pid}/cmdline").read_bytes()
        assert title.rstrip(b"\0") == b"hybridd worker: m (echo)"
        os.kill(template_pid, signal.SIGKILL)
        wait_until_gone(template_pid)
        d.tell("ask")
        assert d.line() == ["0"]
        assert d.line() == ["echoed", "two", "words"]
        d.tell("stop")
        assert d.line() == ["exit", "0"]


@pytest.mark.parametrize("hold", ["close", "hold"])
def test_nobody_outlives_the_daemon(tmp_path: Path, hold: str) -> None:
    """`hold`: another process keeps the channels open, so that only the signal can do it."""
    with driver("serve", str(echo_file(tmp_path, load_s=0)), ECHO, hold) as d:
        template_pid, worker_pid, _parent, _session = map(int, d.line())
        holder = int(d.line()[0])
        d.process.kill()
        wait_until_gone(worker_pid)
        wait_until_gone(template_pid)
        if holder:
            os.kill(holder, signal.SIGKILL)


def test_a_worker_has_its_own_descriptors_only(tmp_path: Path) -> None:
    with driver("serve", str(echo_file(tmp_path)), ECHO) as d:
        _template, worker_pid, _parent, _session = map(int, d.line())
        directory = Path(f"/proc/{worker_pid}/fd")
        targets = {int(fd.name): os.readlink(fd) for fd in directory.iterdir()}
        assert sorted(targets)[:3] == [0, 1, 2]
        assert targets[0] == "/dev/null"
        assert targets[1] == targets[2] == os.readlink("/proc/self/fd/2")
        assert [t.split(":")[0] for fd, t in targets.items() if fd > 2] == ["socket"]
