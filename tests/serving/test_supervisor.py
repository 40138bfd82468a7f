"""One worker's life as its supervisor leads it: frames, liveness, the ladder of ending."""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from hybridd.core.kinds import KINDS
from hybridd.core.scheduling import (
    Event,
    RequestEnded,
    WorkerGone,
    WorkerReady,
    WorkerRefused,
    WorkerUp,
)
from hybridd.serving.requests import InferenceRequest
from hybridd.serving.supervisor import (
    FORCED_GRACE_S,
    HUNG_AFTER_S,
    PING_EVERY_S,
    TERM_GRACE_S,
    Supervisor,
)
from hybridd.wire import errors
from tests.serving.support import DONE, FACTS, PATIENCE_S, FakeBackend, FakeHost, FakeWorker

pytestmark = pytest.mark.usefixtures("autojump_clock")
STOP_S = 10.0


def inference(key: int, model: str, **asked: Any) -> InferenceRequest:
    return InferenceRequest(key, model, KINDS["generate"], asked, None, trio.current_time())


class Scene:
    """A supervisor, its worker and what it told the scheduler."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.events: list[Event] = []
        self.progress: list[tuple[str, int, int]] = []
        self.progress_fails = False
        self.requests: dict[int, InferenceRequest] = {}
        fakes: Any = (FakeBackend(), {"model": "m"}, self.host)
        backend, spec, host = fakes
        self.supervisor = Supervisor(
            3, backend, spec, host, self.requests, self.events.append,
            self.take_progress, lambda: STOP_S,
        )  # fmt: skip

    def take_progress(self, *report: Any) -> None:
        if self.progress_fails:
            raise RuntimeError("a bug")
        self.progress.append(report)

    def request(self, key: int = 1) -> InferenceRequest:
        made = self.requests[key] = inference(key, "m", prompt="x")
        self.supervisor.send({"op": "start", "request": {"id": key, **made.request}})
        return made

    @property
    def gone(self) -> WorkerGone:
        last = self.events[-1]
        assert isinstance(last, WorkerGone)
        assert sum(isinstance(event, WorkerGone) for event in self.events) == 1
        return last

    def died(self) -> errors.HybriddError:
        error = self.gone.error
        assert error is not None
        return error


@asynccontextmanager
async def supervised(
    memory_back: Callable[[int], Any] = lambda pid: None,
) -> AsyncIterator[tuple[Scene, FakeWorker]]:
    """A worker that loads; at the end its supervisor has to come to an end."""
    scene = Scene()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scene.supervisor.run, memory_back)
            yield scene, await scene.host.worker(0)
    assert isinstance(scene.events[-1], WorkerGone)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


# -------------------------------------------------------------------- frames


async def test_a_whole_life() -> None:
    async with supervised() as (scene, worker):
        worker.say("hello", pid=1)
        worker.say("progress", stage="weights", done=1, total=2)
        worker.ready()
        await settled()
        assert scene.progress == [("weights", 1, 2)]
        assert scene.events == [WorkerUp(3), WorkerReady(3, {**FACTS, "notes": []})]
        assert scene.supervisor.load_s == 1.5
        work = scene.request()
        await worker.reply("a", "b")
        assert (await work.outcome())["text"] == "ab"
        assert scene.events[-1] == RequestEnded(3, 1)
        assert scene.supervisor.tokens_per_s == 2.0
        scene.supervisor.stop()
    assert scene.gone == WorkerGone(3)
    assert worker.signals == []


async def test_one_frame_for_several_requests() -> None:
    async with supervised() as (scene, worker):
        requests = [scene.request(1), scene.request(2)]
        items = [{"id": n, "text": f"<{n}>", "tokens": 1} for n in (1, 2, 99)]
        worker.say("deltas", items=items)
        for number in (1, 2, 99):
            worker.say("done", id=number, result=DONE)
        assert [(await w.outcome())["text"] for w in requests] == ["<1>", "<2>"]
        scene.supervisor.stop()


async def test_notes_are_bounded_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with supervised() as (scene, worker):
        worker.ready(notes=["requests take turns", "x\n\x1b" + 1000 * "y", *["more"] * 100])
        await settled()
        scene.supervisor.stop()
    (ready,) = [event for event in scene.events if isinstance(event, WorkerReady)]
    notes = ready.facts["notes"]
    assert notes == ["requests take turns", "x\ufffd\ufffd" + 397 * "y", *["more"] * 30]
    assert [record.getMessage() for record in caplog.records] == [f"m: {note}" for note in notes]


async def test_a_refused_load() -> None:
    async with supervised() as (scene, worker):
        worker.say("failed", error=errors.ModelInvalid("broken", reason="broken").to_wire())
        worker.end(exit_code=1)
    refused = scene.events[-2]
    assert isinstance(refused, WorkerRefused)
    assert refused.error.to_wire()["data"] == {"kind": "model_invalid", "reason": "broken"}


async def test_a_failed_load_carries_the_end_of_the_whole_log() -> None:
    async with supervised() as (scene, worker):
        worker.log = [f"line {n}" for n in range(30)]
        worker.say("failed", error=errors.LoadFailed("no", reason="engine").to_wire())
        await settled()
        worker.log += ["the last word", "Traceback (most recent call last):", "  File /a/path"]
        worker.end(exit_code=1)
    refused = scene.events[-2]
    assert isinstance(refused, WorkerRefused)
    detail = refused.error.data["detail"]
    assert detail[-1] == "the last word", "what came after the frame is in it, a traceback is not"
    assert len(detail) == 15


async def test_a_load_that_fails_because_it_was_stopped_is_no_refusal() -> None:
    async with supervised() as (scene, worker):
        worker.obeys.discard("stop")
        scene.supervisor.stop()
        await worker.heard("cancel_load")
        worker.say("failed", error=errors.Cancelled("stopped").to_wire())
        worker.end(exit_code=1)
    assert scene.events == [WorkerUp(3), WorkerGone(3)]


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "deltas"},
        {"op": "deltas", "items": 5},
        {"op": "deltas", "items": [{"text": "x"}]},
        {"op": "deltas", "items": [{"id": [], "text": "x"}]},
        {"op": "deltas", "items": [{"id": 1, "text": ["x"]}]},
        {"op": "deltas", "items": [{"id": 1, "tokens": "1"}]},
        {"op": "deltas", "items": [{"id": 1, "reasoning": 5}]},
        {"op": "deltas", "items": [{"id": 1, "logprobs": ["x"]}]},
        {"op": "deltas", "items": [{"id": 1, "tool_calls": 5}]},
        {"op": "deltas", "items": [{"id": 1, "tool_calls": [{"index": "0"}]}]},
        {"op": "deltas", "items": [{"id": 1, "tool_calls": [{"function": {"arguments": 1}}]}]},
        {"op": "done", "id": 1},
        {"op": "done", "id": 1, "result": {"usage": 5}},
        {"op": "done", "id": 1, "result": {}},
        {"op": "error", "id": {}},
        {"op": "progress", "stage": "x"},
        {"op": "ready"},
        {"op": "ready", "facts": 5},
        {"op": "ready", "facts": {**FACTS, "parallel": 0}},
        {"op": "ready", "facts": {**FACTS, "parallel": True}},
        {"op": "ready", "facts": {**FACTS, "load_options": None}},
        {"op": "ready", "facts": {**FACTS, "notes": "a text"}},
        {"op": "ready", "facts": {**FACTS, "notes": [5]}},
        {"op": "failed"},
    ],
    ids=str,
)
async def test_a_frame_that_makes_no_sense_costs_the_worker_only(frame: dict[str, Any]) -> None:
    async with supervised() as (scene, worker):
        scene.request(1)
        worker.say(**frame)
    assert worker.signals == [signal.SIGKILL]
    assert scene.died().kind == "worker_died"
    assert scene.gone.counts, "whoever says that may say it again"


@pytest.mark.parametrize("frame", [{"op": "strange"}, {"op": None}, {"op": "pong", "n": 5}])
async def test_a_frame_of_tomorrow_is_ignored(frame: dict[str, Any]) -> None:
    async with supervised() as (scene, worker):
        worker.say(**frame)
        await settled()
        assert worker.signals == []
        scene.supervisor.stop()


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "deltas", "items": [{"id": 1, "text": "x", "tokens": 1}]},
        {"op": "done", "id": 1, "result": DONE},
        {"op": "error", "id": 1, "error": errors.InternalError("x").to_wire()},
    ],
    ids=lambda frame: str(frame["op"]),
)
async def test_a_request_of_another_model_is_none_of_its_business(frame: dict[str, Any]) -> None:
    async with supervised() as (scene, worker):
        scene.requests[1] = other = inference(1, "other")
        worker.say(**frame)
        await settled()
        assert not other.over.is_set()
        assert other.deltas == []
        scene.supervisor.stop()


async def test_an_error_frame_of_any_shape_is_an_error_of_the_request() -> None:
    async with supervised() as (scene, worker):
        work = scene.request(1)
        worker.say("error", id=1, error={"data": {"kind": ["odd"]}})
        with pytest.raises(errors.HybriddError):
            await work.outcome()
        scene.supervisor.stop()


async def test_a_request_that_cannot_be_encoded_fails_alone() -> None:
    async with supervised() as (scene, worker):
        sent = worker.send

        async def send(frame: dict[str, Any]) -> None:
            if frame.get("request", {}).get("id") == 1:
                raise ValueError("Out of range float values are not JSON compliant")
            await sent(frame)

        worker.send = send  # type: ignore[method-assign]
        bad, good = scene.request(1), scene.request(2)
        with pytest.raises(errors.InternalError):
            await bad.outcome()
        await worker.reply("x")
        await good.outcome()
        assert RequestEnded(3, 1, completed=False) in scene.events
        scene.supervisor.stop()


async def test_a_bug_on_the_way_costs_the_worker_only() -> None:
    async with supervised() as (scene, worker):
        scene.progress_fails = True
        worker.say("progress", stage="x", done=1, total=2)
    assert worker.status is not None
    assert scene.died().kind == "internal_error"


# -------------------------------------------------------------------- deaths


@pytest.mark.parametrize(
    ("status", "data", "counts"),
    [
        ({"signal": signal.SIGSEGV}, {"signal": "SIGSEGV", "oom": False}, True),
        ({"signal": signal.SIGABRT}, {"signal": "SIGABRT", "oom": False}, True),
        ({"signal": signal.SIGKILL}, {"signal": "SIGKILL", "oom": False}, False),
        ({"signal": signal.SIGTERM}, {"signal": "SIGTERM", "oom": False}, False),
        ({"signal": signal.SIGKILL, "oom": True}, {"signal": "SIGKILL", "oom": True}, True),
        ({"signal": 40}, {"signal": "SIGRTMIN+6", "oom": False}, True),
        ({"exit_code": 3}, {"exit_code": 3, "oom": False}, True),
        ({"exit_code": 0}, {"exit_code": 0, "oom": False}, True),
    ],
    ids=str,
)
async def test_deaths(status: dict[str, Any], data: dict[str, Any], counts: bool) -> None:
    async with supervised() as (scene, worker):
        worker.ready()
        await settled()
        worker.end(**status)
    assert scene.died().kind == "worker_died"
    assert scene.died().data == {"model": "m", **data}
    assert scene.gone.counts is counts
    hint = "smaller" if status.get("oom") else "ask again"
    assert hint in scene.died().message


async def test_a_worker_that_closed_its_channel_is_ended() -> None:
    async with supervised() as (scene, worker):
        worker.close_channel()
        began = trio.current_time()
    assert worker.signals == [signal.SIGKILL]
    assert trio.current_time() - began == pytest.approx(FORCED_GRACE_S)
    assert scene.died().kind == "worker_died"
    assert scene.gone.counts


async def test_gone_is_told_only_when_the_memory_is_back() -> None:
    back = trio.Event()
    async with supervised(lambda pid: back.wait()) as (scene, worker):
        worker.end(exit_code=1)
        await trio.sleep(1)
        assert not any(isinstance(event, WorkerGone) for event in scene.events)
        back.set()


# -------------------------------------------------------------------- liveness


async def test_a_worker_that_says_and_does_nothing_is_hung() -> None:
    async with supervised() as (scene, worker):
        worker.answers_pings = False
        began = trio.current_time()
    took = trio.current_time() - began
    assert HUNG_AFTER_S <= took <= HUNG_AFTER_S + PING_EVERY_S <= 15.0
    assert worker.signals == [signal.SIGKILL]
    assert scene.gone.counts
    assert "made no progress for 10 s" in scene.died().message


@pytest.mark.parametrize("what", ["busy", "reading"])
async def test_one_that_works_in_silence_is_not(what: str) -> None:
    async with supervised() as (scene, worker):
        worker.answers_pings = False
        setattr(worker, what, True)
        await trio.sleep(600)
        assert worker.status is None
        scene.supervisor.stop()


async def test_one_that_answers_without_working_is_not() -> None:
    async with supervised() as (scene, worker):
        await trio.sleep(600)
        assert worker.status is None
        scene.supervisor.stop()


async def test_a_pause_of_the_daemon_itself_is_nobodys_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with supervised() as (scene, worker):
        worker.ready()
        await settled()
        await trio.sleep(PING_EVERY_S / 2)
        autojump_clock.jump(600)  # Ctrl-Z, a frozen control group, a paused virtual machine
        await trio.sleep(3 * PING_EVERY_S)
        assert worker.status is None
        scene.supervisor.stop()


async def test_one_that_was_stopped_by_a_signal_is_hung_whatever_its_clock_says() -> None:
    async with supervised() as (_, worker):
        worker.answers_pings = False
        worker.busy = worker.is_stopped = True
    assert worker.signals == [signal.SIGKILL]


# -------------------------------------------------------------------- the ladder


async def test_asked_politely_it_ends() -> None:
    async with supervised() as (scene, worker):
        scene.supervisor.stop()
        scene.supervisor.stop()
    assert worker.signals == []
    assert [f["op"] for f in worker.frames if f["op"] != "ping"] == ["cancel_load", "stop"]
    assert scene.gone == WorkerGone(3)


@pytest.mark.parametrize(
    ("obeys", "signals", "seconds"),
    [
        ({signal.SIGTERM, signal.SIGKILL}, [signal.SIGTERM], STOP_S),
        ({signal.SIGKILL}, [signal.SIGTERM, signal.SIGKILL], STOP_S + TERM_GRACE_S),
    ],
)
async def test_the_ladder(obeys: set[Any], signals: list[int], seconds: float) -> None:
    async with supervised() as (scene, worker):
        worker.obeys = obeys
        worker.busy = True
        began = trio.current_time()
        scene.supervisor.stop()
    assert worker.signals == signals
    assert trio.current_time() - began == pytest.approx(seconds)
    assert scene.gone == WorkerGone(3), "an end that was asked for is no death"


@pytest.mark.parametrize("later", [0.0, 4.0])
async def test_force_shortens_the_ladder(later: float) -> None:
    async with supervised() as (scene, worker):
        worker.obeys = {signal.SIGKILL}
        worker.busy = True
        began = trio.current_time()
        if later:
            scene.supervisor.stop()
            await trio.sleep(later)
        scene.supervisor.stop(force=True)
    assert trio.current_time() - began == pytest.approx(later + 2 * FORCED_GRACE_S)


async def test_a_process_that_will_not_die_keeps_its_place() -> None:
    async with supervised() as (scene, worker):
        worker.obeys = set()
        scene.supervisor.stop(force=True)
        await trio.sleep(1000)
        assert not any(isinstance(event, WorkerGone) for event in scene.events)
        worker.end(signal=signal.SIGKILL)


async def test_stopped_before_there_was_a_process() -> None:
    scene = Scene()
    scene.supervisor.stop()
    await scene.supervisor.run(lambda pid: None)
    assert scene.events == [WorkerGone(3)]
    assert scene.host.workers == []
