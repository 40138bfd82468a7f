"""One task per worker, from its start to its end.

Turns frames of the worker into events of the scheduler and into deltas of requests, watches that
the worker lives, and ends it by asking, then SIGTERM, then SIGKILL. Decides nothing: when a worker
is made and when it has to go is the scheduler's business.
"""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from hybridd.backends.api import Backend, LoadSpec
from hybridd.core.scheduling import (
    Event,
    RequestEnded,
    WorkerGone,
    WorkerReady,
    WorkerRefused,
    WorkerUp,
)
from hybridd.processes.child_log import clean
from hybridd.processes.host import Preparation, ProcessHost
from hybridd.processes.worker_process import ExitStatus, WorkerProcess
from hybridd.serving.requests import Flush, InferenceRequest
from hybridd.wire import errors
from hybridd.wire.delta import Delta

PING_EVERY_S = 5.0
# DESIGN: hung is no frame for 10 s and neither processor time nor I/O gained, or stopped (state T).
HUNG_AFTER_S = 10.0
TERM_GRACE_S = 2.0
FORCED_GRACE_S = 1.0
# Lines of the engine's log that `load_failed` carries.
DETAIL_LINES = 15
LOG_LINES = 200
# What a worker's delta has for most tokens.
_PLAIN_ITEM = frozenset({"id", "text", "tokens"})
# A worker's word is not trusted: more notes than engines have reasons for, and longer ones.
_MOST_NOTES = 32
_NOTE_CHARS = 400

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
MemoryBack = Callable[[int], Awaitable[None] | None]


