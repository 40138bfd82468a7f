"""Passes filled for attention's sake change nothing: no text, no cell, whoever else is there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.weights.attention_tiles import ROWS
from tests.make_gguf import write_adapter
from tests.support_gguf import (
    EXACT,
    MIB,
    WORDS,
    Alone,
    Arrival,
    Crowd,
    check_alike,
    check_whole,
    eager_drafts,
    forget,
    greedy,
    kv_spec,
    load,
)
from tests.support_models import ask
from tests.support_tiles import NowAndThenApart

# Short, so that filling meets the end of contexts.
LENGTH = 128
# Model and draft model.
CASES = [
    ("tiny-llama", None),
    ("tiny-llama unified", None),
    ("tiny-qwen3moe", None),
    ("tiny-qwen2 unified", None),
    ("tiny-llama", "tiny-llama"),
    ("tiny-llama unified", "tiny-qwen2"),
]
# Prompts of 5 to 120 tokens, which begin in few ways: some are the next turns of others.
PROMPTS = st.tuples(st.integers(0, 3), st.integers(3, 80)).map(
    lambda drawn: " ".join((WORDS * 9)[drawn[0] : sum(drawn)])
)
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 3),
        PROMPTS,
        st.integers(1, 30),
        st.sampled_from([None, None, None, 1, 3]),
    ),
    min_size=2,
    max_size=12,
)


class Watched(Crowd):
    """Sees to it that after each step the cells are what the slots say."""

    def __init__(self, engine: GGUFEngine) -> None:
        super().__init__(engine)
        self.most = 0

    def step(self) -> None:
        context, cache = self.engine.context, self.engine.cache
        assert context is not None
        assert cache is not None
        super().step()
        self.most = max(self.most, context.batch.native.n_tokens)
        for slot in cache.slots.all:
            assert context.held(slot.index) == len(slot.tokens)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    with eager_drafts():
        yield


def filled(directory: Path, kind: str, **options: Any) -> GGUFEngine:
    """An engine that fills whatever can be filled, on sums that no filling changes."""
    # Shared cells are 512: some of eight requests have to wait.
    given_options = {"context_length": LENGTH, "parallel": 8, **EXACT, **options}
    kv = given_options.pop("kv", None)
    engine = load(directory, kind, kv, **given_options)
    assert engine.context is not None
    assert engine.context.tiles is None, "attention without tiles gains nothing"
    engine.context.tiles = NowAndThenApart(1.0)
    return engine


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[str, str | None]:
    made: tuple[str, str | None] = request.param
    return made


@pytest.fixture(scope="module")
def filling(directory: Path, case: tuple[str, str | None], eager: None) -> Iterator[GGUFEngine]:
    kind, draft = case
    engine = filled(directory, kind, **({"draft_model": draft} if draft else {}))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone(directory: Path, case: tuple[str, str | None]) -> Iterator[Alone]:
    name = case[0].partition(" ")[0]
    engine = load(directory, name, context_length=LENGTH, parallel=1, **EXACT)
    yield Alone(engine)
    engine.close()


@settings(max_examples=30)
@given(ARRIVALS)
def test_everyone_gets_what_they_get_alone(
    filling: GGUFEngine, alone: Alone, arrivals: list[Arrival]
) -> None:
    crowd = Watched(filling)
    crowd.come_and_go(arrivals)
    check_alike(crowd, alone, arrivals)
    check_whole(filling)


@pytest.mark.parametrize("cells", ["tiny-llama", "tiny-llama unified"])
def test_a_context_is_filled_to_its_last_cell(directory: Path, cells: str) -> None:
    engine = filled(directory, cells)
    alone = load(directory, "tiny-llama", context_length=LENGTH, parallel=1, **EXACT)
    words, ends = (WORDS * 9)[:85], set[int]()
    for count in range(25, len(words)):
        crowd, prompt = Watched(engine), " ".join(words[:count])
        crowd.submit(0, prompt, **greedy(LENGTH))
        crowd.run()
        usage = crowd.over[0]["usage"]
        assert usage["prompt_tokens"] + usage["completion_tokens"] == LENGTH
        forget(alone)
        assert crowd.texts[0] == ask(alone, prompt=prompt, options=greedy(LENGTH)).text
        if crowd.most >= ROWS:
            ends.add(usage["cached_tokens"])
    assert max(ends) == LENGTH - ROWS
    check_whole(engine)
    alone.close()
    engine.close()


def test_nobody_gives_way_to_filling(directory: Path) -> None:
    engine = filled(directory, "tiny-llama unified", context_length=256)
    words, crowd = WORDS * 9, Watched(engine)
    assert engine.context is not None
    assert engine.context.cells == 512
    talks = [" ".join(words[n : n + count]) for n, count in enumerate([125, 125, 60])]
    for key, talk in enumerate(talks):
        crowd.submit(key, talk, **greedy(1))
        crowd.run()
    before = _held(engine)
    assert 512 - ROWS < sum(before) < 512 - 25
    crowd.submit(3, talks[2] + crowd.texts[2] + " and the people", **greedy(1))
    crowd.run()
    assert crowd.over[3]["usage"]["cached_tokens"] > 20
    assert all(after >= held for after, held in zip(_held(engine), before, strict=True))
    engine.close()


def _held(engine: GGUFEngine) -> list[int]:
    assert engine.cache is not None
    return [len(slot.tokens) for slot in engine.cache.slots.all]


@pytest.mark.parametrize("cells", ["tiny-llama", "tiny-llama unified"])
def test_a_filled_pass_that_is_aborted_leaves_nothing(directory: Path, cells: str) -> None:
    engine = filled(directory, cells)
    alone = Alone(load(directory, "tiny-llama", context_length=LENGTH, parallel=1, **EXACT))
    crowd = Watched(engine)
    gone: set[int] = set()
    for key in range(30):
        prompt = " ".join((WORDS * 9)[key % 7 : key % 7 + 20 + key])
        crowd.submit(key, prompt, **greedy(4))
        if key % 3 == 1:
            gone.add(key)
            engine.set_interrupted(gone.__contains__)
            crowd.step()
            assert crowd.tokens[key] == 0
            crowd.cancel(key)
        else:
            crowd.run()
            assert alone.said(prompt, 4, crowd.texts[key])
    assert crowd.most >= ROWS
    check_whole(engine)
    alone.engine.close()
    engine.close()


@pytest.mark.parametrize("cells", ["tiny-llama", "tiny-llama unified"])
def test_adapters_and_filling(directory: Path, cells: str) -> None:
    path = write_adapter(directory / "one.gguf", seed=1)
    adapters = [{"name": "one", "path": str(path)}]
    engine = filled(directory, cells, adapters=adapters)
    plain = load(directory, cells, context_length=LENGTH, adapters=adapters, **EXACT)
    chance, crowd = random.Random(3), Watched(engine)
    asked = []
    for key in range(16):
        prompt = " ".join(chance.choices(WORDS, k=chance.randint(10, 50)))
        named = [{"name": "one", "scale": chance.choice([0, 1, 0.5])}]
        asked.append((prompt, {**greedy(12), "adapters": named}))
        crowd.submit(key, prompt, **asked[-1][1])
        for _ in range(chance.randint(0, 3)):
            crowd.step()
    crowd.run()
    assert crowd.most >= ROWS
    for key, (prompt, options) in enumerate(asked):
        forget(plain)
        assert crowd.texts[key] == ask(plain, prompt=prompt, options=options).text
    check_whole(engine)
    plain.close()
    engine.close()


@pytest.mark.parametrize("cells", ["tiny-llama", "tiny-llama unified"])
def test_conversations_that_come_back_from_host_and_disk(
    directory: Path, tmp_path: Path, cells: str
) -> None:
    kv = kv_spec(64 * MIB, tmp_path, 64 * MIB)
    plain = load(directory, cells, context_length=LENGTH, **EXACT)
    chance = random.Random(5)
    talks = [" ".join(chance.choices(WORDS, k=20)) for _ in range(6)]
    for _ in range(2):
        engine = filled(directory, cells, kv=kv, parallel=2)
        crowd = Watched(engine)
        for key, talk in enumerate(talks):
            crowd.submit(key, talk, **greedy(6))
            crowd.step()
        crowd.run()
        for key, talk in enumerate(talks):
            forget(plain)
            assert crowd.texts[key] == ask(plain, prompt=talk, options=greedy(6)).text
            talks[key] += crowd.texts[key] + " and so seven"
        check_whole(engine)
        engine.retire()
        engine.close()
    plain.close()


@pytest.mark.parametrize("cells", ["tiny-llama", "tiny-llama unified"])
def test_texts_that_go_on_past_their_context(directory: Path, cells: str) -> None:
    engine = filled(directory, cells)
    plain = load(directory, cells, context_length=LENGTH, **EXACT)
    options = {**greedy(2 * LENGTH), "context_shift": True}
    prompts = [" ".join(WORDS[n:] * 3) for n in range(4)]
    texts = []
    for each in (engine, plain):
        crowd = Watched(each)
        for key, prompt in enumerate(prompts):
            crowd.submit(key, prompt, **options)
        crowd.run()
        texts.append(crowd.texts)
        check_whole(each)
        each.close()
    assert texts[0] == texts[1]
