"""Draft models: which go with a model, and what goes wrong with them costs no request anything."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.gguf import BACKEND
from hybridd.backends.gguf.engine.cells.context import Context
from hybridd.backends.gguf.engine.drafting import drafter as drafter_module
from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.backends.gguf.inspect import inspect
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid, Unsupported
from tests.gguf_vocabulary import COMMON_WORDS, byte_pairs
from tests.make_gguf import (
    HEAD,
    ModelFile,
    attention,
    ends,
    feed_forward,
    transformer_facts,
    write_tiny,
)
from tests.support_gguf import EXACT, WORDS, Alone, Crowd, check_whole, greedy, load
from tests.support_models import DEMO_GGUF, ask, delta_of, ignore_progress, spec_for


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def drafted(done: dict[str, Any]) -> tuple[int, int]:
    timings = done["timings"]
    return timings["draft_tokens"], timings["draft_accepted_tokens"]


# ---------------------------------------------------------------- how well it goes


def test_a_model_that_drafts_for_itself_is_nearly_always_right(directory: Path) -> None:
    spec = spec_for(DEMO_GGUF, "gguf", context_length=256, threads=1, parallel=2)
    spec["load_options"]["draft_model"] = "demo"
    spec["draft"] = {"model": "demo", "path": str(DEMO_GGUF)}
    engine = GGUFEngine()
    facts = engine.load(spec, ignore_progress)
    assert facts["load_options"]["draft_model"] == "demo"
    assert facts["memory"]["weights_bytes"] == engine.model.weights_bytes, "loaded once"
    steps: list[int] = []
    prompt = "What is the capital of France?"
    messages = [{"role": "user", "content": prompt}]
    engine.submit({"id": 1, "kind": "chat", "messages": messages, "options": {"temperature": 0}})
    done: dict[str, Any] = {}
    while engine.busy:
        for output in engine.step():
            steps.append(delta_of(output).tokens)
            done = output.get("done", done)
    proposed, right = drafted(done)
    assert right >= proposed * 0.9
    assert proposed >= 5
    assert max(steps) > 2
    assert sum(steps) == done["usage"]["completion_tokens"]
    engine.close()


def test_wrong_drafts_are_given_up(directory: Path) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-qwen2", context_length=512)
    answer = ask(engine, prompt="the people", options=greedy(400))
    proposed, right = drafted(answer.result)
    assert proposed < 30
    assert right <= 1
    engine.close()


def test_a_long_prompt_is_not_read_for_a_short_answer(directory: Path) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-llama", **EXACT)
    assert engine.drafter is not None
    prompt = " ".join(WORDS * 10)
    ask(engine, prompt=prompt, options=greedy(4))
    assert not any(engine.drafter.held)
    ask(engine, prompt=prompt, options=greedy(30))
    assert any(engine.drafter.held)
    engine.close()


# ---------------------------------------------------------------- which go together


def refused(directory: Path, kind: str, draft: str) -> HybriddError:
    with pytest.raises(HybriddError) as caught:
        load(directory, kind, draft_model=draft)
    assert str(directory) not in str(caught.value.to_wire())
    return caught.value


@pytest.mark.parametrize(
    ("kind", "draft", "names"),
    [
        ("tiny-mamba", "tiny-llama", "demo keeps a state"),
        ("tiny-jamba", "tiny-llama", "demo keeps a state"),
        ("tiny-bert", "tiny-llama", "demo makes vectors or scores"),
        ("tiny-llama", "tiny-mamba", "tiny-mamba keeps a state"),
        ("tiny-llama", "tiny-lfm2", "tiny-lfm2 keeps a state"),
        ("tiny-llama", "tiny-bert", "tiny-bert does not go on with a text"),
    ],
)
def test_models_that_cannot_take_a_token_back(
    directory: Path, kind: str, draft: str, names: str
) -> None:
    error = refused(directory, kind, draft)
    assert isinstance(error, Unsupported)
    assert error.data["capability"] == "draft_model"
    assert names in error.message


def _write(directory: Path, name: str, words: int = 0, **changed: Any) -> str:
    """A tiny llama with another vocabulary."""
    vocabulary = replace(byte_pairs(COMMON_WORDS), **changed)
    if words:
        more = [f"<|more{n}|>" for n in range(words)]
        tokens, types = [*vocabulary.tokens, *more], [*vocabulary.types, *[3] * words]
        vocabulary = replace(vocabulary, tokens=tokens, types=types)
    model = ModelFile(directory / f"{name}-F32.gguf", "llama", name, zlib.crc32(b"tiny-llama"))
    model.vocabulary(vocabulary)
    model.facts(rope__dimension_count=HEAD)
    transformer_facts(model, 2)
    ends(model, len(vocabulary))
    for layer in range(2):
        attention(model, f"blk.{layer}")
        feed_forward(model, f"blk.{layer}")
    model.close()
    return name


def _renamed(token: int) -> dict[str, Any]:
    tokens = list(byte_pairs(COMMON_WORDS).tokens)
    tokens[token] = "<|other|>"
    return {"tokens": tokens}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"words": 129}, "tokens"),
        ({"bos": 300}, "begin or end texts"),
        (_renamed(450), "token 450 is not the same"),
    ],
)
def test_vocabularies_that_differ(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    error = refused(tmp_path, "tiny-llama", _write(tmp_path, "other", **changed))
    assert isinstance(error, LoadFailed)
    assert error.data["reason"] == "other vocabulary"
    assert says in error.message
    assert "other cannot draft for demo" in error.message
    assert "leave it out" in error.message


def test_tokenizers_of_different_kinds(directory: Path) -> None:
    error = refused(directory, "tiny-llama", "tiny-gemma3")
    assert "tiny-gemma3 cannot draft for demo: their tokenizers are of different" in error.message


@pytest.mark.parametrize("words", [3, 100])
@pytest.mark.parametrize("larger", ["model", "draft model"])
def test_vocabularies_may_end_differently(tmp_path: Path, words: int, larger: str) -> None:
    """What one has no token for, it neither drafts nor has to read."""
    name = _write(tmp_path, "tiny-larger", words=words)
    kind, draft = (name, "tiny-llama") if larger == "model" else ("tiny-llama", name)
    engine = load(tmp_path, kind, draft_model=draft, **EXACT)
    plain = load(tmp_path, kind, **EXACT)
    # The last token, which is one that the other model may not have, comes again and again.
    last = engine.model.vocabulary.vocab_size - 1
    options = {
        "temperature": 1.5,
        "seed": 3,
        "max_tokens": 60,
        "logit_bias": {str(last): 15.0},
        "ignore_eos": True,
    }
    answer = ask(engine, prompt="the people", options=options)
    assert answer.text == ask(plain, prompt="the people", options=options).text
    assert answer.tokens == 60
    check_whole(engine)
    for each in (engine, plain):
        each.close()


def test_a_draft_model_that_is_gone_or_broken(directory: Path, tmp_path: Path) -> None:
    spec = spec_for(write_tiny("tiny-llama", tmp_path), "gguf", draft_model="small")
    with pytest.raises(LoadFailed, match="the draft model small went away"):
        GGUFEngine().load(spec, ignore_progress)
    broken = tmp_path / "small.gguf"
    spec["draft"] = {"model": "small", "path": str(broken)}
    with pytest.raises(LoadFailed, match="small could not be read") as caught:
        GGUFEngine().load(spec, ignore_progress)
    whole = (tmp_path / "tiny-llama-F32.gguf").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    engine = GGUFEngine()
    with pytest.raises(ModelInvalid, match="small could not be loaded") as caught:
        engine.load(spec, ignore_progress)
    assert str(tmp_path) not in str(caught.value.to_wire())
    broken.write_bytes(whole)
    engine.load(spec, ignore_progress)
    assert ask(engine, prompt="the people", options=greedy(5)).tokens == 5
    engine.close()


def test_its_load_is_reported_and_can_be_cancelled(tmp_path: Path) -> None:
    spec = spec_for(write_tiny("tiny-llama", tmp_path), "gguf", draft_model="small")
    spec["draft"] = {"model": "small", "path": str(write_tiny("tiny-qwen2", tmp_path))}
    stages: list[str] = []
    engine = GGUFEngine()
    engine.load(spec, lambda stage, _done, _total: stages.append(stage))
    assert "draft model" in stages
    engine.set_threads(1)
    engine.close()

    def report(stage: str, _done: int, _total: int) -> None:
        if stage == "draft model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.load(spec, report)
    assert engine.model.native is None


# ---------------------------------------------------------------- what goes wrong


def nan_tokens(patch: pytest.MonkeyPatch, *tokens: int) -> None:
    """Have models written whose vectors of some tokens are NaN."""
    write = ModelFile.tensor

    def tensor(model: ModelFile, name: str, values: Any) -> None:
        if name == "token_embd.weight":
            values = values.copy()
            values[list(tokens)] = math.nan
        write(model, name, values)

    patch.setattr(ModelFile, "tensor", tensor)


@pytest.mark.parametrize("kind", ["tiny-qwen2", "tiny-qwen2 unified"])
def test_a_damaged_draft_model_costs_drafts_only(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    plain = load(directory, kind.partition(" ")[0], **EXACT)
    write_tiny("tiny-qwen2", tmp_path)
    vocabulary = plain.model.vocabulary
    with monkeypatch.context() as patch:
        nan_tokens(patch, *vocabulary.encode(" water", special=False))
        write_tiny("tiny-llama", tmp_path)
    engine = load(tmp_path, kind, draft_model="tiny-llama", **EXACT)
    prompts = [" ".join(WORDS[n:]) for n in range(4)]
    assert any("water" in prompt for prompt in prompts)
    crowds = []
    for each in (engine, plain):
        crowd = Crowd(each)
        for key, prompt in enumerate(prompts):
            crowd.submit(key, prompt, **greedy(30))
            crowd.step()
        crowd.run()
        crowds.append(crowd)
    assert crowds[0].texts == crowds[1].texts
    check_whole(engine)
    # Nor does what it left behind.
    assert engine.drafter is not None
    answer = ask(engine, prompt="the people", options=greedy(30))
    assert answer.text == ask(plain, prompt="the people", options=greedy(30)).text
    for each in (engine, plain):
        each.close()


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified"])
def test_a_wrong_draft_that_computes_no_numbers_spoils_nobody(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The model has no vector for what the draft model likes to say."""
    monkeypatch.setattr(drafter_module, "CONFIDENCE", 0.0)
    plain = load(directory, "tiny-llama", **EXACT)
    prompts = [" ".join(WORDS[n:]) for n in range(4)]
    said: set[int] = set()
    for prompt in prompts:
        said.update(plain.model.vocabulary.encode(prompt, special=False))
        answer = ask(plain, prompt=prompt, options={**greedy(30), "logprobs": 1})
        said.update(entry["id"] for entry in answer.logprobs)
    size = plain.model.vocabulary.vocab_size
    with monkeypatch.context() as patch:
        nan_tokens(patch, *(t for t in range(size) if t not in said and t > 255))
        write_tiny("tiny-llama", tmp_path)
    write_tiny("tiny-qwen2", tmp_path)
    engine = load(tmp_path, kind, draft_model="tiny-qwen2", **EXACT)
    wiped: list[int] = []
    wipe = type(engine.cache).wipe
    monkeypatch.setattr(type(engine.cache), "wipe", lambda cache: (wiped.append(1), wipe(cache)))
    crowd = Crowd(engine)
    for key, prompt in enumerate(prompts):
        crowd.submit(key, prompt, **greedy(30))
        crowd.step()
    crowd.run()
    assert wiped
    alone = Alone(plain)
    assert all(alone.said(prompt, 30, crowd.texts[key]) for key, prompt in enumerate(prompts))
    check_whole(engine)
    for each in (engine, plain):
        each.close()


