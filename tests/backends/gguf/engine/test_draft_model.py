"""A draft model beside a model: the same texts, sooner; nothing is left where it was wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.api import KVSpec
from hybridd.backends.gguf.draft_facts import MAX_DRAFT
from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.make_gguf import write_adapter
from tests.support_gguf import (
    ARRIVALS,
    EXACT,
    MIB,
    WORDS,
    Alone,
    Arrival,
    Crowd,
    check_whole,
    eager_drafts,
    forget,
    greedy,
    kv_spec,
    load,
)
from tests.support_models import ask, delta_of

# Model, draft model: itself, and another one of random weights with the same vocabulary.
PAIRS = [
    ("tiny-llama", "tiny-llama"),
    ("tiny-llama", "tiny-qwen2"),
    ("tiny-llama unified", "tiny-llama"),
    ("tiny-qwen3 unified", "tiny-llama"),
    ("tiny-gemma3", "tiny-gemma3"),
    ("tiny-gemma3 unified", "tiny-gemma3"),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    with eager_drafts():
        yield


@pytest.fixture(scope="module", params=PAIRS, ids=" ".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    made: tuple[str, str] = request.param
    return made


@pytest.fixture(scope="module")
def drafting(directory: Path, pair: tuple[str, str], eager: None) -> Iterator[GGUFEngine]:
    engine = load(directory, pair[0], draft_model=pair[1], **EXACT)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def plain(directory: Path, pair: tuple[str, str]) -> Iterator[GGUFEngine]:
    engine = load(directory, pair[0].partition(" ")[0], **EXACT)
    yield engine
    engine.close()


def drafted(done: dict[str, Any]) -> tuple[int, int]:
    timings = done["timings"]
    return timings["draft_tokens"], timings["draft_accepted_tokens"]


OPTIONS: list[dict[str, Any]] = [
    greedy(40),
    {"seed": 7, "max_tokens": 40, "ignore_eos": True},
    {"seed": 7, "max_tokens": 40, "temperature": 2.0, "top_k": 0, "min_p": 0, "top_p": 1},
    {**greedy(40), "repeat_penalty": 1.3, "frequency_penalty": 0.5},
    {"seed": 3, "max_tokens": 40, "presence_penalty": 1.0, "logit_bias": {"300": 5.0}},
    {**greedy(40), "logprobs": 2, "stop": ["e"]},
    greedy(1),
    greedy(2),
    greedy(0),
]


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
def test_alone_the_answer_is_the_one_without(
    drafting: GGUFEngine, plain: GGUFEngine, options: dict[str, Any]
) -> None:
    for engine in (drafting, plain):
        forget(engine)
    prompt = " ".join(WORDS * 2)
    expected = ask(plain, prompt=prompt, options=options)
    answer = ask(drafting, prompt=prompt, options=options)
    assert answer.text == expected.text
    assert answer.tokens == expected.tokens
    assert answer.result["finish_reason"] == expected.result["finish_reason"]
    assert answer.result["usage"] == expected.result["usage"]
    assert "draft_tokens" not in expected.result["timings"]
    for one, other in zip(answer.logprobs, expected.logprobs, strict=True):
        assert one["id"] == other["id"]
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-3)
    check_whole(drafting)


def test_in_company_as_well(drafting: GGUFEngine, plain: GGUFEngine, pair: tuple[str, str]) -> None:
    texts = []
    for engine in (drafting, plain):
        forget(engine)
        crowd, steps = Crowd(engine), 0
        for key, options in enumerate(OPTIONS[:6] * 2):
            crowd.submit(key, " ".join(WORDS[key % 5 :]), **options)
            crowd.step()
            steps += 1
        while engine.busy:
            crowd.step()
            steps += 1
        texts.append((crowd.texts, crowd.tokens, steps))
        if engine is drafting:
            found = [drafted(done) for done in crowd.over.values()]
    (ours, our_tokens, our_steps), (theirs, tokens, their_steps) = texts
    assert ours == theirs
    assert our_tokens == tokens
    right, asked = sum(a for _, a in found), sum(p for p, _ in found)
    assert asked > 100
    if pair[0].startswith(pair[1]):
        assert right > asked / 4
        assert our_steps < their_steps
    else:
        assert right < asked / 10
    check_whole(drafting)


@settings(max_examples=12)
@given(ARRIVALS)
def test_who_comes_and_goes_leaves_no_cell_behind(
    drafting: GGUFEngine, plain: GGUFEngine, arrivals: list[Arrival]
) -> None:
    crowd = Crowd(drafting)
    crowd.come_and_go(arrivals)
    alone = Alone(plain)
    for key, (_, prompt, tokens, _) in enumerate(arrivals):
        if key in crowd.texts:
            assert alone.said(prompt, tokens, crowd.texts[key])
            assert crowd.tokens[key] == tokens
    check_whole(drafting)


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified"])
def test_beside_prompts_all_get_on_in_a_small_micro_batch(
    directory: Path, eager: None, kind: str
) -> None:
    engine = load(directory, kind, draft_model="tiny-llama", ubatch_size=16, **EXACT)
    alone = Alone(load(directory, "tiny-llama", parallel=1, **EXACT))
    crowd = Crowd(engine)
    prompts = [" ".join(random.Random(n).choices(WORDS, k=8 * n + 1)) for n in range(8)]
    for key, prompt in enumerate(prompts):
        crowd.submit(key, prompt, **greedy(25))
        crowd.step()
        crowd.step()
    crowd.run()
    assert all(alone.said(prompt, 25, crowd.texts[key]) for key, prompt in enumerate(prompts))
    assert sum(drafted(done)[1] for done in crowd.over.values()) > 0
    check_whole(engine)
    engine.close()
    alone.engine.close()


def test_nobody_gives_way_to_a_draft(directory: Path, eager: None) -> None:
    """Cells run out in both contexts; what has to wait ends as if it had not."""
    engine = load(directory, "tiny-qwen2 unified", draft_model="tiny-qwen2", **EXACT)
    alone = Alone(load(directory, "tiny-qwen2", parallel=1, **EXACT))
    crowd, paused = Crowd(engine), False
    prompts = [f"{word} {word} {' '.join(WORDS * 6)}" for word in WORDS[:6]]
    for key, prompt in enumerate(prompts):
        crowd.submit(key, prompt, **greedy(80))
    while engine.busy:
        crowd.step()
        paused = paused or any(s.paused for s in engine.active)
    assert paused
    assert all(alone.said(prompt, 80, crowd.texts[key]) for key, prompt in enumerate(prompts))
    check_whole(engine)
    engine.close()
    alone.engine.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified"])
def test_a_text_that_goes_on_past_the_context(directory: Path, eager: None, kind: str) -> None:
    options = {**greedy(150), "context_shift": True}
    texts = []
    for draft in ({"draft_model": "tiny-llama"}, {}):
        engine = load(directory, kind, context_length=64, **EXACT, **draft)
        crowd = Crowd(engine)
        for key in range(3):
            crowd.submit(key, " ".join(WORDS[key : key + 6]), **options)
            crowd.step()
        crowd.run()
        texts.append(crowd.texts)
        check_whole(engine)
        engine.close()
    assert texts[0] == texts[1]


def test_conversations_are_reused_as_without(directory: Path, tmp_path: Path, eager: None) -> None:
    found: list[list[tuple[str, int]]] = []
    for name, draft in (("with", {"draft_model": "tiny-llama"}), ("without", {})):
        (tmp_path / name).mkdir()
        kv: KVSpec = kv_spec(64 * MIB, tmp_path / name, 64 * MIB)
        turns: list[tuple[str, int]] = []
        for _ in range(2):  # the second time out of files
            engine = load(directory, "tiny-llama", kv, parallel=2, **EXACT, **draft)
            for n in (0, 1, 2, 0, 2, 1):
                prompt = " ".join(random.Random(n).choices(WORDS, k=40))
                first = ask(engine, prompt=prompt, options=greedy(9))
                second = ask(engine, prompt=f"{prompt}{first.text} and", options=greedy(9))
                for answer in (first, second):
                    turns.append((answer.text, answer.result["usage"]["cached_tokens"]))
            engine.retire()
            check_whole(engine)
            engine.close()
        found.append(turns)
    assert found[0] == found[1]


def test_adapters_make_drafts_worse_and_nothing_else(directory: Path, eager: None) -> None:
    adapters = [{"name": "one", "path": str(write_adapter(directory / "one.gguf"))}]
    texts = []
    for draft in ({"draft_model": "tiny-llama"}, {}):
        engine = load(directory, "tiny-llama", adapters=adapters, **EXACT, **draft)
        crowd = Crowd(engine)
        for key in range(4):
            named = [{"name": "one", "scale": 1.0}] if key % 2 else []
            crowd.submit(key, " ".join(WORDS[key:]), **greedy(40), adapters=named)
        crowd.run()
        texts.append(crowd.texts)
        engine.close()
    assert texts[0] == texts[1]


def test_a_draft_model_made_for_less_context_stops_there(directory: Path, eager: None) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-llama", **EXACT)
    assert engine.drafter is not None
    engine.drafter.context.length = 64
    plain = load(directory, "tiny-llama", **EXACT)
    answer = ask(engine, prompt="the people", options=greedy(150))
    assert answer.text == ask(plain, prompt="the people", options=greedy(150)).text
    assert max(map(len, engine.drafter.held)) <= 64
    assert 0 < drafted(answer.result)[1] < 64
    for each in (engine, plain):
        each.close()


def test_no_draft_is_longer_than_what_is_left(directory: Path, eager: None) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-llama", **EXACT)
    engine.submit({"id": 1, "kind": "generate", "prompt": "the people", "options": greedy(14)})
    while engine.busy:
        left = [s.generation.remaining_tokens for s in engine.active]
        outputs = engine.step()
        assert all(
            delta_of(output).tokens <= min(left[0], 1 + MAX_DRAFT) for output in outputs if left
        )
        assert len(outputs) <= 1, "what a step brings for a request is one output"
    engine.close()
