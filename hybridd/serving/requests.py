"""One inference request on its way: what was asked, what came so far, where the time went.

An `InferenceRequest` is made by `serving/manager`, fed by the supervisor of the worker that runs
it, and ends exactly once, with a result or an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from hybridd.core.kinds import Kind
from hybridd.wire.delta import Delta
from hybridd.wire.errors import HybriddError

# What an engine with a draft model adds to its timings.
_DRAFT_COUNTS = ("draft_tokens", "draft_accepted_tokens")

# Sends what a sink took. Called once for all sinks that named it, so that what a step brings for
# several streams of one client becomes one write.
Flush = Callable[[], None]
# Where a stream's deltas go. Returns what has to be called afterwards.
Sink = Callable[[Delta], Flush | None]


@dataclass
class InferenceRequest:
    """One request.

    Attributes:
        request: The engine's `WorkRequest` without its id.
        sink: Takes deltas as they come; None gathers them for the result.
        arrived_at, sent_at: Seconds on trio's clock.
        load_s: How much of the wait was the model's load.
    """

    key: int
    model: str
    kind: Kind
    request: dict[str, Any]
    sink: Sink | None
    arrived_at: float
    sent_at: float | None = None
    load_s: float = 0.0
    first_delta_at: float | None = None
    deltas: list[Delta] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: HybriddError | None = None
    over: trio.Event = field(default_factory=trio.Event)

    def delta(self, delta: Delta) -> Flush | None:
        """Take what one step brought; what to call once all of the step was taken."""
        if self.over.is_set():
            return None
        if self.first_delta_at is None:
            self.first_delta_at = trio.current_time()
        if self.sink is not None:
            return self.sink(delta)
        self.deltas.append(delta)
        return None

    def finish(self, done: dict[str, Any]) -> None:
        """End with the engine's `done`."""
        if not self.over.is_set():
            result = self._completion(done) if self.kind.streams else done
            self.result = {"model": self.model, **result} if self.kind.names_model else result
            self.over.set()

    def fail(self, error: HybriddError) -> None:
        """End with an error; a second end is ignored."""
        if not self.over.is_set():
            self.error = error
            self.over.set()

    async def outcome(self) -> dict[str, Any]:
        """Wait for the end.

        Raises:
            HybriddError: It ended with one.
        """
        await self.over.wait()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def _completion(self, done: dict[str, Any]) -> dict[str, Any]:
        now = trio.current_time()
        usage = dict(done.get("usage", {}))
        usage.setdefault("cached_tokens", 0)
        usage["total_tokens"] = usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0)
        return {
            **self._answer(),
            "finish_reason": done["finish_reason"],
            "usage": usage,
            "timings": self._timings(done.get("timings", {}), usage, now),
        }

    def _answer(self) -> dict[str, Any]:
        """What was said, in the shape of the kind; what went out in a stream is not repeated."""
        if self.sink is not None:
            return {"message": {"role": "assistant"}} if self.kind.conversation else {}
        whole = Delta.merged(self.deltas)
        answer = {"message": whole.message()} if self.kind.conversation else {"text": whole.text}
        return {**answer, "logprobs": whole.logprobs} if whole.logprobs else answer

    def _timings(self, engine: dict[str, Any], usage: dict[str, int], now: float) -> dict[str, Any]:
        sent = self.sent_at if self.sent_at is not None else now
        prompt_s = float(engine.get("prompt_s", 0.0))
        generation_s = float(engine.get("generation_s", 0.0))
        fresh = usage.get("prompt_tokens", 0) - usage["cached_tokens"]
        generated = usage.get("completion_tokens", 0)
        first = (self.first_delta_at or now) - self.arrived_at
        drafts = {name: engine[name] for name in _DRAFT_COUNTS if name in engine}
        timings = {
            "queue_s": max(0.0, sent - self.arrived_at - self.load_s),
            "load_s": self.load_s,
            "prompt_s": prompt_s,
            "first_token_s": first,
            "generation_s": generation_s,
            "total_s": now - self.arrived_at,
            "prompt_tokens_per_s": fresh / prompt_s if prompt_s > 0 else None,
            "generation_tokens_per_s": generated / generation_s if generation_s > 0 else None,
        }
        return {k: round(v, 6) for k, v in timings.items() if v is not None} | drafts
