"""Many requests in one batch, on random-weight models of every kind that llama.cpp knows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
import numpy as np  # noqa: TID253 - for the files of tiny models

from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.engine.weights.attention_tiles import ROWS, Tiles
from tests.make_gguf import GENERATING, HEAD, ModelFile
from tests.make_gguf import _llama as write_llama
from tests.support_gguf import (
    ARRIVALS,
    MIB,
    WORDS,
    Alone,
    Arrival,
    Crowd,
    check_alike,
    check_whole,
    forget,
    greedy,
    kv_spec,
    load,
)
from tests.support_models import Answer, ask

KINDS = [*GENERATING, "tiny-qwen2 unified", "tiny-gemma3 unified", "tiny-mamba unified"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    made: str = request.param
    return made


@pytest.fixture(scope="module")
def batched(directory: Path, kind: str) -> Iterator[GGUFEngine]:
    engine = load(directory, kind)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def alone(directory: Path, kind: str) -> Iterator[Alone]:
    engine = load(directory, kind.partition(" ")[0], parallel=1)
    yield Alone(engine)
    engine.close()


@settings(max_examples=12)
@given(ARRIVALS)
def test_a_greedy_request_gets_the_same_whoever_else_is_there(
    batched: GGUFEngine, alone: Alone, arrivals: list[Arrival]
) -> None:
    crowd = Crowd(batched)
    crowd.come_and_go(arrivals)
    check_alike(crowd, alone, arrivals)
    check_whole(batched)


def test_the_next_turn_is_computed_alone_and_answered_alike(
    batched: GGUFEngine, alone: Alone, kind: str
) -> None:
    forget(batched)
    prompt = " ".join(WORDS * 2)
    first = ask(batched, prompt=prompt, options=greedy(10))
    second = prompt + first.text + " and then the people"
    again = ask(batched, prompt=second, options=greedy(10))
    assert alone.said(second, 10, again.text)
    cached = again.result["usage"]["cached_tokens"]
    if kind.startswith(("tiny-mamba", "tiny-jamba", "tiny-lfm2")):
        # Their state stands for all that it saw: it serves if the new prompt begins with all of it.
        assert cached >= 0
    else:
        assert cached >= first.result["usage"]["prompt_tokens"]


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-gemma3"])
def test_a_prefix_that_is_being_computed_is_computed_once(directory: Path, name: str) -> None:
    engine = load(directory, name, ubatch_size=16, context_length=512)
    system = " ".join(WORDS * 6)
    crowd = Crowd(engine)
    endings = ["one", "two", "three"]
    for key, ending in enumerate(endings):
        crowd.submit(key, f"{system} {ending}", **greedy(8))
    crowd.run()
    cached = [crowd.over[key]["usage"]["cached_tokens"] for key in range(3)]
    if name == "tiny-qwen2":
        assert cached[0] == 0
        assert min(cached[1:]) > 64
    reference = Alone(load(directory, name, context_length=512, parallel=1))
    for key, ending in enumerate(endings):
        assert reference.said(f"{system} {ending}", 8, crowd.texts[key])
    check_whole(engine)
    reference.engine.close()
    engine.close()


def test_a_long_prompt_holds_the_others_up_for_one_micro_batch(directory: Path) -> None:
    engine = load(directory, "tiny-llama", ubatch_size=16, context_length=512)
    crowd = Crowd(engine)
    crowd.submit(1, "the people", **greedy(200))
    while not crowd.tokens[1]:
        crowd.step()
    crowd.submit(2, " ".join(WORDS * 10), **greedy(1))
    for _ in range(8):
        before = crowd.tokens[1]
        crowd.step()
        assert crowd.tokens[1] == before + 1
    assert 2 not in crowd.over
    engine.cancel(1)
    engine.cancel(2)
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-mamba", "tiny-gemma3"])
def test_a_prompt_is_aborted_inside_its_step(directory: Path, name: str) -> None:
    engine = load(directory, name, context_length=512)
    crowd = Crowd(engine)
    crowd.submit(1, "the people", **greedy(40))
    for _ in range(5):
        crowd.step()
    engine.set_interrupted(lambda request_id: request_id == 2)
    crowd.submit(2, " ".join(WORDS * 10), **greedy(5))
    crowd.step()
    crowd.cancel(2)
    crowd.run()
    reference = Alone(load(directory, name, context_length=512, parallel=1))
    assert reference.said("the people", 40, crowd.texts[1])
    check_whole(engine)
    reference.engine.close()
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified", "tiny-qwen3"])
def test_passes_filled_for_attention_change_nothing(directory: Path, kind: str) -> None:
    engine = load(directory, kind, context_length=256)
    assert engine.context is not None
    engine.context.tiles = Tiles(1.0)  # so that it seems to pay early
    sizes = list[int]()
    decode = engine.context.decode

    def counting(abort: Any = None) -> None:
        sizes.append(engine.context.batch.native.n_tokens)  # type: ignore[union-attr]
        decode(abort)

    engine.context.decode = counting  # type: ignore[method-assign]
    alone = Alone(load(directory, kind.partition(" ")[0], context_length=256, parallel=1))
    assert alone.engine.context is not None
    alone.engine.context.tiles = None
    chance = random.Random(5)
    crowd, prompts = Crowd(engine), dict[int, str]()
    for key in range(12):
        prompts[key] = " ".join(chance.choices(WORDS, k=chance.randint(5, 60)))
        crowd.submit(key, prompts[key], **greedy(8))
        for _ in range(chance.randint(0, 4)):
            crowd.step()
    crowd.run()
    assert max(sizes) >= ROWS
    for key, prompt in prompts.items():
        assert alone.said(prompt, 8, crowd.texts[key])
    check_whole(engine)
    alone.engine.close()
    engine.close()


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-qwen2 unified"])
@pytest.mark.parametrize("gone", [{1}, {1, 2}])
def test_a_pass_is_given_up_only_where_most_of_it_was_for_nobody(
    directory: Path, name: str, gone: set[int]
) -> None:
    engine = load(directory, name)
    crowd = Crowd(engine)
    for key in range(3):
        crowd.submit(key, " ".join([*WORDS, *WORDS[:key]]), **greedy(3))
    engine.set_interrupted(lambda request_id: request_id in gone)
    crowd.step()
    assert crowd.tokens[0] == (1 if len(gone) == 1 else 0)
    for key in gone:
        crowd.cancel(key)
    crowd.run()
    alone = Alone(load(directory, name.partition(" ")[0], parallel=1))
    assert alone.said(" ".join(WORDS), 3, crowd.texts[0])
    check_whole(engine)
    alone.engine.close()
    engine.close()


def test_a_conversation_that_lost_its_slot_comes_back_from_the_host(directory: Path) -> None:
    engine = load(directory, "tiny-qwen2", kv_spec(64 * MIB), parallel=1)
    prompts = [" ".join(random.Random(n).choices(WORDS, k=50)) for n in range(3)]
    firsts = [ask(engine, prompt=prompt, options=greedy(5)) for prompt in prompts]
    for prompt, first in zip(prompts, firsts, strict=True):
        again = ask(engine, prompt=prompt + first.text + " and", options=greedy(5))
        assert again.result["usage"]["cached_tokens"] >= first.result["usage"]["prompt_tokens"]
        alone = Alone(engine)
        assert alone.said(prompt + first.text + " and", 5, again.text)
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("ending", ["people", "water", "first words", "seven"])
def test_a_prefix_is_copied_before_another_state_takes_its_place(
    directory: Path, ending: str
) -> None:
    engine = load(directory, "tiny-llama", kv_spec(64 * MIB), parallel=2)
    system = " ".join(WORDS * 2)
    other = " ".join(random.Random(3).choices(WORDS, k=60))
    ask(engine, prompt=other, options=greedy(1))
    ask(engine, prompt="so seven other things", options=greedy(1))
    ask(engine, prompt=" ".join(WORDS * 10), options=greedy(1))
    # In one step: the first copies from the long conversation, the second restores over it.
    crowd = Crowd(engine)
    prompts = {1: f"{system} {ending}", 2: f"{other} people"}
    for key, prompt in prompts.items():
        crowd.submit(key, prompt, **greedy(12))
    crowd.run()
    reference = Alone(load(directory, "tiny-llama", parallel=1))
    for key, prompt in prompts.items():
        assert crowd.over[key]["usage"]["cached_tokens"] >= 32
        assert reference.said(prompt, 12, crowd.texts[key])
    check_whole(engine)
    reference.engine.close()
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-gemma3", "tiny-gemma3 unified", "tiny-llama"])
def test_a_beginning_is_copied_only_with_all_that_its_window_sees(
    directory: Path, kind: str
) -> None:
    """A state of one stream lacks what its sliding window has moved past."""
    engine = load(directory, kind, context_length=512, parallel=2)
    ask(engine, prompt=" ".join(WORDS * 9), options=greedy(20))
    prompt = " ".join((WORDS * 9)[:45]) + " water"
    answer = ask(engine, prompt=prompt, options=greedy(12))
    assert answer.result["usage"]["cached_tokens"] > 32 or kind == "tiny-gemma3"
    assert Alone(engine).said(prompt, 12, answer.text)
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize(("words", "copied"), [(300, True), (900, False)])
def test_a_little_of_a_long_conversation_is_computed(
    directory: Path, words: int, copied: bool
) -> None:
    """Between streams it would have to be copied with all the rest."""
    engine = load(directory, "tiny-llama", context_length=1024, parallel=2)
    ask(engine, prompt=" ".join((WORDS * 60)[:words]), options=greedy(1))
    prompt = " ".join((WORDS * 60)[:42]) + " water"
    answer = ask(engine, prompt=prompt, options=greedy(12))
    assert (answer.result["usage"]["cached_tokens"] > 32) is copied
    assert Alone(engine).said(prompt, 12, answer.text)
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("name", ["tiny-gemma3", "tiny-llama"])
def test_a_state_that_cannot_be_cut_back_takes_nothing_away(directory: Path, name: str) -> None:
    """What a sliding window has moved past is not in a saved state: it serves as a whole only."""
    engine = load(directory, name, kv_spec(64 * MIB), context_length=512, parallel=1)
    beginning = " ".join((WORDS * 9)[:80])
    ask(engine, prompt=f"{beginning} {' '.join(WORDS * 3)}", options=greedy(20))
    ask(engine, prompt="so seven other things", options=greedy(1))
    shorter = " ".join((WORDS * 9)[:40])
    ask(engine, prompt=shorter, options=greedy(1))
    answer = ask(engine, prompt=f"{beginning} water", options=greedy(12))
    assert answer.result["usage"]["cached_tokens"] > 50
    assert Alone(engine).said(f"{beginning} water", 12, answer.text)
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified"])
def test_five_thousand_requests_and_cancels_leave_nothing_behind(
    directory: Path, kind: str
) -> None:
    engine = load(directory, kind, kv_spec(MIB), context_length=128)
    chance = random.Random(7)
    crowd = Crowd(engine)
    for key in range(5000):
        prompt = " ".join(chance.choices(WORDS[:3], k=chance.randrange(1, 12)))
        crowd.submit(key, prompt, temperature=chance.choice([0, 1]), max_tokens=chance.randrange(8))
        if chance.random() < 0.3:
            crowd.cancel(chance.randrange(max(0, key - 6), key + 1))
        while len(crowd.texts) - len(crowd.over) > 5:
            crowd.step()
    crowd.run()
    assert set(crowd.texts) == set(crowd.over)
    assert 3000 < len(crowd.over) < 5000
    check_whole(engine)
    forget(engine)
    check_whole(engine)
    engine.close()


# ---------------------------------------------------------------- across unload


CONVERSATION = " ".join(WORDS * 4)


def tell_and_close(engine: GGUFEngine, tokens: int = 12) -> Answer:
    """A turn of a conversation, then the end of the worker."""
    answer = ask(engine, prompt=CONVERSATION, options=greedy(tokens))
    engine.retire()
    engine.close()
    return answer


@pytest.mark.parametrize("tokens", [0, 12])
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gemma3", "tiny-mamba", "tiny-jamba"])
def test_a_conversation_goes_on_after_the_model_was_unloaded(
    directory: Path, tmp_path: Path, name: str, tokens: int
) -> None:
    kv = kv_spec(0, tmp_path, 64 * MIB)
    first = tell_and_close(load(directory, name, kv), tokens)
    engine = load(directory, name, kv)
    again = ask(engine, prompt=CONVERSATION + first.text + " and so", options=greedy(12))
    reference = Alone(load(directory, name, parallel=1))
    assert reference.said(CONVERSATION + first.text + " and so", 12, again.text)
    # What cannot be cut back serves only if the tokens of the reply come out as they were made.
    if tokens == 0 or name == "tiny-llama":
        assert again.result["usage"]["cached_tokens"] >= first.result["usage"]["prompt_tokens"]
    check_whole(engine)
    engine.close()
    reference.engine.close()


@pytest.mark.parametrize("harm", ["cut", "flip", "header", "tokens", "empty"])
def test_a_harmed_state_is_ignored(directory: Path, tmp_path: Path, harm: str) -> None:
    kv = kv_spec(0, tmp_path, 64 * MIB)
    first = tell_and_close(load(directory, "tiny-llama", kv))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    start = data.index(b"\n") + 1
    match harm:
        case "cut":
            del data[-10:]
        case "flip":
            data[-10] ^= 1
        case "header":
            data[:5] = b"\xff" * 5
        case "tokens":
            data[start + 80] ^= 1
        case "empty":
            data.clear()
    path.write_bytes(data)
    engine = load(directory, "tiny-llama", kv)
    again = ask(engine, prompt=CONVERSATION, options=greedy(12))
    assert again.text == first.text
    assert again.result["usage"]["cached_tokens"] == 0
    engine.close()


def test_a_state_of_other_weights_or_options_is_ignored(directory: Path, tmp_path: Path) -> None:
    kv = kv_spec(0, tmp_path, 64 * MIB)
    tell_and_close(load(directory, "tiny-llama", kv))
    engine = load(directory, "tiny-llama", kv, kv_cache_type="q8_0")
    assert ask(engine, prompt=CONVERSATION, options=greedy(1)).result["usage"]["cached_tokens"] == 0
    engine.close()


def test_a_state_of_other_rope_factors_is_ignored(directory: Path, tmp_path: Path) -> None:
    """Some models turn positions in another way where the context is longer than in training."""
    model = ModelFile(directory / "tiny-longrope-F32.gguf", "llama", "tiny-longrope", 5)
    write_llama(model)
    model.facts(rope__scaling__type="longrope", rope__scaling__original_context_length=256)
    for name, factor in (("short", 1.0), ("long", 4.0)):
        model.tensor(f"rope_factors_{name}.weight", np.full(HEAD // 2, factor))
    model.close()
    kv = kv_spec(0, tmp_path, 64 * MIB)
    tell_and_close(load(directory, "tiny-longrope", kv, context_length=256))
    engine = load(directory, "tiny-longrope", kv_spec(), context_length=512)
    expected = ask(engine, prompt=CONVERSATION, options=greedy(12)).text
    engine.close()
    engine = load(directory, "tiny-longrope", kv, context_length=512)
    answer = ask(engine, prompt=CONVERSATION, options=greedy(12))
    assert answer.result["usage"]["cached_tokens"] == 0
    assert answer.text == expected
    engine.close()


def test_states_on_disk_stay_within_their_budget(directory: Path, tmp_path: Path) -> None:
    kv = kv_spec(0, tmp_path, 200_000)
    engine = load(directory, "tiny-llama", kv)
    for number in range(4):
        prompt = " ".join(random.Random(number).choices(WORDS, k=40))
        ask(engine, prompt=prompt, options=greedy(3))
    engine.retire()
    engine.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sizes
    assert sum(sizes) <= 210_000
    again = load(directory, "tiny-llama", kv)
    again.retire()
    again.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 210_000
