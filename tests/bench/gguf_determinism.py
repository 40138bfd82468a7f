"""How often does a greedy request get other tokens in company than alone, and by how little?

    python -m tests.bench.gguf_determinism MODEL.gguf [MODEL.gguf…] [--requests 200]

Each request runs alone in an engine for one, then among others that come and go in an engine for
eight. llama.cpp computes a batch with other kernels, and sums in another order, than a single row,
so that log probabilities differ in their last digits; where two tokens are as close, the other one
is taken and the text goes another way. Printed: how many of the requests differ, where the first
did, the largest difference of a log probability as long as the texts are equal, and the largest
distance of the two likeliest tokens at which the choice turned.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.support_gguf import WORDS, forget
from tests.support_models import delta_of, ignore_progress, spec_for

CONTEXT = 512
Entries = Sequence[dict[str, Any]]


class Request(NamedTuple):
    """One greedy request, and how many steps after the one before it comes."""

    prompt: str
    tokens: int
    wait: int


def requests(count: int, tokens: int) -> list[Request]:
    """Prompts of 1 to 60 words; texts of half as many to as many tokens as `tokens`."""
    chance = random.Random(11)
    return [
        Request(
            " ".join(chance.choices(WORDS, k=chance.randrange(1, 60))),
            chance.randrange(tokens // 2, tokens),
            chance.randrange(4),
        )
        for _ in range(count)
    ]


def engine_for(path: Path, **options: Any) -> GGUFEngine:
    engine = GGUFEngine()
    engine.load(spec_for(path, "gguf", context_length=CONTEXT, **options), ignore_progress)
    return engine


def run(engine: GGUFEngine, given: Sequence[Request], at_once: int, turns: bool) -> list[Entries]:
    """What each request got, `at_once` of them at a time.

    Args:
        turns: Change the number of threads at every step.
    """
    made: list[list[dict[str, Any]]] = [[] for _ in given]
    todo, running, steps, wait = list(enumerate(given)), 0, 0, 0
    while todo or engine.busy:
        while todo and running < at_once and wait <= 0:
            key, request = todo.pop(0)
            if at_once == 1:
                forget(engine)
            options = {"temperature": 0, "max_tokens": request.tokens, "ignore_eos": True}
            engine.submit(
                {
                    "id": key,
                    "kind": "generate",
                    "prompt": request.prompt,
                    "options": {**options, "logprobs": 2},
                }
            )
            running, wait = running + 1, request.wait if at_once > 1 else 0
        if turns:
            engine.set_threads(1 + steps % 2)
        steps, wait = steps + 1, wait - 1
        for output in engine.step():
            made[output["id"]] += delta_of(output).logprobs or []
            running -= "done" in output
    return [list(entries) for entries in made]


def compare(alone: Sequence[Entries], other: Sequence[Entries]) -> str:
    """One line of figures."""
    firsts: list[int] = []
    margins: list[float] = []
    largest = 0.0
    for one, two in zip(alone, other, strict=True):
        pairs = list(zip(one, two, strict=True))
        first = next((at for at, (a, b) in enumerate(pairs) if a["id"] != b["id"]), None)
        for a, b in pairs[:first]:
            largest = max(largest, abs(a["logprob"] - b["logprob"]))
        if first is not None:
            firsts.append(first)
            likeliest = [entry["logprob"] for entry in pairs[first][0]["top_logprobs"]]
            margins.append(likeliest[0] - likeliest[1])
    tokens = sum(map(len, alone))
    line = f"{len(firsts):4} of {len(alone)} requests ({tokens} tokens) differ"
    line += f", log probabilities by up to {largest:.6f}"
    if firsts:
        line += f", the first at token {min(firsts)}, at a margin of up to {max(margins):.6f}"
    return line


WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "f32 cache, no flash attention": {"kv_cache_type": "f32", "flash_attention": False},
    "cells shared by all": {"kv_cells": CONTEXT * 4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--few", type=int, default=20, help="requests for changing threads")
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    given = requests(arguments.requests, arguments.tokens)
    for path in arguments.model:
        print(f"{path.name}  (load average {os.getloadavg()[0]:.1f})", flush=True)
        for way, options in WAYS.items():
            engine = engine_for(path, parallel=1, threads=1, **options)
            alone = run(engine, given, 1, False)
            engine.close()
            if way == "default":
                few = slice(arguments.few)
                engine = engine_for(path, parallel=1, threads=2)
                turning = run(engine, given[few], 1, True)
                engine.close()
                line = compare(alone[few], turning)
                print(f"  alone, threads change at every step: {line}", flush=True)
            engine = engine_for(path, parallel=8, threads=1, **options)
            print(f"  {way}: {compare(alone, run(engine, given, 8, False))}", flush=True)
            engine.close()


if __name__ == "__main__":
    main()
