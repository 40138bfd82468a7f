"""Templates of single models: what their workers find there, how long they stay, what if not."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.processes import procfs
from hybridd.processes.host import ExitStatus, Preparation, ProcessHost, WorkerProcess
from tests.processes.prepared import KEPT_BYTES
from tests.processes.priority import LINGERS
from tests.processes.test_host import PATIENCE_S, until

KEEPING = SimpleNamespace(
    name="echo",
    extra=None,
    engine_factory="tests.processes.prepared:KeepingEngine",
    preload=(),
)


LOW = SimpleNamespace(
    name="echo",
    extra=None,
    engine_factory="tests.processes.priority:PriorityEngine",
    preload=(),
)


def of(model: str, how: str = "keep", state: str = "1") -> Preparation:
    return Preparation(model, f"tests.processes.prepared:{how}", f"/models/{model}.echo", state)


@asynccontextmanager
async def running(most_spare: int = 4, **settings: Any) -> AsyncIterator[ProcessHost]:
    host = ProcessHost(most_spare_templates=most_spare, **settings)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            yield host
            nursery.cancel_scope.cancel()


async def found(
    worker: WorkerProcess, tmp_path: Path, factory: str = KEEPING.engine_factory
) -> str:
    """What the worker's engine calls itself: what it found kept."""
    path = tmp_path / f"{worker.pid}.echo"
    path.write_text("{}")
    spec = {"model": "m", "format": "echo", "path": str(path), "load_options": {}, "defaults": {}}
    await worker.send({"op": "load", "spec": spec, "factory": factory})
    engine: str = (await until(worker, "ready"))["facts"]["engine"]
    return engine


async def started(host: ProcessHost, model: str, how: str = "keep") -> WorkerProcess:
    return await host.start_worker(KEEPING, "m", of(model, how))


async def end(worker: WorkerProcess) -> None:
    worker.kill()
    await worker.wait()


