"""Texts that go on past their context: what is thrown away, what stays right."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.gguf.engine.generator import GGUFEngine
from tests.gguf_vocabulary import COMMON_WORDS, byte_pairs
from tests.make_gguf import HEAD, ModelFile, attention, ends, feed_forward, transformer_facts
from tests.support_gguf import MIB, WORDS, Crowd, check_whole, forget, greedy, kv_spec, load
from tests.support_models import DEMO, ask, ignore_progress, make_engine, spec_for

LENGTH = 64  # a context that is full soon
# Where sums are made in the same order whoever else is there: 300 tokens forgive no rounding.
EXACT = {"context_length": LENGTH * 2, "kv_cache_type": "f32", "flash_attention": False}


def prompt_of(words: int, first: str = "") -> str:
    return " ".join([first, *(WORDS * 9)[:words]]).strip()


def shifting(tokens: int | None) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "context_shift": True}


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-qwen3", "tiny-qwen3moe"])
def test_a_text_goes_on_past_the_context(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, kind, context_length=LENGTH)
    answer = ask(engine, prompt=prompt_of(6), options=shifting(5 * LENGTH))
    assert answer.tokens == 5 * LENGTH
    assert answer.result["finish_reason"] == "length"
    check_whole(engine)
    forget(engine)
    plain = ask(engine, prompt=prompt_of(6), options=greedy(5 * LENGTH))
    assert plain.tokens == LENGTH - plain.result["usage"]["prompt_tokens"]
    assert answer.text.startswith(plain.text)
    engine.close()


def test_without_max_tokens_it_ends_after_four_contexts(tmp_path: Path) -> None:
    engine = load(tmp_path, "tiny-llama", context_length=LENGTH)
    assert ask(engine, prompt=prompt_of(6), options=shifting(None)).tokens == 4 * LENGTH
    engine.close()


def test_a_prompt_longer_than_the_context_is_refused_all_the_same(tmp_path: Path) -> None:
    engine = load(tmp_path, "tiny-llama", context_length=LENGTH)
    error = ask(engine, prompt=prompt_of(100), options=shifting(5)).error
    assert error["data"]["kind"] == "context_exceeded"
    engine.close()


def _flat(directory: Path) -> Path:
    """A model of one layer: a cell depends on its token and its position, and on nothing else."""
    path = directory / "tiny-flat-F32.gguf"
    model = ModelFile(path, "llama", "flat", 5)
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    model.facts(rope__dimension_count=HEAD)
    transformer_facts(model, 1)
    ends(model, len(vocabulary))
    attention(model, "blk.0")
    feed_forward(model, "blk.0")
    model.close()
    return path


@pytest.mark.parametrize("parallel", [1, 3])
def test_cells_that_moved_are_as_if_they_had_been_there_always(
    tmp_path: Path, parallel: int
) -> None:
    engine = GGUFEngine()
    options = {"context_length": LENGTH, "threads": 1, "kv_cache_type": "f32"}
    options["flash_attention"] = False
    spec = spec_for(_flat(tmp_path), "gguf", parallel=parallel, **options)
    engine.load(spec, ignore_progress)
    options = {**shifting(3 * LENGTH), "logprobs": 1}
    engine.submit({"id": 1, "kind": "generate", "prompt": prompt_of(6), "options": options})
    found: list[tuple[list[int], float]] = []
    while engine.busy:
        (output,) = engine.step()
        for sequence in engine.active:
            if sequence.slot.exact is not None:
                found.append((sequence.tokens.tolist(), output["delta"].logprobs[0]["logprob"]))
    assert len(found) > LENGTH
    context = engine.context
    assert context is not None
    forget(engine)
    for tokens, logprob in found[::5]:
        context.batch.clear()
        row = context.batch.add(0, tokens[:-1], 0, logits=True)
        context.decode()
        logits = context.logits(row).tolist()
        context.cut(0, 0)
        total = math.log(math.fsum(math.exp(value) for value in logits))
        assert logprob == pytest.approx(logits[tokens[-1]] - total, abs=1e-3)
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-qwen2 unified"])
def test_it_is_the_same_beside_others_and_does_them_no_harm(tmp_path: Path, kind: str) -> None:
    alone = load(tmp_path, kind.partition(" ")[0], parallel=1, **EXACT)
    crowd = Crowd(load(tmp_path, kind, **EXACT))
    asked = {
        key: (prompt_of(4 + key, first), shifting(300) if key % 2 else greedy(60))
        for key, first in enumerate(["one", "two", "three", "four", "five"])
    }
    for key, (prompt, options) in asked.items():
        crowd.submit(key, prompt, **options)
        crowd.step()
    crowd.run()
    check_whole(crowd.engine)
    for key, (prompt, options) in asked.items():
        forget(alone)
        assert crowd.texts[key] == ask(alone, prompt=prompt, options=options).text
    alone.close()
    crowd.engine.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified"])
def test_what_is_retained_serves_a_later_prompt_rightly(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, kind, kv_spec(MIB), context_length=LENGTH * 2)
    long = ask(engine, prompt=prompt_of(20), options=shifting(300))
    check_whole(engine)
    cache = engine.cache
    assert cache is not None
    # No more than the kept beginning: the rest was computed from tokens that are gone.
    assert max(len(slot.tokens) for slot in cache.slots.all) <= LENGTH * 2 // 4
    prompts = [prompt_of(20), prompt_of(10) + long.text[-80:], prompt_of(25)]
    again = [ask(engine, prompt=prompt, options=greedy(20)).text for prompt in prompts]
    fresh = []
    for prompt in prompts:
        forget(engine)
        fresh.append(ask(engine, prompt=prompt, options=greedy(20)).text)
    assert again == fresh
    engine.close()


def test_cells_that_others_share_are_not_moved_under_them(tmp_path: Path) -> None:
    # A common beginning longer than what a shift keeps and throws away, in one pool of cells.
    engine = load(tmp_path, "tiny-llama unified", context_length=LENGTH * 2)
    crowd = Crowd(engine)
    prompt = prompt_of(60)
    crowd.submit(1, prompt, **shifting(200))
    for _ in range(3):
        crowd.step()
    crowd.submit(2, prompt + " and", **greedy(10))
    crowd.submit(3, prompt, **shifting(100))
    crowd.run()
    assert crowd.over[2]["usage"]["cached_tokens"] > LENGTH * 2 * 5 // 8
    check_whole(engine)
    alone = load(tmp_path, "tiny-llama", context_length=LENGTH * 2, parallel=1)
    assert crowd.texts[2] == ask(alone, prompt=prompt + " and", options=greedy(10)).text
    alone.close()
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-gemma3", "tiny-mamba", "tiny-jamba"])
def test_memories_that_cannot_be_shifted_say_so(tmp_path: Path, kind: str) -> None:
    engine = load(tmp_path, kind)
    error = ask(engine, prompt="the people", options=shifting(5)).error
    assert error["data"]["kind"] == "unsupported"
    assert error["data"]["capability"] == "context_shift"
    assert ask(engine, prompt="the people", options=greedy(5)).tokens == 5
    engine.close()


def test_the_huggingface_engine_has_no_context_shift() -> None:
    engine = make_engine("huggingface")
    engine.load(spec_for(DEMO / "demo-hf", "huggingface"), ignore_progress)
    error = ask(engine, prompt="hello", options=shifting(5)).error
    assert error["data"] == {
        "kind": "unsupported",
        "capability": "context_shift",
        "format": "huggingface",
    }
    engine.close()


def test_a_load_of_requests_with_shifts_and_cancels_leaves_nothing_behind(tmp_path: Path) -> None:
    for kind in ("tiny-llama", "tiny-llama unified"):
        engine = load(tmp_path, kind, context_length=LENGTH)
        chance, crowd = random.Random(3), Crowd(engine)
        for key in range(150):
            words = chance.randrange(1, 20)
            crowd.submit(key, prompt_of(words), **shifting(chance.randrange(1, 200)))
            if chance.random() < 0.3:
                crowd.cancel(chance.randrange(max(0, key - 6), key + 1))
            while len(crowd.texts) - len(crowd.over) > 5:
                crowd.step()
        crowd.run()
        check_whole(engine)
        forget(engine)
        check_whole(engine)
        engine.close()
