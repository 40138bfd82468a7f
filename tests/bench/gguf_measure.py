"""What the parts of the GGUF benchmark share: arrivals of tokens, prompts, pairs of runs."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.gguf_models import words

# docs/protocol.md's defaults, said to both sides. A seed each, so that no stream is another's copy.
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05}


class Stream(NamedTuple):
    """One request as its reader saw it: when it was sent, and (when, how many tokens) came."""

    began: float
    arrivals: list[tuple[float, int]]

    @property
    def first(self) -> float:
        return self.arrivals[0][0]

    @property
    def last(self) -> float:
        return self.arrivals[-1][0]


def generated_per_s(streams: Sequence[Stream]) -> float:
    """Tokens per second of all streams while all of them generate.

    Where that never happens (an engine that serves one after the other) it is those of the whole
    time from the first token to the last, prompts included.
    """
    begin, end = max(s.first for s in streams), min(s.last for s in streams)
    if end <= begin:
        begin, end = min(s.first for s in streams), max(s.last for s in streams)
    count = sum(n for s in streams for when, n in s.arrivals if begin < when <= end)
    return count / (end - begin)


def throughput_per_s(streams: Sequence[Stream], tokens_each: int) -> float:
    """All tokens by the time from the first request to the last token."""
    return tokens_each * len(streams) / (max(s.last for s in streams) - streams[0].began)


def first_token_s(streams: Sequence[Stream]) -> float:
    """The median time to the first token."""
    return statistics.median(s.first - s.began for s in streams)


class Prompts:
    """Texts of so many tokens, never the same again, so that no cache knows them."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._words = words()

    def text(self, tokens: int) -> str:
        """Words, each of which is one token with the space before it."""
        return "".join(" " + word for word in self._chance.choices(self._words, k=tokens))

    def conversation(self, tokens: int) -> list[dict[str, str]]:
        """One message of a user."""
        return [{"role": "user", "content": self.text(tokens)}]


Figures = Mapping[str, float]


def pairs(
    title: str,
    units: Mapping[str, str],
    ours: Callable[[], Figures],
    theirs: Callable[[], Figures],
    rounds: int,
) -> dict[str, float]:
    """Run both in turns and print the medians of each figure and of its ratio.

    Args:
        title: What is compared with what, on which model.
        units: Of the figures by their names; both sides have them all.
    """
    runs: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        if number % 2 == 0:
            mine, other = ours(), theirs()
        else:
            other, mine = theirs(), ours()
        runs.append((mine, other))
    load = os.getloadavg()[0]
    print(f"{title} ({rounds} pairs, load {load:.1f})")
    ratios = {}
    for name, unit in units.items():
        mine_m = statistics.median(mine[name] for mine, _ in runs)
        other_m = statistics.median(other[name] for _, other in runs)
        each = sorted(mine[name] / other[name] for mine, other in runs)
        ratios[name] = statistics.median(each)
        print(
            f"  {name:24} {mine_m:9.3f} / {other_m:9.3f} {unit:4} = {ratios[name]:.3f}"
            f"   (from {each[0]:.3f} to {each[-1]:.3f})",
            flush=True,
        )
    return ratios


def processor_s(pid: int) -> float:
    """Processor time of a process's living threads, to the nanosecond, unlike /proc/PID/stat's."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9