def oom_score(pid: int) -> int:
    """How much rather than others the kernel ends it when memory runs out."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


async def gone(host: ProcessHost, *labels: str) -> None:
    while set(labels) & set(host.template_pids()):
        await trio.testing.wait_all_tasks_blocked(0.01)


async def test_workers_of_a_model_share_what_its_template_has(tmp_path: Path) -> None:
    async with running() as host:
        first = await started(host, "a")
        pid = host.template_pids()["echo:a"]
        second, other = await started(host, "a"), await started(host, "b")
        assert host.template_pids()["echo:a"] == pid
        assert set(host.template_pids()) == {"echo", "echo:a", "echo:b"}
        assert [await found(w, tmp_path) for w in (first, second, other)] == ["a", "a", "b"]
        # It is charged to the template, for what it has beyond the backend's.
        held = [host.template_memory()[f"echo:{model}"]["private_bytes"] for model in "ab"]
        assert all(KEPT_BYTES <= size < 3 * KEPT_BYTES for size in held)
        assert first.memory()["private_bytes"] < KEPT_BYTES
        templates = host.templates
        assert (templates.spare_bytes(), templates.lived_on_bytes()) == (0, sum(held))
        await end(other)
        await trio.testing.wait_all_tasks_blocked()
        assert (templates.spare_bytes(), templates.lived_on_bytes()) == (held[1], held[0])
        os.kill(pid, signal.SIGKILL)
        await gone(host, "echo:a")
        await first.send({"op": "ping", "n": 1})
        assert await until(first, "pong") == {"op": "pong", "n": 1}


async def test_another_state_of_the_files_has_a_template_of_its_own() -> None:
    async with running() as host:
        first = await started(host, "a")
        old = host.template_pids()["echo:a"]
        await host.start_worker(KEEPING, "m", of("a", state="2"))
        both = host.template_pids()
        assert both[f"echo:a (pid {old})"] == old != both["echo:a"]
        assert set(host.template_memory()) == set(both)
        # Nobody will ask for the old one again, so it stays no longer than its workers.
        await end(first)
        await gone(host, f"echo:a (pid {old})")
        assert host.template_pids() == {"echo": both["echo"], "echo:a": both["echo:a"]}


async def test_a_backend_without_gets_none(tmp_path: Path) -> None:
    async with running() as host:
        await host.start_worker(KEEPING, "m")
        assert set(host.template_pids()) == {"echo"}
    async with running(most_spare=0) as host:
        worker = await started(host, "a")
        assert set(host.template_pids()) == {"echo"}
        assert await found(worker, tmp_path) == "nothing"
    async with running(templates="never") as host:
        await started(host, "a")
        assert not host.template_pids()


@pytest.mark.parametrize("how", ["fail", "crash", "start_thread", "absent", "lie"])
async def test_where_there_is_none_the_backends_serves(tmp_path: Path, how: str) -> None:
    async with running() as host:
        for _ in range(2):
            worker = await started(host, "a", how)
            assert await found(worker, tmp_path) == "nothing"
        await end(worker)
        assert worker.status == ExitStatus(signal=signal.SIGKILL)
        assert "echo" in host.template_pids()
        if how != "start_thread":
            await gone(host, "echo:a")


@pytest.mark.parametrize("pid", ["another's", "a template's", "0", "1", str(2**40)])
async def test_no_process_is_taken_for_a_worker_that_is_none(tmp_path: Path, pid: str) -> None:
    async with running() as host:
        other = await started(host, "other")
        known = {"another's": other.pid, "a template's": host.template_pids()["echo"]}
        claimed = str(known.get(pid, pid))
        worker = await started(host, claimed, "claim")
        assert await found(worker, tmp_path) == "nothing"
        assert str(worker.pid) != claimed
        await gone(host, f"echo:{claimed}")
        assert await found(other, tmp_path) == "other"


async def test_one_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridd.processes.template_process._HUNG_AFTER_S", 0.05)
    async with running() as host:
        assert await found(await started(host, "a", "hang"), tmp_path) == "nothing"
        await gone(host, "echo:a")


async def test_it_stays_with_its_workers_and_then_for_the_keepalive() -> None:
    async with running(template_keepalive_s=0) as host:
        first, second = await started(host, "a"), await started(host, "a")
        await gone(host, "echo")
        assert "echo:a" in host.template_pids()
        await end(first)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert "echo:a" in host.template_pids()
        await end(second)
        await gone(host, "echo:a")
    async with running() as host:
        await end(await started(host, "a"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert "echo:a" in host.template_pids()


async def test_of_those_without_a_worker_the_least_recently_used_leaves(tmp_path: Path) -> None:
    async with running(most_spare=2) as host:
        alive = await started(host, "alive")
        for model in ("a", "b", "a", "c"):
            await end(await started(host, model))
        await gone(host, "echo:b")
        assert set(host.template_pids()) == {"echo", "echo:alive", "echo:a", "echo:c"}
        assert await found(alive, tmp_path) == "alive"


async def test_what_nobody_lives_on_is_given_up_where_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = 100
    monkeypatch.setattr("hybridd.processes.templates.main_memory", lambda: (1000, free))
    async with running() as host:
        await started(host, "alive")
        for model in ("a", "b", "c"):
            await end(await started(host, model))
        await trio.testing.wait_all_tasks_blocked()
        held = {label: m["private_bytes"] for label, m in host.template_memory().items()}
        spare = host.templates.spare_bytes()
        assert spare == sum(held[f"echo:{model}"] for model in ("a", "b", "c"))
        assert 3 * KEPT_BYTES <= spare < 9 * KEPT_BYTES
        host.make_room(free, "new", "echo")
        assert host.templates.spare_bytes() == spare
        # What the model's own holds would be wanted again at once.
        host.make_room(free + held["echo:a"], "a", "echo")
        assert host.templates.spare_bytes() == spare
        # No more than is needed, and the least recently used first.
        host.make_room(free + held["echo:a"] + 1, "a", "echo")
        await gone(host, "echo:b")
        assert set(host.template_pids()) == {"echo", "echo:alive", "echo:a", "echo:c"}
        host.make_room(free + spare, "new", "echo")
        await gone(host, "echo:a", "echo:c")
        assert set(host.template_pids()) == {"echo", "echo:alive"}
        again = await started(host, "a")
        assert (await again.receive())["op"] == "hello"


async def test_one_that_is_warmed_imports_at_low_priority_and_forks_at_its_own(
    tmp_path: Path,
) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with running() as host:
        await host.templates.warm(LOW, low_priority=True)
        pid = host.template_pids()["echo"]
        assert os.getpriority(os.PRIO_PROCESS, pid) == own
        worker = await host.start_worker(LOW, "m")
        assert host.template_pids() == {"echo": pid}
        assert await found(worker, tmp_path, LOW.engine_factory) == f"19 {own}"
    async with running() as host:
        await host.templates.warm(LOW)
        worker = await host.start_worker(LOW, "m")
        assert await found(worker, tmp_path, LOW.engine_factory) == f"{own} {own}"
    async with running(templates="never") as host:
        await host.templates.warm(LOW, low_priority=True)
        assert host.template_pids() == {}


async def test_a_load_does_not_wait_for_one_at_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LINGERS, "yes")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with running() as host, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: host.templates.warm(LOW, low_priority=True))
        while not host.template_pids():
            await trio.lowlevel.checkpoint()
        lingering = host.template_pids()["echo"]
        worker = await host.start_worker(LOW, "m")
        assert await found(worker, tmp_path, LOW.engine_factory) == f"{own} {own}"
        while len(host.template_pids()) > 1:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert host.template_pids()["echo"] != lingering
        assert procfs.started(lingering) is None, "it was killed and reaped"


async def test_a_load_outlives_the_one_at_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LINGERS, "all")
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with running() as host:

        async def stopped(*but: int) -> int:
            while True:
                for pid in host.template_pids().values():
                    if pid not in but and procfs.state(pid) == "T":
                        return pid
                await trio.lowlevel.checkpoint()

        async def load() -> None:
            worker = await host.start_worker(LOW, "m")
            assert await found(worker, tmp_path, LOW.engine_factory) == f"{own} {own}"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: host.templates.warm(LOW, low_priority=True))
            first = await stopped()
            nursery.start_soon(load)
            rival = await stopped(first)
            os.kill(first, signal.SIGKILL)
            while first in host.template_pids().values():
                await trio.lowlevel.checkpoint()
            os.kill(rival, signal.SIGCONT)


async def test_a_backends_is_given_up_for_another_ones_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = 100
    monkeypatch.setattr("hybridd.processes.templates.main_memory", lambda: (1000, free))
    async with running() as host:
        worker = await host.start_worker(KEEPING, "m")
        await trio.testing.wait_all_tasks_blocked()
        assert host.templates.spare_bytes() == 0, "its worker lives on it"
        await end(worker)
        await trio.testing.wait_all_tasks_blocked()
        held = host.template_memory()["echo"]["private_bytes"]
        assert host.templates.spare_bytes() == held
        host.make_room(free + held, "m", "echo")  # it would be wanted again at once
        host.make_room(free, "other", "gguf")
        assert host.templates.spare_bytes() == held
        host.make_room(free + 1, "other", "gguf")
        await gone(host, "echo")
        await end(await started(host, "a"))
        # What models' share with it would not come back.
        assert host.templates.spare_bytes() == host.template_memory()["echo:a"]["private_bytes"]
    async with running(templates="always") as host:
        await end(await host.start_worker(KEEPING, "m"))
        await trio.testing.wait_all_tasks_blocked()
        assert host.templates.spare_bytes() == 0, "it is to stay always"


async def test_a_dead_one_is_replaced() -> None:
    async with running() as host:
        await end(await started(host, "a"))
        old = host.template_pids()["echo:a"]
        os.kill(old, signal.SIGKILL)
        await started(host, "a")
        assert host.template_pids()["echo:a"] != old


async def test_the_end_of_the_backends_leaves_it_be(tmp_path: Path) -> None:
    async with running() as host:
        await end(await started(host, "a"))
        os.kill(host.template_pids()["echo"], signal.SIGKILL)
        await gone(host, "echo")
        worker = await started(host, "a")
        assert await found(worker, tmp_path) == "a"
        assert set(host.template_pids()) == {"echo:a"}


async def test_two_starts_share_one_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    async with running() as host:
        workers: list[WorkerProcess] = []

        async def start() -> None:
            workers.append(await started(host, "a"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start)
        assert len({w.pid for w in workers}) == 3
        assert len(host.template_pids()) == 2
        templates = list(host.template_pids().values())
    assert [procfs.started(pid) for pid in templates] == [None, None]
    assert [w.status for w in workers] == [ExitStatus(signal=signal.SIGKILL)] * 3


async def test_a_start_that_nobody_waits_for_leaves_nothing_but_templates() -> None:
    async with running() as host:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(started, host, "a")
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        worker = await started(host, "a")
        assert set(procfs.children()) == {worker.pid, *host.template_pids().values()}


async def test_no_worker_is_the_kernels_choice_by_the_way_it_was_forked() -> None:
    async with running() as host:
        workers = await started(host, "a"), await host.start_worker(KEEPING, "m")
        for worker in workers:
            assert (await worker.receive())["op"] == "hello"
        pids = [host.template_pids()["echo:a"], *(worker.pid for worker in workers)]
        assert list(map(oom_score, pids)) == [min(1000, oom_score(os.getpid()) + 500)] * 3
