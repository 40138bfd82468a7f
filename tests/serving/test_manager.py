"""What clients can ask of the manager, over workers that do as the test says."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.backends.cpu import usable_cores
from hybridd.core.threads import fair_shares
from hybridd.wire import errors
from tests.serving.support import FACTS, record, running

pytestmark = pytest.mark.usefixtures("autojump_clock")


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -------------------------------------------------------------------- loading


async def test_load(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        load = begin(world.manager.load, "a", load_options={"context_length": 4096}, keepalive=60.0)
        worker = await world.host.worker(0)
        assert world.manager.notes("a") == []
        worker.ready(notes=["slow"])
        await load.over.wait()
        loaded = load.value
        assert loaded["notes"] == world.manager.notes("a") == ["slow"]
        assert world.manager.notes("b") == []
        assert {k: loaded[k] for k in ("id", "format", "engine", "status", "pid", "pinned")} == {
            "id": "a", "format": "fake", "engine": "fake 1", "status": "loaded", "pid": 1000,
            "pinned": False,
        }  # fmt: skip
        assert loaded["devices"] == [{"device": "cpu", "bytes": 40}]
        assert loaded["memory"]["reserved_bytes"] == 40
        assert loaded["memory"]["resident_bytes"] == loaded["memory"]["peak_bytes"] == 1500
        assert (loaded["context_length"], loaded["parallel"]) == (4096, 1)
        assert (loaded["load_s"], loaded["keepalive_s"]) == (1.5, 60.0)
        assert loaded["expires_in_s"] == 60.0
        assert world.manager.loaded_models == ["a"]
        names = [type for type, id in world.events if id == "a"]
        assert names == ["queued", "loading", "loaded"]


async def test_what_the_worker_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        begin(world.manager.load, "a")
        while not world.host.workers:
            await trio.lowlevel.checkpoint()
        frame = await world.host.workers[0].heard("load")
        assert frame == {
            "op": "load",
            "factory": "fake:Engine",
            "extra": None,
            "spec": {
                "model": "a", "format": "fake", "path": "/m/a", "defaults": {"top_k": 5},
                "load_options": {"context_length": 8192, "parallel": 1, "kv_cells": 8192},
                "identity": world.library.snapshot.models["a"].content,
                "kv": {"host_cache_bytes": 0, "persist_bytes": 0, "persist_dir": ""},
                "placement": {"cpu": 40},
            },
        }  # fmt: skip
        assert world.host.wanted == [("a", 40)], "what others left behind makes room for it"


async def test_cells_and_requests_at_a_time(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        options = {"context_length": 1000, "parallel": 2, "kv_cells": 1500}
        load = begin(world.manager.load, "a", load_options=options)
        worker = await world.host.worker(0)
        worker.ready(context_length=1000, parallel=2, load_options={})
        await load.over.wait()
        assert load.value["load_options"] == options
        assert [load.value[name] for name in options] == [1000, 2, 1500]
        fewer = await world.manager.load("a", load_options={"parallel": 1, "kv_cells": 1000})
        assert fewer["pid"] == load.value["pid"]
        impossible = {"context_length": 1000, "kv_cells": 999}
        for refused in (
            begin(world.manager.load, "a", load_options=impossible),
            begin(world.manager.load_detached, "a", load_options=impossible),
            begin(world.manager.infer, "generate", "a", {"prompt": "x"}, load_options=impossible),
        ):
            await refused.over.wait()
            assert refused.kind == "invalid_params"


async def test_more_at_a_time_than_the_engine_serves_never_reloads(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        load = begin(world.manager.load, "a", load_options={"parallel": 100})
        worker = await world.host.worker(0)
        worker.ready(parallel=8)
        await load.over.wait()
        assert load.value["parallel"] == 8
        for parallel in (2, 8, 9, 100):
            wish = begin(world.manager.load, "a", load_options={"parallel": parallel})
            await settled()
            assert wish.value["pid"] == worker.pid, parallel


async def test_models_at_work_share_the_cores(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        workers = []
        for model in ("a", "b"):
            load = begin(world.manager.load, model)
            workers.append(await world.host.worker(len(workers)))
            workers[-1].ready(load_options={"threads": usable_cores() + 1})
            await load.over.wait()
        first = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await settled()
        begin(world.manager.infer, "generate", "b", {"prompt": "x"})
        await settled()
        told = [[f["n"] for f in w.frames if f["op"] == "threads"] for w in workers]
        mine, others = fair_shares(usable_cores(), [usable_cores() + 1] * 2)
        assert told == [[usable_cores(), mine] if mine < usable_cores() else [mine], [others]]
        await workers[0].reply("y")
        await first.over.wait()
        assert (await workers[1].heard("threads"))["n"] == others
        if others < usable_cores():
            assert (await workers[1].heard("threads"))["n"] == usable_cores()


async def test_loads_of_one_model_join_one_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        jobs: list[str] = []
        loads = [
            begin(world.manager.load, "a", on_job=lambda job: jobs.append(job.job))
            for _ in range(3)
        ]
        worker = await world.host.worker(0)
        await settled()
        assert jobs == ["load-1"] * 3
        worker.say("progress", stage="weights", done=1, total=4)
        await settled()
        job = world.jobs.get("load-1")
        assert (job.state, job.stage, job.fraction) == ("running", "weights", 0.25)
        worker.ready()
        for load in loads:
            await load.over.wait()
            assert load.value["id"] == "a"
        assert len(world.host.workers) == 1
        assert job.to_wire()["result"] == {"id": "a"}


async def test_a_detached_load_has_a_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        job = await world.manager.load_detached("a")
        assert job.state == "queued"
        (await world.host.worker(0)).ready()
        await settled()
        assert job.state == "done"
        again = await world.manager.load_detached("a")
        assert (again.state, again.result) == ("done", {"id": "a"}), "loaded already"
        assert world.residency.waiters == {}


async def test_a_detached_load_for_more_is_not_done_before_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        first = await world.load("a")
        job = await world.manager.load_detached("a", load_options={"context_length": 16384})
        assert job.state == "queued"
        second = await world.host.worker(1)
        assert first.status is not None
        assert not job.over
        second.ready(load_options={"context_length": 16384}, context_length=16384)
        await settled()
        assert job.state == "done"


async def test_a_detached_load_that_is_refused_has_a_job_that_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, record("big", 1000)) as (world, _):
        job = await world.manager.load_detached("big")
        await settled()
        assert job.state == "failed"
        assert job.error is not None
        assert job.error.kind == "does_not_fit"


async def test_a_cancelled_job_ends_everybody_who_waits(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        load = begin(world.manager.load, "a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        worker = await world.host.worker(0)
        job = world.jobs.get("load-1")
        assert job.cancel is not None
        job.cancel()
        await load.over.wait()
        await request.over.wait()
        assert (load.kind, request.kind, job.state) == ("cancelled", "cancelled", "cancelled")
        await worker.wait()
        assert [f["op"] for f in worker.frames if f["op"] != "ping"] == ["cancel_load", "stop"]


async def test_the_last_waiter_that_leaves_stops_the_load(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        loads = [begin(world.manager.load, "a"), begin(world.manager.load, "a")]
        worker = await world.host.worker(0)
        loads[0].scope.cancel()
        await settled()
        assert worker.status is None
        loads[1].scope.cancel()
        await worker.wait()
        assert world.jobs.get("load-1").state == "cancelled"


async def test_a_load_is_stopped_while_its_process_is_being_made(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        world.host.gate = trio.Event()
        load = begin(world.manager.load, "a")
        await settled()
        load.scope.cancel()
        await settled()
        assert world.residency.supervisors == {}
        assert world.host.workers == []


async def test_no_process_can_be_made(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        world.host.error = errors.LoadFailed("no process", reason="no_process")
        load = begin(world.manager.load, "a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await load.over.wait()
        await request.over.wait()
        assert (load.kind, request.kind) == ("load_failed", "load_failed")


async def test_no_process_can_be_made_and_the_load_was_given_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        world.host.gate = trio.Event()
        world.host.error = errors.LoadFailed("no process", reason="no_process")
        load = begin(world.manager.load, "a")
        await settled()
        world.host.gate.set()
        load.scope.cancel()
        await settled()
        assert world.jobs.get("load-1").over, "whichever came first"
        assert world.residency.supervisors == {}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"status": "invalid", "reason": "no weights"}, "model_invalid"),
        ({"facts": None}, "unsupported"),
    ],
)
async def test_what_cannot_be_loaded(tmp_path: Path, more: dict[str, Any], kind: str) -> None:
    from dataclasses import replace

    made = record("a")
    if "facts" in more:
        more = {"facts": replace(made.facts, format="unknown")}
    async with running(tmp_path, replace(made, **more)) as (world, begin):
        for function, args in (
            (world.manager.load, ("a",)),
            (world.manager.load_detached, ("a",)),
            (world.manager.infer, ("generate", "a", {"prompt": "x"})),
        ):
            outcome = begin(function, *args)
            await outcome.over.wait()
            assert outcome.kind == kind
        outcome = begin(world.manager.load, "b")
        await outcome.over.wait()
        assert outcome.kind == "model_not_found"


async def test_does_not_fit_carries_the_plan(tmp_path: Path) -> None:
    async with running(tmp_path, record("a", 101)) as (world, begin):
        load = begin(world.manager.load, "a")
        await load.over.wait()
        assert load.kind == "does_not_fit"
        assert load.error is not None
        assert load.error.data["plan"]["free"] == [{"device": "cpu", "bytes": 100}]


async def test_nobody_leaves_for_options_that_no_load_takes(tmp_path: Path) -> None:
    models = record("a", size=60), record("b", size=60)
    async with running(tmp_path, *models) as (world, begin):
        load = begin(world.manager.load, "a")
        (await world.host.worker(0)).ready()
        await load.over.wait()
        for model in ("a", "b"):  # one that would be reloaded, one that it would have to leave for
            load = begin(world.manager.load, model, load_options={"dtype": "int3"})
            await load.over.wait()
            assert load.kind == "invalid_params"
        with pytest.raises(errors.InvalidParams, match="int3"):
            await world.manager.configure("a", {"load_options": {"dtype": "int3"}})
        assert world.manager.loaded_models == ["a"]
        assert len(world.host.workers) == 1


async def test_files_that_went_away_before_the_load_began(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        load = begin(world.manager.load, "a")
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        world.library.snapshot.models.pop("a")
        await load.over.wait()
        assert load.kind == "model_not_found"


# -------------------------------------------------------------------- requests


async def test_a_request_loads_its_model_and_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        request = begin(
            world.manager.infer, "generate", "a", {"prompt": "hi"}, options={"temperature": 0.0}
        )
        worker = await world.host.worker(0)
        await trio.sleep(2.0)
        worker.ready()
        sent = await worker.reply("Hel", "lo")
        await request.over.wait()
        assert (sent["kind"], sent["prompt"]) == ("generate", "hi")
        options = sent["options"]
        assert (options["temperature"], options["top_k"], options["top_p"]) == (0.0, 5, 0.95)
        value = request.value
        assert (value["model"], value["text"], value["finish_reason"]) == ("a", "Hello", "stop")
        assert value["usage"] == {
            "prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1, "total_tokens": 5,
        }  # fmt: skip
        assert value["timings"]["load_s"] == 2.0
        assert value["timings"]["queue_s"] == 0.0


async def test_a_stream_brings_the_text_and_the_result_does_not(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        deltas: list[tuple[str, int]] = []
        request = begin(
            world.manager.infer, "chat", "a", {"messages": []},
            sink=lambda delta: deltas.append((delta.text, delta.tokens)),
        )  # fmt: skip
        await worker.reply("Hel", "lo")
        await request.over.wait()
        assert deltas == [("Hel", 1), ("lo", 1)]
        assert request.value["message"] == {"role": "assistant"}
        assert "text" not in request.value


async def test_requests_are_served_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        requests = []
        for name in ("1", "2", "3"):
            requests.append(begin(world.manager.infer, "generate", "a", {"prompt": name}))
            await settled()
        for number, request in enumerate(requests, 1):
            await settled()
            waiting = [f for f in worker.frames if f["op"] == "start"]
            assert len(waiting) == 1, "one at a time"
            assert (await worker.reply("x"))["prompt"] == str(number)
            await request.over.wait()


async def test_another_kind_of_result_is_passed_on_as_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        request = begin(world.manager.infer, "tokenize", "a", {"text": "x"})
        sent = (await worker.heard("start"))["request"]
        worker.say("done", id=sent["id"], result={"tokens": [1]})
        await request.over.wait()
        assert request.value == {"tokens": [1]}


async def test_an_error_of_the_engine_is_the_requests(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        sent = (await worker.heard("start"))["request"]
        error = errors.ContextExceeded("too long", prompt_tokens=9, context_length=5).to_wire()
        worker.say("error", id=sent["id"], error=error)
        await request.over.wait()
        assert request.kind == "context_exceeded"
        assert request.error is not None
        assert request.error.data == {"prompt_tokens": 9, "context_length": 5}
        again = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await worker.reply("ok")
        await again.over.wait()
        assert again.value["text"] == "ok"


async def test_a_request_that_is_left_is_cancelled_in_its_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        first = begin(world.manager.infer, "generate", "a", {"prompt": "1"})
        sent = (await worker.heard("start"))["request"]
        second = begin(world.manager.infer, "generate", "a", {"prompt": "2"})
        await settled()
        first.scope.cancel()
        assert (await worker.heard("cancel"))["id"] == sent["id"]
        worker.say("deltas", items=[{"id": sent["id"], "text": "late", "tokens": 1}])
        worker.say("cancelled", id=sent["id"])
        assert (await worker.reply("x"))["prompt"] == "2"
        await second.over.wait()


async def test_a_timeout_covers_queue_load_and_generation(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        loading = begin(world.manager.infer, "generate", "a", {"prompt": "x"}, timeout_s=5.0)
        worker = await world.host.worker(0)
        await loading.over.wait()
        assert loading.kind == "timeout"
        assert loading.error is not None
        assert loading.error.data == {"seconds": 5.0}
        await worker.wait()
        worker = await world.load("a")
        generating = begin(world.manager.infer, "generate", "a", {"prompt": "x"}, timeout_s=5.0)
        await worker.heard("start")
        await generating.over.wait()
        assert generating.kind == "timeout"
        await worker.heard("cancel")


async def test_without_smart_switching_nothing_is_loaded(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        world.configuration.set({"models.smart_switching": False}, persist=False)
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await request.over.wait()
        assert request.kind == "not_loaded"
        worker = await world.load("a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await worker.reply("ok")
        await request.over.wait()
        assert request.value["text"] == "ok"


async def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    from dataclasses import replace

    made = record("a")
    made = replace(made, facts=replace(made.facts, capabilities=("completion",)))
    async with running(tmp_path, made) as (world, begin):
        request = begin(world.manager.infer, "chat", "a", {"messages": []})
        await request.over.wait()
        assert request.kind == "unsupported"
        assert world.host.workers == []


# -------------------------------------------------------------------- deaths


async def test_a_death_ends_the_running_request_and_the_next_loads_it_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        first = begin(world.manager.infer, "generate", "a", {"prompt": "1"})
        await worker.heard("start")
        second = begin(world.manager.infer, "generate", "a", {"prompt": "2"})
        await settled()
        worker.end(signal=signal.SIGSEGV)
        await first.over.wait()
        assert first.kind == "worker_died"
        assert first.error is not None
        assert first.error.data["signal"] == "SIGSEGV"
        another = await world.host.worker(1)
        another.ready()
        await another.reply("ok")
        await second.over.wait()
        assert second.value["text"] == "ok"
        assert ("failed", "a") in world.events


async def test_what_a_worker_had_sent_before_its_death_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "1"})
        await worker.reply("done already")
        worker.end(signal=signal.SIGKILL)
        await request.over.wait()
        assert request.value["text"] == "done already"


async def test_three_crashes_quarantine_and_the_files_change_clears_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        for number in range(3):
            load = begin(world.manager.load, "a")
            (await world.host.worker(number)).end(signal=signal.SIGABRT)
            await load.over.wait()
            assert load.kind == "worker_died"
        load = begin(world.manager.load, "a")
        await load.over.wait()
        assert load.kind == "quarantined"
        assert load.error is not None
        assert set(load.error.data) == {"reason", "until"}
        over = world.manager.overlay("a")
        assert over is not None
        assert over.status == "quarantined"
        shown = await world.manager.loaded(all=True)
        assert [m["id"] for m in shown] == ["template:fake", "a"]
        world.manager.files_changed("a")
        await world.load("a", 3)


async def test_kills_from_outside_are_no_reason_for_quarantine(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        for number in range(5):
            load = begin(world.manager.load, "a")
            (await world.host.worker(number)).end(signal=signal.SIGKILL)
            await load.over.wait()
        await world.load("a", 5)


# -------------------------------------------------------------------- unloading


async def test_unload(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        worker = await world.load("a")
        assert await world.manager.unload("a") == {"unloaded": ["a"], "freed_bytes": 40}
        assert worker.status is not None
        assert await world.manager.unload("a") == {"unloaded": [], "freed_bytes": 0}
        assert world.manager.loaded_models == []


async def test_unload_of_everything(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        assert await world.manager.unload("*") == {"unloaded": [], "freed_bytes": 0}
        await world.load("a")
        await world.load("b")
        assert await world.manager.unload("*") == {"unloaded": ["a", "b"], "freed_bytes": 80}


async def test_unload_of_a_model_whose_files_are_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        await world.load("a")
        world.library.snapshot.models.pop("a")
        assert (await world.manager.unload("a"))["unloaded"] == ["a"]


async def test_a_deleted_model_goes_on_serving_while_it_is_loaded(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        gone = world.library.snapshot.models.pop("a")
        world.manager.departed(gone)
        world.manager.files_changed("a")
        assert list(world.manager.listed()) == ["a", "b", "c"]
        over = world.manager.overlay("a")
        assert over is not None
        assert (over.status, over.stale) == ("loaded", True)
        (loaded,) = await world.manager.loaded()
        assert (loaded["id"], loaded["stale"], loaded["format"]) == ("a", True, gone.format)
        begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await worker.heard("start")
        await world.manager.unload("a", force=True)
        assert list(world.manager.listed()) == ["b", "c"]
        with pytest.raises(errors.ModelNotFound):
            await world.manager.load("a")


async def test_a_model_that_is_being_replaced_goes_on_serving(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        await world.load("a")
        written = replace(record("a"), status="invalid", reason="being written")
        world.library.snapshot.models["a"] = written
        load = begin(world.manager.load, "a")
        await load.over.wait()
        assert load.error is None
        await world.manager.unload("a")
        load = begin(world.manager.load, "a")
        await load.over.wait()
        assert load.kind == "model_invalid"


async def test_unload_by_force(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await worker.heard("start")
        await world.manager.unload("a", force=True)
        assert request.kind == "cancelled"


async def test_an_unload_that_is_given_up_is_called_off(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        worker = await world.load("a")
        request = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await settled()
        unload = begin(world.manager.unload, "a")
        await settled()
        unload.scope.cancel()
        await settled()
        await worker.reply("x")
        await request.over.wait()
        await settled()
        assert worker.status is None


async def test_an_idle_model_is_unloaded_when_its_time_is_up(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        began = trio.current_time()
        worker = await world.load("a")
        (shown,) = await world.manager.loaded()
        assert shown["expires_in_s"] == 300.0
        await trio.sleep(100)
        (shown,) = await world.manager.loaded()
        assert shown["expires_in_s"] == pytest.approx(200.0), "it is told by the present time"
        await worker.wait()
        assert trio.current_time() - began == pytest.approx(300.0)


async def test_a_changed_keepalive_is_live(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        worker = await world.load("a")
        began = trio.current_time()
        world.configuration.set({"models.keepalive": "10s"}, persist=False)
        await worker.wait()
        assert trio.current_time() - began == pytest.approx(10.0)


async def test_room_is_made_by_ending_the_idle_one(tmp_path: Path) -> None:
    async with running(tmp_path, record("a", 60), record("b", 60)) as (world, _):
        first = await world.load("a")
        await world.load("b")
        assert first.status is not None
        assert world.manager.loaded_models == ["b"]


# -------------------------------------------------------------------- the end


async def test_close_ends_everything_with_a_typed_error(tmp_path: Path) -> None:
    async with running(tmp_path, record("a", 60), record("b", 60)) as (world, begin):
        worker = await world.load("a")
        first = begin(world.manager.infer, "generate", "a", {"prompt": "x"})
        await worker.heard("start")
        others = [
            begin(world.manager.infer, "generate", "a", {"prompt": "x"}),
            begin(world.manager.load, "b"),
            first,
        ]
        await settled()
        await world.residency.close()
        assert {o.kind for o in others} == {"shutting_down"}
        late = begin(world.manager.load, "a")
        await late.over.wait()
        assert late.kind == "shutting_down"
        await world.manager.ping()


async def test_close_does_not_wait_for_a_worker_that_does_not_listen(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, _):
        worker = await world.load("a")
        worker.obeys = {signal.SIGKILL}
        began = trio.current_time()
        await world.residency.close()
        assert trio.current_time() - began < 5.0
        assert worker.signals == [signal.SIGTERM, signal.SIGKILL]


async def test_facts_that_are_none_cost_only_that_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as (world, begin):
        for number, facts in enumerate(
            ({"parallel": 0}, {"parallel": "many"}, {"context_length": None})
        ):
            load = begin(world.manager.load, "a")
            worker = await world.host.worker(number)
            worker.say("ready", facts={**FACTS, **facts}, load_s=0.0)
            await load.over.wait()
            assert load.kind == "worker_died"
