"""Who has a file open for writing."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridd.catalog import writers
from hybridd.catalog.writers import Writers

# Holds a lease while another thread opens the file for writing, and ends well.
_BROKEN = """
import fcntl, os, sys, threading
from hybridd.catalog.writers import leased
path = sys.argv[1]
descriptor = os.open(path, os.O_RDONLY)
with leased(descriptor):
    writer = threading.Thread(target=lambda: open(path, "r+b").close())
    writer.start()
    # The lease is asked back as soon as the kernel makes a program wait for it.
    while fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_UNLCK:
        pass
    assert writer.is_alive()
writer.join()
print("alive")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "x.gguf"
    made.write_bytes(b"GGUF" * 100)
    return made


@pytest.fixture(params=["lease", "no lease", "remote"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the kernel's leases, and on file systems that have none or only a server's."""
    kind = str(request.param)
    if kind == "no lease":
        real = fcntl.fcntl

        def refuse(descriptor: int, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETLEASE:
                raise OSError(errno.EINVAL, "no leases here")
            return real(descriptor, command, argument)

        monkeypatch.setattr(fcntl, "fcntl", refuse)
    elif kind == "remote":
        monkeypatch.setattr(writers, "_remote", lambda _: True)
    return kind


@pytest.mark.parametrize("mode", ["ab", "r+b", "wb"])
def test_open_and_closed(path: Path, leases: str, mode: str) -> None:
    assert not Writers().has(path)
    with path.open(mode):
        assert Writers().has(path)
    assert not Writers().has(path)


def test_readers_do_not_count(path: Path, leases: str) -> None:
    with path.open("rb"):
        assert not Writers().has(path)


def test_through_a_symlink(path: Path, leases: str) -> None:
    link = path.with_name("link.gguf")
    link.symlink_to(path)
    with path.open("r+b"):
        assert Writers().has(link)
    assert not Writers().has(link)


def test_another_process(path: Path, leases: str) -> None:
    code = "import sys; file = open(sys.argv[1], 'r+b'); print(flush=True); input()"
    command = [sys.executable, "-c", code, os.fspath(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Writers().has(path)
        process.communicate("\n")
    assert not Writers().has(path)


def test_a_writable_mapping_outlives_its_descriptor(path: Path) -> None:
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    assert Writers().has(path)
    mapping.close()
    assert not Writers().has(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink(path, path),
        lambda path: os.symlink("/dev/null", path),
    ],
)
def test_what_is_no_regular_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x")
    assert not Writers().has(tmp_path / "x")


def test_a_writer_that_comes_meanwhile_waits_and_ends_no_process(path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _BROKEN, os.fspath(path)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


def test_nothing_stays_open(path: Path, leases: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Writers().has(path)
        with path.open("ab"):
            Writers().has(path)
    assert len(os.listdir("/proc/self/fd")) == before