def test_what_makes_up_the_length_of_a_draft_computes_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drafts beside each other are of one length; token 0, which nobody says, has no vector."""
    monkeypatch.setattr(drafter_module, "CONFIDENCE", 0.0)
    monkeypatch.setattr(drafter_module, "ROW_COST", 0.0)
    with monkeypatch.context() as patch:
        nan_tokens(patch, 0)
        write_tiny("tiny-llama", tmp_path)
    engine = load(tmp_path, "tiny-llama", draft_model="tiny-llama", **EXACT)
    drafter = engine.drafter
    assert drafter is not None
    guess, verify, made_up = drafter._guess, engine._verify, list[int]()

    def unsure(sequence: Any, row: int) -> int | None:
        return guess(sequence, row) if sequence.id else None

    def noting(context: Any, cache: Any, sequence: Any, *more: Any) -> None:
        made_up.append(len(sequence.draft) - sequence.drafted)
        verify(context, cache, sequence, *more)

    monkeypatch.setattr(drafter, "_guess", unsure)
    monkeypatch.setattr(engine, "_verify", noting)
    monkeypatch.setattr(type(engine.cache), "wipe", lambda _places: pytest.fail("distrusted"))
    crowd = Crowd(engine)
    for key in range(4):
        crowd.submit(key, " ".join(WORDS[key:]), **greedy(30))
    crowd.run()
    assert any(made_up)
    check_whole(engine)
    engine.close()


def _failing(how: Callable[[Context], None], which: Context) -> Callable[..., None]:
    decode = Context.decode

    def made(context: Context, abort: Any = None) -> None:
        decode(context, abort)
        if context is which:
            how(context)

    return made


def test_a_draft_model_that_fails_is_done_without(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_context: Context) -> None:
        raise RuntimeError("llama_decode answered -3")

    engine = load(directory, "tiny-llama", draft_model="tiny-llama", **EXACT)
    plain = load(directory, "tiny-llama", **EXACT)
    assert engine.drafter is not None
    expected = ask(plain, prompt="the people", options=greedy(20)).text
    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", _failing(fail, engine.drafter.context))
        answer = ask(engine, prompt="the people", options=greedy(20))
    assert answer.text == expected
    assert drafted(answer.result) == (0, 0)
    check_whole(engine)
    again = ask(engine, prompt="the people", options=greedy(20))
    assert again.text == expected
    for each in (engine, plain):
        each.close()


def test_catching_up_is_aborted_with_its_request(directory: Path) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-llama", context_length=512, **EXACT)
    crowd = Crowd(engine)
    crowd.submit(1, "the people", **greedy(60))
    for _ in range(3):
        crowd.step()
    crowd.submit(2, " ".join(WORDS * 10), **greedy(60))
    while not crowd.tokens[2]:
        crowd.step()
    engine.set_interrupted(lambda request_id: request_id == 2)
    crowd.step()  # the draft model reads the long prompt now
    assert engine.drafter is not None
    index = next(s.slot_index for s in engine.active if s.id == 2)
    assert len(engine.drafter.held[index]) < 20
    crowd.cancel(2)
    crowd.run()
    plain = load(directory, "tiny-llama", context_length=512, **EXACT)
    assert crowd.texts[1] == ask(plain, prompt="the people", options=greedy(60)).text
    check_whole(engine)
    for each in (engine, plain):
        each.close()


# ---------------------------------------------------------------- what it needs


def test_what_llama_cpp_takes_is_planned(directory: Path) -> None:
    engine = load(directory, "tiny-llama", draft_model="tiny-qwen2", context_length=1024)
    options = {"context_length": 1024, "parallel": 4, "draft_model": "x"}
    facts = [inspect(directory / f"{n}-F32.gguf") for n in ("tiny-llama", "tiny-qwen2")]
    planned = BACKEND.estimate(facts[0], options)
    added = BACKEND.drafting.estimate(*facts, options)
    sizes = engine._log.sizes
    assert sizes["kv_cache_bytes"] <= planned.kv_cache_bytes + added.kv_cache_bytes
    taken = sizes["compute_bytes"] + sizes.get("output_bytes", 0)
    assert taken <= planned.compute_bytes + added.compute_bytes
    engine.close()
