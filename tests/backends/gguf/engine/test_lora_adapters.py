"""LoRA adapters: which are used by whom, and what is reused between whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from hybridd.backends.api import KVSpec
from hybridd.backends.gguf.engine.cells.context import Context
from hybridd.backends.gguf.engine.generator import GGUFEngine
from hybridd.wire.errors import HybriddError, LoadFailed, ModelInvalid, Unsupported
from tests.make_gguf import write_adapter
from tests.support_gguf import (
    MIB,
    WORDS,
    Crowd,
    check_whole,
    forget,
    greedy,
    kv_spec,
    load,
)
from tests.support_models import ask, ignore_progress, spec_for

PROMPT = " ".join(WORDS * 3)
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(NAMES):
        write_adapter(made / f"{name}.gguf", seed=seed)
    return made


def load_with(
    directory: Path, kind: str = "tiny-llama", kv: KVSpec | None = None, **options: Any
) -> GGUFEngine:
    adapters = [{"name": name, "path": str(directory / f"{name}.gguf")} for name in NAMES]
    return load(directory, kind, kv, adapters=adapters, **options)


def using(tokens: int = 20, **scales: float) -> dict[str, Any]:
    named = [{"name": name, "scale": scale} for name, scale in scales.items()]
    return {**greedy(tokens), "adapters": named}


MIXES: list[dict[str, float]] = [{}, {"one": 1}, {"two": 1}, {"one": 0.5, "two": 1}, {"one": 0.5}]


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-llama unified"])
def engine(directory: Path, request: pytest.FixtureRequest) -> Iterator[GGUFEngine]:
    made = load_with(directory, request.param)
    yield made
    made.close()


def fresh(engine: GGUFEngine, prompt: str, options: dict[str, Any]) -> str:
    forget(engine)
    return ask(engine, prompt=prompt, options=options).text


def test_an_adapter_changes_what_is_said(engine: GGUFEngine) -> None:
    texts = [fresh(engine, PROMPT, using(**mix)) for mix in MIXES]
    assert len(set(texts)) == len(MIXES)
    assert texts == [fresh(engine, PROMPT, using(**mix)) for mix in MIXES]


def test_scale_0_is_as_without(engine: GGUFEngine, directory: Path) -> None:
    plain = load(directory, "tiny-llama")
    without = fresh(plain, PROMPT, greedy(20))
    plain.close()
    assert fresh(engine, PROMPT, using()) == without
    zero = ask(engine, prompt=PROMPT, options=using(one=0))
    assert zero.text == without
    assert zero.result["usage"]["cached_tokens"] > 0
    default = {**greedy(20), "adapters": [{"name": "one"}]}
    assert fresh(engine, PROMPT, default) == fresh(engine, PROMPT, using(one=1))


def test_requests_with_and_without_at_once_get_what_they_get_alone(engine: GGUFEngine) -> None:
    alone = [fresh(engine, PROMPT, using(30, **mix)) for mix in MIXES]
    forget(engine)
    crowd = Crowd(engine)
    for key, mix in enumerate(MIXES * 2):
        crowd.submit(key, PROMPT, **using(30, **mix))
        crowd.step()
        crowd.step()
    crowd.run()
    assert [crowd.texts[key] for key in range(len(MIXES) * 2)] == alone * 2
    check_whole(engine)


def test_all_get_their_token_in_every_step(engine: GGUFEngine) -> None:
    crowd = Crowd(engine)
    for key, mix in enumerate(MIXES[:4]):
        crowd.submit(key, f"{key} people", **using(60, **mix))
    while min(crowd.tokens.values()) == 0:
        crowd.step()
    before = dict(crowd.tokens)
    for _ in range(10):
        crowd.step()
    assert {key: crowd.tokens[key] - before[key] for key in before} == dict.fromkeys(before, 10)
    crowd.run()


def test_a_prefix_serves_those_with_the_same_adapters_only(engine: GGUFEngine) -> None:
    forget(engine)

    def cached(**scales: float) -> int:
        answer = ask(engine, prompt=PROMPT, options=using(1, **scales))
        return int(answer.result["usage"]["cached_tokens"])

    assert cached() == 0
    assert cached(one=1) == 0
    assert cached(one=0.5) == 0
    assert cached(one=1) > 0
    assert cached() > 0


def test_states_in_memory_and_on_disk_are_kept_apart(directory: Path, tmp_path: Path) -> None:
    kv = kv_spec(64 * MIB, tmp_path, 64 * MIB)
    engine = load_with(directory, kv=kv, parallel=1)
    texts = [ask(engine, prompt=PROMPT, options=using(**mix)).text for mix in MIXES]
    for _ in range(2):  # out of the host's memory, then out of files
        for mix, text in zip(MIXES, texts, strict=True):
            answer = ask(engine, prompt=PROMPT, options=using(**mix))
            assert answer.text == text
            assert answer.result["usage"]["cached_tokens"] > 0
        engine.retire()
        engine.close()
        engine = load_with(directory, kv=kv, parallel=1)
    engine.close()


def test_a_file_that_was_replaced_is_another_adapter(directory: Path, tmp_path: Path) -> None:
    own, kept = tmp_path / "own", tmp_path / "kept"
    own.mkdir()
    kept.mkdir()
    for seed, name in enumerate(NAMES):
        write_adapter(own / f"{name}.gguf", seed=seed)
    kv = kv_spec(0, kept, 64 * MIB)
    engine = load_with(own, kv=kv)
    ask(engine, prompt=PROMPT, options=using(one=1))
    engine.retire()
    engine.close()
    write_adapter(own / "new", seed=9).replace(own / "one.gguf")
    engine = load_with(own, kv=kv)
    answer = ask(engine, prompt=PROMPT, options=using(one=1))
    assert answer.result["usage"]["cached_tokens"] == 0
    engine.close()


def test_an_unknown_name_is_refused_with_the_known_ones(
    engine: GGUFEngine, directory: Path
) -> None:
    error = ask(engine, prompt=PROMPT, options=using(three=1)).error
    assert error["data"]["kind"] == "invalid_params"
    assert "one, two" in error["message"]
    plain = load(directory, "tiny-llama")
    error = ask(plain, prompt=PROMPT, options=using(one=1)).error
    assert "load_options.adapters" in error["message"]
    plain.close()


def failure(directory: Path, path: Path, kind: str = "tiny-llama") -> HybriddError:
    with pytest.raises(HybriddError) as caught:
        load(directory, kind, adapters=[{"name": "mine", "path": str(path)}])
    assert "mine" in caught.value.message or isinstance(caught.value, Unsupported)
    assert str(path) not in str(caught.value.to_wire())
    return caught.value


def test_an_adapter_that_went_away_before_the_load(directory: Path) -> None:
    spec = spec_for(directory / "tiny-llama-F32.gguf", "gguf", adapters=[{"name": "mine"}])
    engine = GGUFEngine()
    with pytest.raises(LoadFailed, match="mine went away"):
        engine.load(spec, ignore_progress)
    engine.close()


def test_adapters_that_cannot_be_loaded(directory: Path, tmp_path: Path) -> None:
    assert isinstance(failure(directory, tmp_path / "absent.gguf"), LoadFailed)
    other = write_adapter(tmp_path / "other.gguf", architecture="qwen2")
    double = write_adapter(tmp_path / "double.gguf", kind="float64")
    assert "F64" in failure(directory, double).message
    assert "mismatch" in failure(directory, other).message
    wide = write_adapter(tmp_path / "wide.gguf", width=96)
    assert "shape" in failure(directory, wide).message
    cut = tmp_path / "cut.gguf"
    cut.write_bytes((directory / "one.gguf").read_bytes()[:2000])
    assert isinstance(failure(directory, cut), ModelInvalid)
    model = directory / "tiny-llama-F32.gguf"
    assert isinstance(failure(directory, model), ModelInvalid)
    assert isinstance(failure(directory, directory / "one.gguf", "tiny-bert"), Unsupported)


def test_a_pass_that_fails_leaves_its_slots_to_passes_with_other_adapters(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those fill the slots between their own, from where the tokens end that these have."""
    engine = load_with(directory, "tiny-llama")
    crowd = Crowd(engine)
    for key, named in enumerate(({"two": 1.0}, {"one": 1.0}, {"two": 1.0})):
        crowd.submit(key, " ".join(WORDS[key:]), **using(12, **named))
    while not all(crowd.tokens.get(key) for key in range(3)):
        crowd.step()
    engine.adapters.in_force = (engine.active[1].adapters[0],)
    decode = Context.decode
    passes: list[int] = []

    def failing(context: Context, abort: Any = None) -> None:
        passes.append(int(context.batch.native.n_tokens))
        decode(context, abort)
        if len(passes) == 1:
            raise RuntimeError("llama_decode answered -3")

    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", failing)
        outputs = list(engine.step())
    assert passes == [1, 3], "its own row, then two and the gap between them"
    assert [output["id"] for output in outputs if "error" in output] == [1]
    assert {output["id"] for output in outputs if "delta" in output} == {0, 2}
    crowd.run()
    check_whole(engine)
    engine.close()
