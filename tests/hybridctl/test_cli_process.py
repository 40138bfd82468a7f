"""`hybridctl` as a process: signals, pipes, a terminal, and what it imports."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CTL = [sys.executable, "-m", "hybridctl"]
WAIT_S = 30.0
ROOT = str(Path(__file__).parents[2])


class Terminal:
    """A process with a terminal, as a person has it."""

    def __init__(self, *arguments: str, stdin: bool = True) -> None:
        ours, theirs = pty.openpty()
        self.shown = ""
        self._fd = ours
        self.process = subprocess.Popen(
            [*CTL, *arguments],
            stdin=theirs if stdin else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(theirs),
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
        )
        os.close(theirs)

    def until(self, text: str) -> str:
        """Read until the terminal shows `text`; return what it showed since the last time."""
        begin = len(self.shown)
        while text not in self.shown[begin:]:
            ready, _, _ = select.select([self._fd], [], [], WAIT_S)
            assert ready, f"{text!r} did not appear, but: {self.shown[begin:]!r}"
            self.shown += os.read(self._fd, 65536).decode()
        return self.shown[begin:]

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self, typing: str = "") -> int:
        """Read to the end; return the exit code.

        Args:
            typing: Typed now, and again after each second of silence. CPython's readline looks
                for signals before it waits, so that a Ctrl-C in between is only seen with the
                next key; people press it twice.
        """
        self.type(typing)
        while True:
            ready, _, _ = select.select([self._fd], [], [], 1.0 if typing else WAIT_S)
            assert ready or typing, f"it does not end: {self.shown!r}"
            if not ready:
                self.type(typing)
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EIO: the other side is closed
                break
            self.shown += data.decode()
        return self.process.wait(WAIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)


def _take_terminal(fd: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal() -> Iterator[Any]:
    opened: list[Terminal] = []

    def start(*arguments: str, **settings: Any) -> Terminal:
        opened.append(Terminal(*arguments, **settings))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def _endless(call: Any) -> None:
    call.delta(0, "Hel")
    call.until_cancelled()


def test_ctrl_c_exits_130_and_cancels(daemon: Any) -> None:
    daemon.handlers["chat"] = _endless
    process = subprocess.Popen(
        [*CTL, "run", "demo", "hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"Hel"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (130, b"")
    assert daemon.cancelled.get(timeout=WAIT_S) == "chat"


def test_ctrl_c_while_loading_leaves_the_load(daemon: Any) -> None:
    daemon.handlers["models.load"] = lambda call: (
        os.kill(process.pid, signal.SIGINT),
        call.until_cancelled(),
    )
    process = subprocess.Popen([*CTL, "load", "demo"], stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (130, b"")
    assert daemon.cancelled.get(timeout=WAIT_S) == "models.load"


def test_a_reader_that_leaves_is_no_error(daemon: Any) -> None:
    many = [{"id": f"m{n}", "format": "gguf"} for n in range(20_000)]
    daemon.handlers["models.list"] = lambda call: {"models": many}
    process = subprocess.Popen([*CTL, "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(WAIT_S) == 141
    process.stderr.close()


def test_a_progress_bar_on_a_terminal_and_none_in_a_pipe(daemon: Any, terminal: Any) -> None:
    window = terminal("load", "demo")
    assert window.end() == 0
    assert "100%" in window.shown
    assert "weights" in window.shown
    assert "loaded hybridd/demo-gguf:F16 in" in window.shown
    piped = subprocess.run([*CTL, "load", "demo"], capture_output=True, text=True, check=True)
    assert piped.stderr == ""
    assert piped.stdout.count("\n") == 1


def test_control_sequences_of_a_model_are_removed_on_a_terminal_only(
    daemon: Any, terminal: Any
) -> None:
    def hostile(call: Any) -> Any:
        call.delta(0, "a\x1b]0;ti")
        call.delta(1, "tle\x07b\n")
        return {"model": "m", "message": {}, "finish_reason": "stop"}

    daemon.handlers["chat"] = hostile
    window = terminal("run", "demo", "hi", stdin=False)
    assert window.end() == 0
    assert "ab\r\n" in window.shown
    assert "title" not in window.shown
    piped = subprocess.run([*CTL, "run", "demo", "hi"], capture_output=True, input=b"", check=True)
    assert piped.stdout == b"a\x1b]0;title\x07b\n"


def test_chat_on_a_terminal(daemon: Any, terminal: Any) -> None:
    """Ctrl-C stops the answer, the conversation goes on; Ctrl-D ends it."""
    works = daemon.handlers["chat"]

    def answer(call: Any) -> Any:
        if call.params["messages"][-1]["content"] != "slow":
            return works(call)
        return _endless(call)

    daemon.handlers["chat"] = answer
    window = terminal("chat", "demo")
    window.until(">>> ")
    window.type("hi\n")
    window.until(">>> ")
    window.type("slow\n")
    window.until("Hel")
    window.type("\x03")
    window.until(">>> ")
    assert daemon.cancelled.get(timeout=WAIT_S) == "chat"
    window.type("again\n")
    window.until(">>> ")
    window.type("\x04")
    assert window.end() == 0
    said = [m["content"] for m in daemon.asked("chat")[2]["messages"]]
    assert said == ["hi", "Hello, wörld", "slow", "Hel", "again"]


def test_ctrl_c_at_the_prompt_ends_the_chat(daemon: Any, terminal: Any) -> None:
    window = terminal("run", "demo")  # without a prompt, on a terminal: a chat
    window.until(">>> ")
    assert window.end(typing="\x03") == 130


def test_reasoning_is_dim_on_a_terminal_and_left_out_of_a_pipe(daemon: Any, terminal: Any) -> None:
    def thinks(call: Any) -> Any:
        call.delta(0, reasoning="hmm")
        call.delta(1, "Yes")
        return {"model": "m", "message": {}, "finish_reason": "stop"}

    daemon.handlers["chat"] = thinks
    window = terminal("run", "demo", "hi", stdin=False)
    assert window.end() == 0
    assert "\x1b[2mhmm\x1b[0m\r\nYes\r\n" in window.shown
    piped = subprocess.run([*CTL, "run", "demo", "hi"], capture_output=True, input=b"", check=True)
    assert piped.stdout == b"Yes\n"


def _modules(*arguments: str) -> set[str]:
    code = (
        "import sys\n"
        "from hybridctl.cli import main\n"
        f"main({list(arguments)!r})\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    # -S: what site's .pth files import is the environment's affair.
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    return set(ran.stderr.split())


def test_ps_imports_nothing_heavy(daemon: Any) -> None:
    modules = _modules("ps")
    heavy = {"trio", "anyio", "asyncio", "rich", "typing", "dataclasses", "importlib.metadata"}
    assert not modules & (heavy | {"shutil", "subprocess", "logging", "inspect"})
    ours = {name for name in modules if name.startswith("hybridd")}
    assert all(name == "hybridd" or name.startswith("hybridd.wire") for name in ours)


def test_version_imports_next_to_nothing() -> None:
    modules = _modules("--version")
    assert not modules & {"argparse", "json", "socket", "re", "enum"}


def test_the_sdk_stands_on_the_wire_alone() -> None:
    code = (
        "import sys, hybridctl\n"
        "assert not {'socket', 'anyio', 'json'} & set(sys.modules)\n"
        "hybridctl.Client, hybridctl.AsyncClient, hybridctl.ModelNotFound, hybridctl.Loaded\n"
        "ours = [m for m in sys.modules if m.startswith('hybridd')]\n"
        "assert all(m == 'hybridd' or m.startswith('hybridd.wire') for m in ours), ours\n"
        "assert not {'trio', 'rich'} & set(sys.modules)\n"
        "for name in hybridctl.__all__: getattr(hybridctl, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": ROOT})
