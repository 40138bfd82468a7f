"""What a step of the GGUF engine costs beside `llama_decode`, in one process and one context.

    python -m tests.bench.gguf_step [--model 0.5b|0.1b] [--streams 1 8] [--threads 2]

Eight steps of the engine and eight bare calls of `llama_decode` for the same rows, which are cut
back again, in turns: nothing lies between the two but what the engine does. Whatever else the
machine does meets both, so that this says more on a busy one than two processes side by side do.
Sampling is that of the protocol's defaults, and greedy.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from typing import Any

from hybridd.backends.gguf.engine.cells.context import Context
from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.bench.gguf_models import SHAPES, model_path
from tests.support_models import ignore_progress, spec_for

ROUNDS, STEPS = 12, 8
CONTEXT = 2048
ANY_TOKEN = 5


class Stopwatch:
    """Adds up what `Context.decode` takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._decode = Context.decode

    def __enter__(self) -> Stopwatch:
        def timed(context: Context, abort: Any = None) -> None:
            began = time.perf_counter()
            self._decode(context, abort)
            self.seconds += time.perf_counter() - began

        Context.decode = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Context.decode = self._decode  # type: ignore[method-assign]


def generating(model: str, streams: int, threads: int, temperature: float) -> GGUFEngine:
    """An engine with all its sequences beyond their prompts."""
    engine = GGUFEngine()
    options = {"context_length": CONTEXT, "parallel": streams, "threads": threads}
    engine.load(spec_for(model_path(model), "gguf", **options), ignore_progress)
    chance = random.Random(1)
    wanted = {"temperature": temperature, "seed": 1, "max_tokens": 1000, "ignore_eos": True}
    for key in range(streams):
        prompt = " ".join(str(chance.random()) for _ in range(5))
        engine.submit({"id": key, "kind": "generate", "prompt": prompt, "options": wanted})
    engine.step()
    while not all(sequence.generating for sequence in engine.active):
        engine.step()
    return engine


def bare(engine: GGUFEngine) -> float:
    """Seconds of `STEPS` decodes of a row for each sequence; leaves no trace."""
    context, cache = engine.context, engine.cache
    assert context is not None
    assert cache is not None
    held = [len(slot.tokens) for slot in cache.slots.all]
    began = time.perf_counter()
    for step in range(STEPS):
        context.batch.clear()
        for number, length in enumerate(held):
            context.batch.add(number, (ANY_TOKEN,), length + step, logits=True)
        context.decode()
    seconds = time.perf_counter() - began
    for number, length in enumerate(held):
        context.cut(number, length)
    return seconds


def measure(model: str, streams: int, threads: int, temperature: float) -> None:
    """Print one line."""
    engine = generating(model, streams, threads, temperature)
    ratios, beside = [], []
    for _ in range(ROUNDS):
        with Stopwatch() as watch:
            began = time.perf_counter()
            for _ in range(STEPS):
                engine.step()
            seconds = time.perf_counter() - began
        ratios.append(bare(engine) / seconds)
        beside.append((seconds - watch.seconds) / STEPS / streams)
    engine.close()
    print(
        f"{model}, {streams} streams, {threads} threads, temperature {temperature}: "
        f"{statistics.median(ratios):.3f} of a bare loop (from {min(ratios):.3f} to "
        f"{max(ratios):.3f}); {statistics.median(beside) * 1e3:.3f} ms a token beside "
        f"llama_decode; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=SHAPES, default="0.5b")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for streams in arguments.streams:
        for temperature in (0.0, 0.8):
            measure(arguments.model, streams, arguments.threads, temperature)


if __name__ == "__main__":
    main()