class Supervisor:
    """The daemon's side of one instance.

    Args:
        number: The instance's number in the scheduler.
        spec: What the engine is to load.
        requests: All requests by key; the supervisor looks up those that it is sent.
        feed: Takes events for the scheduler.
        progress: Hears of the load's stages.
        stop_s: How long a polite end may take.
    """

    def __init__(
        self,
        number: int,
        backend: Backend,
        spec: LoadSpec,
        host: ProcessHost,
        requests: Mapping[int, InferenceRequest],
        feed: Callable[[Event], None],
        progress: Progress,
        stop_s: Callable[[], float],
    ) -> None:
        self.number = number
        self.backend = backend
        self.spec = spec
        self.worker: WorkerProcess | None = None
        self.load_s: float | None = None
        self.loaded_at: float | None = None  # Unix seconds
        self.loaded_at_mono: float | None = None  # on trio's clock
        self.last_used_at: float | None = None
        self.resident_bytes = 0
        self.tokens_per_s: float | None = None
        self.peak_bytes = 0
        self._host = host
        self._requests = requests
        self._feed = feed
        self._progress = progress
        self._stop_s = stop_s
        self._starting = trio.CancelScope()
        self._outgoing, self._frames = trio.open_memory_channel[dict[str, Any]](float("inf"))
        self._told_to_stop = trio.Event()
        self._forced = trio.Event()
        self._killed_for: str | None = None
        self._refusal: errors.HybriddError | None = None
        self._last_frame = 0.0

    # ---------------------------------------------------------------- the manager's calls

    def send(self, frame: dict[str, Any]) -> None:
        """Queue a frame for the worker; lost without an error when it is gone."""
        self._outgoing.send_nowait(frame)

    def stop(self, *, force: bool = False) -> None:
        """Have it end; `force` shortens the wait."""
        if force:
            self._forced.set()
        if not self._told_to_stop.is_set():
            self._told_to_stop.set()
            self._starting.cancel()

    def measured(self, held: Mapping[str, int] | None) -> None:
        """Take over what a reading of the memory says of the worker."""
        if held:
            self.resident_bytes = held["private_bytes"] + held["file_bytes"]
            self.peak_bytes = max(self.peak_bytes, self.resident_bytes)

    # ---------------------------------------------------------------- its life

    async def run(self, memory_back: MemoryBack) -> None:
        """Start, serve, end. Feeds exactly one `WorkerGone`, once the memory is back.

        Args:
            memory_back: Given the ended worker's pid; what it returns is awaited.
        """
        error: errors.HybriddError | None = None
        counts = True
        try:
            with self._starting:
                self.worker = await self._host.start_worker(
                    self.backend, self.spec["model"], self._preparation()
                )
            if self.worker is not None:
                status = await self._serve(self.worker)
                if (waiting := memory_back(self.worker.pid)) is not None:
                    await waiting
                if not self._told_to_stop.is_set():
                    error, counts = self._death(status)
        except errors.HybriddError as exc:
            self._feed(WorkerRefused(self.number, exc))
        except Exception:
            # A bug here costs one model, never the daemon.
            model = self.spec["model"]
            log.exception("the supervisor of %s failed", model)
            if self.worker is not None:
                self.worker.kill(signal.SIGKILL)
                await self.worker.wait()
            error = errors.InternalError(
                f"{model} was lost to a bug of hybridd; the daemon's log says more"
            )
        self._feed(WorkerGone(self.number, error, counts))  # trace 4

    def _preparation(self) -> Preparation | None:
        """What workers of this model can share. A GPU's context would not survive the fork."""
        backend, spec = self.backend, self.spec
        if not backend.prepare or backend.uses_gpu():
            return None
        return Preparation(spec["model"], backend.prepare, spec["path"], spec["identity"])

    async def _serve(self, worker: WorkerProcess) -> ExitStatus:
        self._last_frame = trio.current_time()
        self._feed(WorkerUp(self.number))  # trace 6
        self.send(
            {
                "op": "load",
                "spec": self.spec,
                "factory": self.backend.engine_factory,
                "extra": self.backend.extra,
            }
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, worker)
            nursery.start_soon(self._end_when_told, worker)
            nursery.start_soon(self._watch, worker)
            await self._read(worker)
            status = await worker.wait()
            nursery.cancel_scope.cancel()
        if self._refusal is not None and self._refusal.kind == "load_failed":
            # Only now the log is whole.
            self._refusal.data.setdefault("detail", _detail(worker.log_tail(LOG_LINES)))
        return status

    async def _write(self, worker: WorkerProcess) -> None:
        try:
            async for frame in self._frames:
                try:
                    await worker.send(frame)
                except (ValueError, TypeError, RecursionError):
                    log.exception("a frame for %s cannot be encoded", self.spec["model"])
                    self._fail_request(frame.get("request", {}).get("id"))
        except trio.BrokenResourceError:
            pass  # the reader learns of the end as well, and knows what to do

    async def _read(self, worker: WorkerProcess) -> None:
        try:
            while True:
                frame = await worker.receive()
                self._last_frame = trio.current_time()
                try:
                    self._handle(frame)
                except (LookupError, TypeError, ValueError, AttributeError):
                    # Native code that reads a hostile file runs there: what comes is not trusted.
                    log.exception("a frame of %s is bad: %s", self.spec["model"], frame.get("op"))
                    self._kill(worker, "sent what made no sense and was killed")
                    return
        except EOFError:
            # Closed but alive: a worker without a channel is of no use to anyone.
            with trio.move_on_after(FORCED_GRACE_S):
                await worker.wait()
                return
            self._kill(worker, "closed its channel and was killed")

    def _handle(self, frame: dict[str, Any]) -> None:
        match frame.get("op"):
            case "deltas":
                self._relay(frame["items"])
            case "done":
                if request := self._own(frame["id"]):
                    request.finish(frame["result"])
                    self._learn_speed(request)
                self._feed(RequestEnded(self.number, frame["id"]))  # trace 8
            case "error":
                if request := self._own(frame["id"]):
                    request.fail(errors.from_wire(frame["error"]))
                self._feed(RequestEnded(self.number, frame["id"]))
            case "cancelled":
                self._feed(RequestEnded(self.number, frame["id"], completed=False))
            case "progress":
                self._progress(frame["stage"], frame["done"], frame["total"])
            case "ready":
                self.load_s = frame.get("load_s")
                facts = _checked(frame["facts"])
                for note in facts["notes"]:
                    log.info("%s: %s", self.spec["model"], note)
                self._feed(WorkerReady(self.number, facts))  # trace 7
            case "failed":
                # A load that was stopped says so by failing; that is no refusal.
                if not self._told_to_stop.is_set():
                    self._refusal = errors.from_wire(frame["error"])
                    self._feed(WorkerRefused(self.number, self._refusal))

    def _relay(self, items: list[dict[str, Any]]) -> None:
        flushes: set[Flush] = set()
        for item in items:
            request = self._own(item["id"])
            if request is not None and (flush := request.delta(_delta(item))):
                flushes.add(flush)
        for flush in flushes:
            flush()

    def _own(self, key: int) -> InferenceRequest | None:
        """The request with this key, if it is one of this worker's: what it says is not trusted."""
        request = self._requests.get(key)
        return request if request is not None and request.model == self.spec["model"] else None

    def _fail_request(self, key: int | None) -> None:
        if key is not None:
            if request := self._requests.get(key):
                request.fail(errors.InternalError("the request cannot be passed on to the model"))
            self._feed(RequestEnded(self.number, key, completed=False))

    def _kill(self, worker: WorkerProcess, why: str) -> None:
        self._killed_for = why
        worker.kill(signal.SIGKILL)

    def _learn_speed(self, request: InferenceRequest) -> None:
        self.last_used_at = time.time()
        timings = (request.result or {}).get("timings", {})
        self.tokens_per_s = timings.get("generation_tokens_per_s", self.tokens_per_s)

    def _death(self, status: ExitStatus) -> tuple[errors.HybriddError, bool]:
        """The error that its requests get, and whether the death may count against the model."""
        model = self.spec["model"]
        data: dict[str, Any] = {"model": model, "oom": status.oom}
        if self._killed_for is not None:
            how = self._killed_for
            data["signal"] = "SIGKILL"
        elif status.signal is not None:
            data["signal"] = name = _signal_name(status.signal)
            how = "was killed because memory ran out" if status.oom else f"died of {name}"
        else:
            data["exit_code"] = status.exit_code
            how = f"ended with exit code {status.exit_code}"
        outside = status.signal in (signal.SIGTERM, signal.SIGKILL)
        counts = self._killed_for is not None or status.oom or not outside
        hint = (
            "load it with a smaller context, or a smaller build of it"
            if status.oom
            else "ask again: it will be loaded anew"
        )
        return errors.WorkerDied(f"the worker of {model} {how}; {hint}", **data), counts

    async def _end_when_told(self, worker: WorkerProcess) -> None:
        await self._told_to_stop.wait()
        self.send({"op": "cancel_load"})
        self.send({"op": "stop"})
        with trio.move_on_after(self._stop_s()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._shorten, nursery.cancel_scope)
                await worker.wait()
                nursery.cancel_scope.cancel()
        worker.kill(signal.SIGTERM)
        with trio.move_on_after(TERM_GRACE_S if not self._forced.is_set() else FORCED_GRACE_S):
            await worker.wait()
        worker.kill(signal.SIGKILL)

    async def _shorten(self, scope: trio.CancelScope) -> None:
        await self._forced.wait()
        await trio.sleep(FORCED_GRACE_S)
        scope.cancel()

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill a worker that says nothing and does nothing: a port may answer while a loop hangs,
        and one prefill of a big model or one tensor on a slow disk takes a minute, so silence alone
        is no proof."""
        done, since = worker.work_done(), trio.current_time()
        while True:
            self.send({"op": "ping", "n": 0})
            asked = trio.current_time()
            await trio.sleep(PING_EVERY_S)
            now, did = trio.current_time(), worker.work_done()
            # Where this process was stopped itself it could not listen: the count begins anew.
            paused = now - asked > 2 * PING_EVERY_S
            if paused or (did != done and not worker.stopped()):
                done, since = did, now
            quiet_since = max(since, self._last_frame)
            if now - quiet_since >= HUNG_AFTER_S:
                self._kill(worker, f"made no progress for {HUNG_AFTER_S:.0f} s and was killed")
                return


def _delta(item: dict[str, Any]) -> Delta:
    """What a step brought for one request.

    Raises:
        TypeError: Its fields are of types that would fail later, at the client that gets them.
    """
    text, tokens = item.get("text", ""), item.get("tokens", 0)
    if type(text) is not str or type(tokens) is not int:
        raise TypeError("a delta has a text and a number of tokens")
    if item.keys() <= _PLAIN_ITEM:
        return Delta(text, tokens)
    reasoning, calls, logprobs = (item.get(n) for n in ("reasoning", "tool_calls", "logprobs"))
    objects = [*(calls or ()), *(logprobs or ())]
    if not isinstance(reasoning, str | None) or not all(isinstance(o, dict) for o in objects):
        raise TypeError("reasoning is text, tool_calls and logprobs are lists of objects")
    if not all(map(_is_fragment, calls or ())):
        raise TypeError("a tool call has a number, and a function with arguments as text")
    return Delta(text, tokens, reasoning, calls, logprobs)


def _is_fragment(call: dict[str, Any]) -> bool:
    function = call.get("function", {})
    numbered = type(call.get("index", 0)) is int
    return numbered and isinstance(function, dict) and type(function.get("arguments", "")) is str


def _checked(facts: Any) -> dict[str, Any]:
    """The engine's `LoadedFacts`, as far as the daemon relies on them.

    Raises:
        ValueError: They are none.
    """
    numbers = [facts[name] for name in ("context_length", "parallel")]
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError("context_length and parallel have to be positive")
    if not isinstance(facts["load_options"], dict) or not isinstance(facts["memory"], dict):
        raise ValueError("load_options and memory have to be objects")
    notes = facts.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes have to be texts")
    return {**facts, "notes": [clean(note, _NOTE_CHARS) for note in notes[:_MOST_NOTES]]}


def _detail(lines: list[str]) -> list[str]:
    """The last lines of an engine's log, without the traceback that ends it: it stays here."""
    told = itertools.takewhile(lambda line: not line.startswith("Traceback ("), lines)
    return list(told)[-DETAIL_LINES:]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"  # real-time signals but two have no name
