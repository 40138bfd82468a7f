"""ProcessHost with real processes and the echo engine."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.processes import procfs
from hybridd.processes.host import ExitStatus, ProcessHost, TemplatePolicy, WorkerProcess
from hybridd.processes.reaper import OomCounter
from hybridd.wire.errors import LoadFailed

ECHO = SimpleNamespace(
    name="echo",
    extra=None,
    engine_factory="hybridd.backends.echo.engine.generator:EchoEngine",
    preload=(),
)
ABSENT = SimpleNamespace(
    name="absent", extra="gguf", engine_factory="hybridd_absent:Engine", preload=("json",)
)
# Longer than anything here takes on a loaded machine: a test that needs it has failed.
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def no_subreaper_afterwards() -> Iterator[None]:
    """Other tests' orphans are not this process's children."""
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


@asynccontextmanager
async def running(
    templates: TemplatePolicy = "auto", keepalive_s: float = 300.0
) -> AsyncIterator[ProcessHost]:
    host = ProcessHost(templates, keepalive_s)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            yield host
            nursery.cancel_scope.cancel()


async def load(worker: WorkerProcess, directory: Path, **file: Any) -> dict[str, Any]:
    """Load an echo model; returns `ready` or `failed`."""
    path = directory / f"{worker.pid}.echo"
    path.write_text(json.dumps(file))
    spec = {
        "model": "m",
        "format": "echo",
        "path": str(path),
        "load_options": {},
        "defaults": {},
    }
    await worker.send({"op": "load", "spec": spec, "factory": ECHO.engine_factory})
    return await until(worker, "ready", "failed")


async def until(worker: WorkerProcess, *ops: str) -> dict[str, Any]:
    while (frame := await worker.receive())["op"] not in ops:
        pass
    return frame


async def echo(worker: WorkerProcess, prompt: str) -> str:
    request = {"id": 1, "kind": "generate", "prompt": prompt}
    await worker.send({"op": "start", "request": request})
    text = ""
    while (frame := await worker.receive())["op"] == "deltas":
        text += "".join(item["text"] for item in frame["items"])
    return text


# ---------------------------------------------------------------- a worker's life


@pytest.mark.parametrize("templates", ["auto", "always", "never"])
async def test_from_start_to_stop(tmp_path: Path, templates: TemplatePolicy) -> None:
    async with running(templates) as host:
        worker = await host.start_worker(ECHO, "m")
        assert await worker.receive() == {"op": "hello", "pid": worker.pid}
        assert (await load(worker, tmp_path))["op"] == "ready"
        assert await echo(worker, "two words") == "two words"
        assert worker.started == procfs.started(worker.pid)
        assert worker.memory()["private_bytes"] > 1024 * 1024
        ticks, read = worker.work_done()
        assert ticks >= 0
        assert read > 0, "the model's file at least"
        assert len(host.template_pids()) == (0 if templates == "never" else 1)
        await worker.send({"op": "stop"})
        assert await worker.wait() == ExitStatus(exit_code=0)
        with pytest.raises(EOFError):
            await until(worker, "nothing")
        with pytest.raises(trio.BrokenResourceError):
            await worker.send({"op": "ping"})
        worker.kill()
        assert worker.memory() == {"private_bytes": 0, "file_bytes": 0}


@pytest.mark.parametrize("templates", ["auto", "never"])
async def test_signals_are_told(tmp_path: Path, templates: TemplatePolicy) -> None:
    async with running(templates) as host:
        for sent in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
            worker = await host.start_worker(ECHO, "m")
            await worker.receive()
            worker.kill(sent)
            assert await worker.wait() == ExitStatus(signal=sent)


async def test_a_crash_ends_the_channel_and_leaves_its_log(tmp_path: Path) -> None:
    async with running() as host:
        worker = await host.start_worker(ECHO, "m")
        await load(worker, tmp_path, crash_on="generate", crash_signal="ABRT")
        with pytest.raises(EOFError):
            await echo(worker, "x")
        assert await worker.wait() == ExitStatus(signal=signal.SIGABRT)
        assert worker.log_tail(200)[0] == "echo: crashes at generate, as its file says"
        assert any("Aborted" in line for line in worker.log_tail(200))
        assert worker.log_tail(0) == []


async def test_what_was_sent_before_the_end_can_still_be_received(tmp_path: Path) -> None:
    async with running() as host:
        worker = await host.start_worker(ECHO, "m")
        await worker.send({"op": "ping", "n": 1})
        await worker.send({"op": "stop"})
        await worker.wait()
        assert (await worker.receive())["op"] == "hello"
        assert await worker.receive() == {"op": "pong", "n": 1}
        with pytest.raises(EOFError):
            await worker.receive()


async def test_a_cancelled_receive_loses_nothing(tmp_path: Path) -> None:
    async with running() as host:
        worker = await host.start_worker(ECHO, "m")
        await worker.receive()
        for n in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await worker.receive()
            await worker.send({"op": "ping", "n": n})
        assert [(await worker.receive())["n"] for _ in range(50)] == list(range(50))


async def test_a_stopped_worker_holds_up_its_sender_and_nobody_else() -> None:
    async with running() as host:
        worker, other = await host.start_worker(ECHO, "m"), await host.start_worker(ECHO, "m")
        await worker.receive()
        worker.kill(signal.SIGSTOP)
        big = {"op": "ping", "n": "x" * (16 * 1024 * 1024)}
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    for _ in range(4):
                        await worker.send(big)
                    raise AssertionError("nothing holds it up")

                nursery.start_soon(flood)
                assert (await other.receive())["op"] == "hello"
                await other.send({"op": "ping", "n": 1})
                assert await other.receive() == {"op": "pong", "n": 1}
                assert worker.stopped()
                scope.cancel()
        worker.kill(signal.SIGCONT)
        assert (await worker.receive())["n"] == big["n"]


async def test_a_worker_that_talks_nonsense_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "hybridd_rude.py"
    module.write_text(
        "import os, sys\n"
        "def Engine():\n"
        "    os.write(int(sys.argv[sys.argv.index('--fd') + 1]), b'{nonsense\\n')\n"
        "    import time; time.sleep(3600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with running("never") as host:
        worker = await host.start_worker(ECHO, "m")
        spec = {"model": "m", "format": "x", "path": "", "load_options": {}}
        await worker.send({"op": "load", "spec": spec, "factory": "hybridd_rude:Engine"})
        with pytest.raises(EOFError):
            await until(worker, "ready", "failed")
        assert await worker.wait() == ExitStatus(signal=signal.SIGKILL)
        assert "a frame of the worker is bad" in worker.log_tail(1)[0]


async def test_the_host_ends_and_everybody_with_it(tmp_path: Path) -> None:
    async with running() as host:
        workers = [await host.start_worker(ECHO, "m") for _ in range(3)]
        await load(workers[0], tmp_path, hang_on="generate")
        templates = list(host.template_pids().values())
    for worker in workers:
        assert worker.status == ExitStatus(signal=signal.SIGKILL)
    assert [procfs.started(pid) for pid in templates] == [None]


# ---------------------------------------------------------------- templates


async def test_two_starts_share_one_template() -> None:
    async with running() as host:
        workers: list[WorkerProcess] = []

        async def start() -> None:
            workers.append(await host.start_worker(ECHO, "m"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(start)
        assert len({worker.pid for worker in workers}) == 5
        assert len(host.template_pids()) == 1
        assert len(procfs.children()) == 6


async def test_a_dead_template_is_replaced_and_its_worker_lives_on(tmp_path: Path) -> None:
    async with running() as host:
        first = await host.start_worker(ECHO, "m")
        await load(first, tmp_path)
        old = host.template_pids()["echo"]
        os.kill(old, signal.SIGKILL)
        second = await host.start_worker(ECHO, "m")
        assert host.template_pids()["echo"] != old
        assert await echo(first, "still here") == "still here"
        assert (await second.receive())["op"] == "hello"


async def test_a_stopped_template_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridd.processes.template_process._FORK_TIMEOUT_S", 0.05)

    async with running() as host:
        await host.templates.warm(ECHO)
        os.kill(host.template_pids()["echo"], signal.SIGSTOP)
        monkeypatch.setattr("hybridd.processes.template_process._FORK_TIMEOUT_S", 0.2)
        worker = await host.start_worker(ECHO, "m")
        assert (await worker.receive())["op"] == "hello"


async def test_it_leaves_when_it_has_been_idle_and_comes_again(tmp_path: Path) -> None:
    async with running(keepalive_s=0) as host:
        worker = await host.start_worker(ECHO, "m")
        await load(worker, tmp_path)
        while host.template_pids():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await echo(worker, "alone") == "alone"
        again = await host.start_worker(ECHO, "m")
        assert (await again.receive())["op"] == "hello"


async def test_settings_are_followed_at_once() -> None:
    async with running("always", keepalive_s=0) as host:
        await host.templates.warm(ECHO)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(host.template_pids()) == 1
        assert host.template_memory()["echo"]["private_bytes"] > 1024 * 1024
        host.templates.configure("never", 0)
        while host.template_pids():
            await trio.testing.wait_all_tasks_blocked(0.01)
        await host.templates.warm(ECHO)
        assert not host.template_pids()


async def test_a_missing_module_says_what_to_install() -> None:
    async with running() as host:
        for _ in range(2):
            with pytest.raises(LoadFailed) as caught:
                await host.start_worker(ABSENT, "m")
            assert caught.value.data["reason"] == "engine_unavailable"
            assert caught.value.data["module"] == "hybridd_absent"
            assert "pip install 'hybridd[gguf]'" in caught.value.message


async def test_a_template_that_dies_while_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hybridd_deadly.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    deadly = SimpleNamespace(**{**vars(ECHO), "preload": ("hybridd_deadly",)})
    async with running() as host:
        with pytest.raises(LoadFailed, match="ended while it imported"):
            await host.start_worker(deadly, "m")


@pytest.mark.parametrize("templates", ["auto", "never"])
async def test_a_worker_that_cannot_be_watched_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, templates: TemplatePolicy
) -> None:
    async with running(templates) as host:
        await host.templates.warm(ECHO)
        before = len(os.listdir("/proc/self/fd"))

        def none_left(pid: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pidfd_open", none_left)
            with pytest.raises(LoadFailed, match="no process could be started"):
                await host.start_worker(ECHO, "m")
        assert len(os.listdir("/proc/self/fd")) == before
        # The process finds its channel closed.
        while set(procfs.children()) - set(host.template_pids().values()):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert (await (await host.start_worker(ECHO, "m")).receive())["op"] == "hello"


async def test_a_start_that_nobody_waits_for_leaves_nothing() -> None:
    async with running() as host:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(host.start_worker, ECHO, "m")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        worker = await host.start_worker(ECHO, "m")
        assert (await worker.receive())["op"] == "hello"
        assert set(procfs.children()) == {worker.pid, *host.template_pids().values()}


# ---------------------------------------------------------------- reaping


async def test_orphans_of_workers_are_reaped_and_other_children_are_not() -> None:
    async with running():
        # An orphan as a worker might leave one: of another session, its parent gone.
        made = await trio.run_process(["sh", "-c", "setsid sleep 0 & echo $!"], capture_stdout=True)
        while procfs.started(int(made.stdout)) is not None:
            await trio.testing.wait_all_tasks_blocked(0.01)
        # Children of trio and of subprocess keep their exit codes.
        done = await trio.run_process(["sh", "-c", "exit 3"], check=False)
        assert done.returncode == 3
        child = subprocess.Popen(["sh", "-c", "exit 4"])  # noqa: ASYNC220 - it is the subject
        while not procfs.is_zombie(child.pid):
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert child.wait() == 4


@pytest.mark.parametrize("templates", ["auto", "never"])
async def test_children_get_no_descriptor_and_no_word_of_the_service_manager(
    monkeypatch: pytest.MonkeyPatch, templates: TemplatePolicy
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    ends = os.pipe()
    os.set_inheritable(ends[0], True)
    try:
        async with running(templates) as host:
            worker = await host.start_worker(ECHO, "m")
            await worker.receive()
            for pid in (worker.pid, *host.template_pids().values()):
                assert len(os.listdir(f"/proc/{pid}/fd")) == 4
                environment = await trio.Path(f"/proc/{pid}/environ").read_bytes()
                assert b"NOTIFY_SOCKET" not in environment
                assert b"GGML_NO_BACKTRACE=1" in environment
    finally:
        os.close(ends[0])
        os.close(ends[1])


@pytest.mark.parametrize("oom", [False, True])
async def test_a_kill_is_lack_of_memory_only_with_a_record(
    monkeypatch: pytest.MonkeyPatch, oom: bool
) -> None:
    async with running() as host:
        worker, ours = await host.start_worker(ECHO, "m"), await host.start_worker(ECHO, "m")
        await worker.receive()
        if oom:
            monkeypatch.setattr(host._oom, "take", lambda: True)
        os.kill(worker.pid, signal.SIGKILL)
        assert await worker.wait() == ExitStatus(signal=signal.SIGKILL, oom=oom)
        ours.kill()
        assert await ours.wait() == ExitStatus(signal=signal.SIGKILL)


def test_each_record_of_a_kill_counts_once(tmp_path: Path) -> None:
    counter = OomCounter()
    counter._path = tmp_path / "memory.events"
    counter._seen = 0
    assert not counter.take()
    counter._path.write_text("low 0\noom 9\noom_kill 2\noom_group_kill 0\n")
    assert [counter.take() for _ in range(3)] == [True, True, False]
