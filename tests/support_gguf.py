"""GGUF engines on tiny models of random weights: loading, crowds of requests, what has to hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from hybridd.backends.api import KVSpec
from hybridd.backends.gguf.engine.drafting import draft_policy
from hybridd.backends.gguf.engine.drafting import drafter as drafter_module
from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.make_gguf import write_tiny
from tests.support_models import Answer, ask, delta_of, ignore_progress, spec_for

TEXT = "the people could find water and so their first words were about seven other things"
WORDS = TEXT.split(" ")
# Fewer cells than two whole contexts: four requests of 60 tokens do not fit together.
UNIFIED_CELLS = 300
MIB = 1024 * 1024
# Where sums are made in the same order whatever the batch: so that texts can be compared whole.
EXACT = {"kv_cache_type": "f32", "flash_attention": False}
# One who comes: after how many steps, with which prompt, for how many tokens, and how many steps
# later it leaves, if it does.
Arrival = tuple[int, str, int, int | None]
PROMPTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=25).map(" ".join)
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 5), PROMPTS, st.integers(1, 30), st.sampled_from([None, None, 1, 7])),
    min_size=2,
    max_size=7,
)
# Of log probabilities; seen were differences of up to 0.001 between sizes of batches.
TIE = 0.01


def kv_spec(host: int = 0, directory: Path | None = None, disk: int = 0) -> KVSpec:
    """What may be kept of conversations."""
    return KVSpec(
        host_cache_bytes=host, persist_bytes=disk, persist_dir=str(directory) if directory else ""
    )


def load(directory: Path, kind: str, kv: KVSpec | None = None, **options: Any) -> GGUFEngine:
    """A tiny model in the engine; "unified" shares too few cells.

    `adapters` among the options are names and paths, `draft_model` is the name of a tiny model.
    """
    name, _, unified = kind.partition(" ")
    path = _tiny(directory, name)
    given_options = {"context_length": 256, "threads": 1, "parallel": 4, **options}
    if unified:
        given_options["kv_cells"] = UNIFIED_CELLS
    placed = given_options.pop("adapters", [])
    given_options["adapters"] = [{"name": a["name"], "path_or_id": a["name"]} for a in placed]
    spec = spec_for(path, "gguf", **given_options)
    spec["adapters"] = placed
    if draft := options.get("draft_model"):
        spec["draft"] = {"model": draft, "path": str(_tiny(directory, draft))}
    if kv is not None:
        spec["kv"] = kv
    engine = GGUFEngine()
    engine.load(spec, ignore_progress)
    return engine


def _tiny(directory: Path, name: str) -> Path:
    path = directory / f"{name}-F32.gguf"
    return path if path.exists() else write_tiny(name, directory)


class Alone:
    """Answers of requests that had the model to themselves, and nothing cached."""

    def __init__(self, engine: GGUFEngine) -> None:
        self.engine = engine
        self._known: dict[tuple[str, int], Answer] = {}

    def answer(self, prompt: str, tokens: int) -> Answer:
        if (prompt, tokens) not in self._known:
            forget(self.engine)
            options = {**greedy(tokens), "logprobs": 2}
            self._known[prompt, tokens] = ask(self.engine, prompt=prompt, options=options)
        return self._known[prompt, tokens]

    def said(self, prompt: str, tokens: int, text: str) -> bool:
        """Whether `text` is the answer, as far as rounding allows.

        llama.cpp sums in another order for another size of batch. Where two tokens are so close
        that this decides between them, what follows is not compared.
        """
        answer = self.answer(prompt, tokens)
        for number, entry in enumerate(answer.logprobs):
            first, second = (top["logprob"] for top in entry["top_logprobs"])
            if first - second < TIE:
                return text.startswith("".join(answer.deltas[:number]))
        return text == answer.text


def greedy(tokens: int) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}


def forget(engine: GGUFEngine) -> None:
    """Let go of every retained prefix."""
    cache = engine.cache
    assert cache is not None
    for slot in cache.slots.all:
        cache.forget(slot)


def check_whole(engine: GGUFEngine) -> None:
    """What the slots say is what llama.cpp has, and nobody is left in them."""
    cache, context = engine.cache, engine.context
    assert cache is not None
    assert context is not None
    assert not engine.busy
    for slot in cache.slots.all:
        assert not slot.busy
        assert context.held(slot.index) == len(slot.tokens)
    if (drafter := engine.drafter) is not None:
        for index, held in enumerate(drafter.held):
            assert drafter.context.held(index) == len(held)


class Crowd:
    """Requests that come and go; drives the engine and gathers what each got."""

    def __init__(self, engine: GGUFEngine) -> None:
        self.engine = engine
        self.texts: dict[int, str] = {}
        self.tokens: dict[int, int] = {}
        self.over: dict[int, dict[str, Any]] = {}

    def submit(self, key: int, prompt: str, **options: Any) -> None:
        self.texts[key] = ""
        self.tokens[key] = 0
        self.engine.submit({"id": key, "kind": "generate", "prompt": prompt, "options": options})

    def cancel(self, key: int) -> None:
        if key in self.texts and key not in self.over:
            self.engine.cancel(key)
            del self.texts[key]

    def step(self) -> None:
        for output in self.engine.step():
            key = output["id"]
            assert key in self.texts, "an output of a request that was cancelled"
            assert key not in self.over, "an output after the end"
            self.texts[key] += delta_of(output).text
            self.tokens[key] += delta_of(output).tokens
            assert "error" not in output
            if "done" in output:
                self.over[key] = output["done"]

    def run(self) -> None:
        while self.engine.busy:
            self.step()

    def come_and_go(self, arrivals: Sequence[Arrival]) -> None:
        """Greedy requests, by their place in `arrivals`; returns when all are over."""
        leaving: dict[int, int] = {}
        steps = 0

        def step() -> None:
            nonlocal steps
            self.step()
            steps += 1
            for key in [key for key, at in leaving.items() if at <= steps]:
                self.cancel(key)

        for key, (wait, prompt, tokens, leaves) in enumerate(arrivals):
            for _ in range(wait):
                step()
            self.submit(key, prompt, **greedy(tokens))
            if leaves is not None:
                leaving[key] = steps + leaves
        while self.engine.busy:
            step()


def check_alike(crowd: Crowd, alone: Alone, arrivals: Sequence[Arrival]) -> None:
    """Whoever stayed got the text that they get alone, and was counted alike."""
    for key, (_, prompt, tokens, _) in enumerate(arrivals):
        if key in crowd.over:
            assert alone.said(prompt, tokens, crowd.texts[key])
            expected = alone.answer(prompt, tokens).result["usage"]
            usage = {**crowd.over[key]["usage"], "cached_tokens": 0}
            assert usage == {**expected, "cached_tokens": 0}


@contextmanager
def eager_drafts() -> Iterator[None]:
    """Have everything drafted at full length, however badly it goes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafter_module, "CONFIDENCE", 0.0)
        patch.setattr(drafter_module, "ROW_COST", 0.0)
        patch.setattr(draft_policy, "_DRAFT_COST", 0.0)
        patch.setattr(draft_policy, "_HOPELESS_RATE", -1.0)
        yield
