"""A worker's life: load one model, then do one step of work after the other until told to end.

The engine runs on the main thread, which is what native libraries expect; the daemon's frames
come through a `Mailbox`. Frames from the daemon:

    load {spec, factory, extra?}   start {request}   cancel {id}   cancel_load   ping {n}
    threads {n}   stats   stop

and to it:

    hello {pid}   progress {stage, done, total}   ready {facts, load_s}   failed {error}
    deltas {items: [{id, …}]}, each a request's `Delta`; one frame per step for all requests
    done {id, result}   error {id, error}   cancelled {id}   pong {n}   stats {…}

Every started id ends with exactly one of done, error and cancelled. `ping` is answered between
two steps, so that a pong proves that the loop lives. After `failed` the worker ends by itself.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from hybridd.backends.api import Engine, LoadCancelled, LoadSpec, Output, WorkRequest
from hybridd.backends.engine.failures import (
    import_failure,
    load_failure,
    log_traceback,
    work_failure,
)
from hybridd.wire.errors import Cancelled, HybriddError

from . import process
from .channel import Channel
from .mailbox import Mailbox
from .progress import Progress

EXIT_ENDED = 0
EXIT_LOAD_FAILED = 1


def named(factory: str) -> Any:
    """Import what is called `package.module:name`."""
    module, _, name = factory.partition(":")
    return getattr(importlib.import_module(module), name)


def make_engine(factory: str, extra: str | None) -> Engine:
    """Import an engine by its name, `package.module:callable`, and make it.

    Raises:
        LoadFailed: It cannot be imported; says which extra to install.
    """
    try:
        return cast(Engine, named(factory)())
    except (ImportError, AttributeError, OSError) as exc:
        if not isinstance(exc, ModuleNotFoundError):
            log_traceback(f"importing {factory} failed")
        raise import_failure(exc, extra) from exc


class Worker:
    """The loop and what it has to remember.

    Args:
        channel: To the daemon; owned by the caller.
        mailbox: What reads from that channel; already started.
    """

    def __init__(self, channel: Channel, mailbox: Mailbox) -> None:
        self._channel = channel
        self._mailbox = mailbox
        self._engine: Engine | None = None
        self._active: set[int] = set()
        self._steps = 0
        self._tokens = 0

    def run(self) -> int:
        """Live; returns the process's exit code."""
        self._channel.send({"op": "hello", "pid": os.getpid()})
        frame = self._await_load()
        if frame is None:
            return EXIT_ENDED
        try:
            self._load(frame)
        except HybriddError as exc:
            self._channel.send({"op": "failed", "error": exc.to_wire()})
            return EXIT_LOAD_FAILED
        engine = self._engine
        assert engine is not None
        while self._take_frames(engine):
            if engine.busy:
                self._step(engine)
        engine.retire()
        return EXIT_ENDED

    def _await_load(self) -> dict[str, Any] | None:
        while (frame := self._mailbox.get()) is not None:
            match frame.get("op"):
                case "load":
                    return frame
                case "stop":
                    return None
                case "ping":
                    self._channel.send({"op": "pong", "n": frame.get("n")})
        return None

    def _load(self, frame: dict[str, Any]) -> None:
        spec = cast(LoadSpec, frame["spec"])
        process.set_name(f"hybridd-{spec['format']}")
        process.set_title(f"hybridd worker: {spec['model']} ({spec['format']})")
        progress = Progress(self._channel.send, self._mailbox.load_cancelled)
        began = time.monotonic()
        try:
            progress("import", 0, 0)
            engine = make_engine(frame["factory"], frame.get("extra"))
            engine.set_interrupted(self._mailbox.interrupted)
            facts = engine.load(spec, progress)
        except LoadCancelled:
            raise Cancelled(f"loading {spec['model']} was cancelled") from None
        except Exception as exc:
            raise load_failure(exc, spec["model"]) from exc
        progress.flush()
        self._engine = engine
        # What a load leaves behind lives as long as the worker: no collection has to look at it.
        gc.collect()
        gc.freeze()
        load_s = round(time.monotonic() - began, 6)
        self._channel.send({"op": "ready", "facts": facts, "load_s": load_s})

    def _take_frames(self, engine: Engine) -> bool:
        """Handle every frame at hand; without work to do, wait for one. False: end now."""
        while not (self._mailbox.empty and engine.busy):
            frame = self._mailbox.get()
            if frame is None or not self._handle(engine, frame):
                return False
        return True

    def _handle(self, engine: Engine, frame: dict[str, Any]) -> bool:
        match frame.get("op"):
            case "start":
                self._start(engine, cast(WorkRequest, frame["request"]))
            case "cancel":
                self._cancel(engine, frame["id"])
            case "ping":
                self._channel.send({"op": "pong", "n": frame.get("n")})
            case "threads":
                engine.set_threads(frame["n"])
            case "stats":
                self._channel.send(self._stats(engine))
            case "stop":
                return False
        return True

    def _start(self, engine: Engine, request: WorkRequest) -> None:
        self._active.add(request["id"])
        try:
            engine.submit(request)
        except Exception as exc:
            self._fail([request["id"]], work_failure(exc))

    def _cancel(self, engine: Engine, request_id: int) -> None:
        self._mailbox.forget(request_id)
        if request_id in self._active:
            self._active.discard(request_id)
            engine.cancel(request_id)
            self._channel.send({"op": "cancelled", "id": request_id})

    def _step(self, engine: Engine) -> None:
        try:
            outputs = engine.step()
        except Exception as exc:
            # Which request was at fault the engine cannot say; none of them can be trusted now.
            failed = sorted(self._active)
            error = work_failure(exc)
            for request_id in failed:
                engine.cancel(request_id)
            self._fail(failed, error)
            return
        self._steps += 1
        self._send_outputs(outputs)

    def _send_outputs(self, outputs: Sequence[Output]) -> None:
        items: list[dict[str, Any]] = []
        ends: list[dict[str, Any]] = []
        for output in outputs:
            request_id = output["id"]
            if request_id not in self._active:
                continue
            if (delta := output.get("delta")) is not None:
                item = delta.to_wire()
                item["id"] = request_id
                items.append(item)
                self._tokens += delta.tokens
            if "error" in output:
                ends.append({"op": "error", "id": request_id, "error": output["error"]})
            elif "done" in output:
                ends.append({"op": "done", "id": request_id, "result": output["done"]})
            else:
                continue
            self._active.discard(request_id)
        if items:
            self._channel.send({"op": "deltas", "items": items}, *ends)
        elif ends:
            self._channel.send(*ends)

    def _fail(self, request_ids: Sequence[int], error: HybriddError) -> None:
        for request_id in request_ids:
            self._active.discard(request_id)
            self._channel.send({"op": "error", "id": request_id, "error": error.to_wire()})

    def _stats(self, engine: Engine) -> dict[str, Any]:
        return {
            "op": "stats",
            "active": len(self._active),
            "busy": engine.busy,
            "steps": self._steps,
            "tokens": self._tokens,
        }


def run_worker(channel: Channel) -> int:
    """Be a worker on this process's main thread; returns the exit code.

    A daemon that is gone is no error: the process has nothing left to do.
    """
    mailbox = Mailbox(channel)
    mailbox.start()
    try:
        return Worker(channel, mailbox).run()
    except (BrokenPipeError, ConnectionResetError):
        return EXIT_ENDED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
