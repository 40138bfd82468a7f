"""What goes wrong beside a request does no harm to the slots, the cells and the next one."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
import gguf

from hybridd.backends.gguf.engine import generator as engine_module
from hybridd.backends.gguf.engine.cells import persisted as persisted_module
from hybridd.backends.gguf.engine.cells.context import Context
from tests.make_gguf import ModelFile
from tests.make_gguf import _lfm2 as write_lfm2
from tests.make_gguf import _llama as write_llama
from tests.support_gguf import MIB, WORDS, Alone, Crowd, check_whole, forget, greedy, kv_spec, load
from tests.support_models import ask, delta_of

TEXT = " ".join(WORDS * 2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def out_of_memory(*_args: Any) -> Any:
    raise MemoryError


def test_a_request_that_fails_at_its_beginning_leaves_its_slot(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(directory, "tiny-qwen2", parallel=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "Sampler", out_of_memory)
        failed = ask(engine, prompt="the people")
        assert failed.error["data"]["reason"] == "out_of_memory"
    check_whole(engine)
    assert ask(engine, prompt="the people", options=greedy(3)).tokens == 3
    engine.close()


def test_what_gave_way_for_cells_comes_back_from_the_host(directory: Path) -> None:
    engine = load(directory, "tiny-qwen2 unified", kv_spec(64 * MIB))
    alone = Alone(load(directory, "tiny-qwen2", parallel=1))
    # llama.cpp makes the cells a multiple of 256: three conversations have room, four do not.
    prompts = [f"{word} {word} {' '.join(WORDS * 7)}" for word in WORDS[:6]]
    firsts = [ask(engine, prompt=prompt, options=greedy(5)) for prompt in prompts]
    for prompt, first in zip(prompts, firsts, strict=True):
        again = ask(engine, prompt=f"{prompt}{first.text} and", options=greedy(5))
        usage = again.result["usage"]
        assert usage["cached_tokens"] > 0.9 * first.result["usage"]["prompt_tokens"]
        assert alone.said(f"{prompt}{first.text} and", 5, again.text)
    check_whole(engine)
    engine.close()
    alone.engine.close()


@pytest.mark.parametrize("name", ["tiny-qwen2", "tiny-gemma3", "tiny-jamba"])
def test_the_newest_give_way_and_end_as_if_they_had_not(directory: Path, name: str) -> None:
    engine = load(directory, f"{name} unified", kv_spec(64 * MIB))
    alone = Alone(load(directory, name, parallel=1))
    paused: set[int] = set()
    crowd = Crowd(engine)
    prompts = [f"{word} {word} {' '.join(WORDS * 6)}" for word in WORDS[:6]]
    for key, prompt in enumerate(prompts):
        crowd.submit(key, prompt, **greedy(80))
    while engine.busy:
        crowd.step()
        paused |= {s.id for s in engine.active if s.paused}
        if 5 not in crowd.over and len(crowd.over) == 3:
            crowd.cancel(4)  # one that waits or was paused
    assert paused
    assert set(crowd.over) >= {0, 1, 2, 3, 5}
    for key in crowd.over:
        assert alone.said(prompts[key], 80, crowd.texts[key])
    check_whole(engine)
    engine.close()
    alone.engine.close()


@pytest.mark.parametrize("cells", ["for all", "for one"])
def test_what_gave_way_goes_on_as_far_as_there_is_room(directory: Path, cells: str) -> None:
    engine = load(directory, "tiny-qwen2 unified")
    alone = Alone(load(directory, "tiny-qwen2", parallel=1))
    crowd = Crowd(engine)
    for key, word in enumerate(WORDS[:4]):
        crowd.submit(key, word, **greedy(20))
    for _ in range(6):
        crowd.step()
    assert engine.cache is not None
    assert engine.context is not None
    one, *paused = engine.active[1:]
    for sequence in paused:
        sequence.paused = True
        engine.cache.forget(sequence.slot)
    if cells == "for one":
        engine.context.cells = len(one.tokens) + len(paused[0].tokens)
    crowd.cancel(0)
    assert [s.paused for s in paused] == [False, cells == "for one"]
    crowd.run()
    for key, word in list(enumerate(WORDS[:4]))[1:]:
        assert alone.said(word, 20, crowd.texts[key])
    check_whole(engine)
    engine.close()
    alone.engine.close()


def test_a_prompt_that_computes_no_numbers_is_not_kept(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(directory, "tiny-qwen2", parallel=1)
    logits = Context.logits

    def spoiled(context: Context, row: int) -> Any:
        found = logits(context, row)
        found[:] = math.nan
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Context, "logits", spoiled)
        error = ask(engine, prompt=TEXT, options=greedy(0)).error
    assert error["data"]["reason"] == "not_finite"
    again = ask(engine, prompt=f"{TEXT} and", options=greedy(5))
    assert again.result["usage"]["cached_tokens"] == 0
    assert Alone(engine).said(f"{TEXT} and", 5, again.text)
    check_whole(engine)
    engine.close()


def damage(patch: pytest.MonkeyPatch, token: int) -> None:
    """Have models written whose vector of one token is NaN."""
    write = ModelFile.tensor

    def tensor(model: ModelFile, name: str, values: Any) -> None:
        if name == "token_embd.weight":
            values = values.copy()
            values[token] = math.nan
        write(model, name, values)

    patch.setattr(ModelFile, "tensor", tensor)


@pytest.mark.parametrize("kind", ["tiny-llama", "tiny-llama unified", "tiny-jamba", "tiny-mamba"])
def test_cells_without_numbers_spoil_no_later_request(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One token of the model is NaN, and so is what it leaves in the cells."""
    whole = load(directory, kind, parallel=2, flash_attention=False)
    (spoiled,) = whole.model.vocabulary.encode(" water", special=False)
    words = [word for word in WORDS if word != "water"]
    prompts = [" ".join(words[n:]) for n in range(4)]
    expected = [ask(whole, prompt=prompt, options=greedy(5)).text for prompt in prompts]
    whole.close()
    damage(monkeypatch, spoiled)
    engine = load(tmp_path, kind, parallel=2, flash_attention=False)
    for prompt, text in zip(prompts, expected, strict=True):
        bad = ask(engine, prompt=f"{prompt} and {prompt} water", options=greedy(5))
        assert bad.error["data"]["reason"] == "not_finite"
        assert ask(engine, prompt=prompt, options=greedy(5)).text == text
    # One that runs meanwhile keeps its cells until it is done.
    engine.submit({"id": 2, "kind": "generate", "prompt": prompts[0], "options": greedy(30)})
    engine.step()
    bad = ask(engine, prompt=f"{prompts[2]} water", options=greedy(5))
    assert bad.error["data"]["reason"] == "not_finite"
    assert ask(engine, prompt=prompts[1], options=greedy(5)).text == expected[1]
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("parallel", [2, 3])
def test_rows_that_nobody_wants_bring_no_nan_into_the_cells(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    """Token 0 of the model is NaN: it is in no prompt, so it must be in no filling either."""
    prompts = [" ".join(WORDS[: 8 + n]) for n in range(parallel)]
    options = {"flash_attention": False, "parallel": parallel}
    whole = load(directory, "tiny-llama", **options)
    expected = [ask(whole, prompt=prompt, options=greedy(12)).text for prompt in prompts]
    whole.close()
    damage(monkeypatch, 0)
    engine = load(tmp_path, "tiny-llama", **options)
    for gone in range(1, parallel):
        crowd = Crowd(engine)
        for key, prompt in enumerate(prompts):
            crowd.submit(key, prompt, **greedy(12))
        crowd.step()  # prompts of different lengths in one pass
        crowd.step()
        crowd.cancel(gone)  # leaves a gap where it was in the middle
        crowd.run()
        assert crowd.texts == {key: expected[key] for key in range(parallel) if key != gone}
        again = ask(engine, prompt=f"{prompts[gone]}", options=greedy(12))
        assert again.text == expected[gone]
    check_whole(engine)
    engine.close()


def test_a_text_without_a_vector_spoils_no_later_one(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(directory, "tiny-lfm2")
    (spoiled,) = whole.model.vocabulary.encode(" water", special=False)
    whole.close()
    damage(monkeypatch, spoiled)
    model = ModelFile(tmp_path / "tiny-lfm2-F32.gguf", "lfm2", "tiny-lfm2", zlib.crc32(b"tiny"))
    write_lfm2(model)
    model.facts(pooling_type=int(gguf.PoolingType.LAST))
    model.close()
    engine = load(tmp_path, "tiny-lfm2")
    before = ask(engine, "embed", input=["the people"]).result["embeddings"]
    error = ask(engine, "embed", input=["the water"]).error
    assert error["data"]["reason"] == "not_finite"
    assert ask(engine, "embed", input=["the people"]).result["embeddings"] == before
    engine.close()


def test_a_state_beyond_the_budget_is_not_even_made(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(directory, "tiny-qwen2", kv_spec(1), parallel=1)
    monkeypatch.setattr(Context, "save", out_of_memory)
    for word in WORDS[:2]:
        ask(engine, prompt=f"{word} {TEXT}", options=greedy(2))
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-qwen2", "tiny-qwen2 unified"])
def test_no_request_fails_for_want_of_memory_for_a_copy(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    engine = load(directory, kind, kv_spec(64 * MIB))
    ask(engine, prompt=f"{TEXT} {TEXT}", options=greedy(2))
    monkeypatch.setattr(Context, "save", out_of_memory)
    # A beginning to be copied, then conversations that have to leave their slot or their cells.
    prompts = [f"{TEXT} water", *(f"{word} {word} {TEXT} {TEXT}" for word in WORDS[:6])]
    crowd = Crowd(engine)
    for key, prompt in enumerate(prompts):
        crowd.submit(key, prompt, **greedy(40))
    crowd.run()
    assert set(crowd.over) == set(range(len(prompts)))
    check_whole(engine)
    engine.close()


@pytest.mark.parametrize("kind", ["tiny-qwen2", "tiny-gemma3", "tiny-mamba", "tiny-qwen2 unified"])
def test_a_pass_that_fails_leaves_every_slot_as_it_says(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also those that only filled a gap: the pass is computed, and then not believed."""
    engine = load(directory, kind, parallel=4)
    forget(engine)
    crowd = Crowd(engine)
    for key in range(3):
        crowd.submit(key, " ".join(WORDS[key:]), **greedy(50))
    while not all(crowd.tokens.get(key) for key in range(3)):
        crowd.step()
    crowd.cancel(1)
    crowd.step()
    decode = Context.decode

    def failing(context: Context, abort: Any = None) -> None:
        decode(context, abort)
        raise RuntimeError("llama_decode answered -3")

    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", failing)
        outputs = engine.step()
    assert [each["error"]["data"]["reason"] for each in outputs] == ["engine_error"] * 2
    assert not engine.busy
    check_whole(engine)
    prompt = " ".join(WORDS)
    text = ask(engine, prompt=prompt, options=greedy(8)).text
    assert Alone(engine).said(prompt, 8, text)
    engine.close()


def test_a_pass_that_fails_ends_only_its_own_requests(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it another pass of the same step brings somebody a token."""
    engine = load(directory, "tiny-qwen2", parallel=2)
    crowd = Crowd(engine)
    first, second = " ".join(WORDS), " ".join(WORDS[3:] * 2)
    crowd.submit(0, first, **greedy(20))
    while not crowd.tokens.get(0):
        crowd.step()
    decode = Context.decode

    def failing(context: Context, abort: Any = None) -> None:
        decode(context, abort)
        if context.batch.native.n_tokens > 4:
            raise RuntimeError("llama_decode answered -3")

    crowd.submit(1, second, **greedy(20))
    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", failing)
        outputs = list(engine.step())
    errors = [output.pop("error") for output in outputs if "error" in output]
    assert [error["data"]["reason"] for error in errors] == ["engine_error"]
    crowd.texts[0] += "".join(delta_of(output).text for output in outputs if output["id"] == 0)
    crowd.submit(2, second, **greedy(20))
    crowd.run()
    check_whole(engine)
    alone = Alone(engine)
    assert alone.said(first, 20, crowd.texts[0])
    assert alone.said(second, 20, crowd.texts[2])
    engine.close()


def test_no_token_ends_a_text_that_is_to_go_on(directory: Path, tmp_path: Path) -> None:
    """Also one that the file alone makes an end: llama.cpp leaves it of an ordinary kind."""
    engine = load(directory, "tiny-llama")
    answer = ask(engine, prompt="the people", options={**greedy(20), "logprobs": 1})
    engine.close()
    path = tmp_path / "tiny-llama-F32.gguf"
    model = ModelFile(path, "llama", "tiny-llama", zlib.crc32(b"tiny-llama"))
    write_llama(model)
    for name in ("eom", "fim_pad"):
        model._writer.add_uint32(f"tokenizer.ggml.{name}_token_id", answer.logprobs[4]["id"])
    model.close()
    engine = load(tmp_path, "tiny-llama")
    plain = ask(engine, prompt="the people", options={**greedy(20), "ignore_eos": False})
    assert plain.tokens < 20
    assert ask(engine, prompt="the people", options=greedy(20)).tokens == 20
    engine.close()


# ---------------------------------------------------------------- states on disk


@pytest.mark.parametrize("harm", ["gone", "nested", "infinite"])
def test_nothing_on_disk_keeps_a_model_from_loading(
    directory: Path, tmp_path: Path, harm: str
) -> None:
    kv = kv_spec(0, tmp_path / "states", 64 * MIB)
    (tmp_path / "states").mkdir()
    engine = load(directory, "tiny-llama", kv)
    ask(engine, prompt=TEXT, options=greedy(5))
    engine.retire()
    engine.close()
    (path,) = (tmp_path / "states").iterdir()
    match harm:
        case "gone":
            path.unlink()
            (tmp_path / "states").rmdir()
        case "nested":
            path.write_bytes(b"[" * 4096)
        case "infinite":
            line, _, rest = path.read_bytes().partition(b"\n")
            header = {**json.loads(line), "tokens": float("inf")}
            path.write_bytes(json.dumps(header).encode() + b"\n" + rest)
    engine = load(directory, "tiny-llama", kv)
    again = ask(engine, prompt=TEXT, options=greedy(5))
    assert again.result["usage"]["cached_tokens"] == 0
    engine.retire()
    engine.close()


def test_a_state_for_which_there_is_no_memory_is_computed_instead(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = kv_spec(0, tmp_path, 64 * MIB)
    engine = load(directory, "tiny-llama", kv)
    first = ask(engine, prompt=TEXT, options=greedy(5))
    engine.retire()
    engine.close()
    engine = load(directory, "tiny-llama", kv)
    monkeypatch.setattr(persisted_module, "bytearray", out_of_memory, raising=False)
    again = ask(engine, prompt=TEXT, options=greedy(5))
    assert again.text == first.text
    assert again.result["usage"]["cached_tokens"] == 0
    engine.close()


def test_a_disk_that_is_full_is_left_as_it_was(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(directory, "tiny-llama", kv_spec(0, tmp_path, 64 * MIB))
    ask(engine, prompt=TEXT, options=greedy(5))

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    engine.retire()
    engine.close()
    assert list(tmp_path.iterdir()) == []
