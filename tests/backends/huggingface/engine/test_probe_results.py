"""A model that was tried once is not tried again, until something changes that decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from hybridd.backends.api import LoadSpec
from hybridd.backends.huggingface.engine import cache_files
from hybridd.backends.huggingface.engine.forward import batched, probe_results
from hybridd.backends.huggingface.engine.forward.batched import BatchSession
from hybridd.backends.huggingface.engine.generator import HuggingFaceEngine
from tests.make_transformers import make
from tests.support_models import ask, ignore_progress, spec_for

GREEDY = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, of a cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hybridd" / "huggingface-trials.json"


@pytest.fixture
def tried(kept: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry for every trial."""
    trials: list[str] = []
    probe = BatchSession._probe

    def counted(self: BatchSession) -> Any:
        trials.append(self.loaded.model.config.model_type)
        return probe(self)

    monkeypatch.setattr(BatchSession, "_probe", counted)
    return trials


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("llama", tmp_path_factory.mktemp("llama"))


def text(path: Path, **load_options: Any) -> str:
    """What a fresh worker would answer."""
    engine = HuggingFaceEngine()
    engine.load(spec_for(path, "huggingface", **load_options), ignore_progress)
    answer = ask(engine, prompt="ab é世", options=GREEDY).text
    engine.close()
    return answer


@pytest.mark.parametrize("family", ["llama", "gemma3", "mixtral"])
def test_the_next_load_tries_nothing_and_answers_the_same(
    tmp_path: Path, tried: list[str], family: str
) -> None:
    path = make(family, tmp_path / family)
    first = text(path)
    assert len(tried) == 1
    assert text(path) == text(path, parallel=3) == first
    assert len(tried) == 1


def test_models_are_known_one_by_one(tmp_path: Path, llama: Path, tried: list[str]) -> None:
    text(llama)
    text(make("llama", tmp_path / "deep", num_hidden_layers=4))
    text(llama, dtype="bfloat16")
    assert len(tried) == 3
    for options in ({}, {"dtype": "bfloat16"}):
        text(llama, **options)
    assert len(tried) == 3


def test_a_change_of_the_sources_is_tried(
    llama: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text(llama)
    looked_at: list[Path] = []

    def changed(*sources: Path) -> str:
        looked_at.extend(sources)
        return "another one"

    monkeypatch.setattr(cache_files, "fingerprint", changed)
    text(llama)
    assert len(tried) == 2
    assert "modeling_llama.py" in {source.name for source in looked_at}
    assert Path(batched.__file__).parents[1] in looked_at


def test_other_weights_of_the_same_configuration_are_tried(llama: Path, tried: list[str]) -> None:
    """Code that is not known here may show only with weights that are not zero."""
    for identity in ("before", "after", "before", "after"):
        engine = HuggingFaceEngine()
        spec = {**spec_for(llama, "huggingface"), "identity": identity}
        engine.load(cast("LoadSpec", spec), ignore_progress)
        engine.close()
    assert len(tried) == 2


def test_sources_of_base_classes_and_shared_functions_are_looked_at(
    llama: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With transformers out of a checkout these change while its version stays."""
    looked_at: list[Path] = []
    monkeypatch.setattr(cache_files, "fingerprint", lambda *paths: looked_at.extend(paths))
    text(llama)
    names = {source.name for source in looked_at}
    assert {"modeling_llama.py", "modeling_utils.py", "cache_utils.py", "masking_utils.py"} <= names


@pytest.mark.parametrize("name", ["version", "torch"])
def test_a_change_of_the_libraries_is_tried(
    llama: Path, tried: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text(llama)
    if name == "version":
        monkeypatch.setattr(probe_results, "version", lambda: "transformers 9")
    else:
        monkeypatch.setattr(probe_results.torch, "__version__", "2.99.0")
    text(llama)
    assert len(tried) == 2


def test_quantized_models_are_tried_each_time(llama: Path, tried: list[str], kept: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    for _ in range(2):
        text(llama, quantization="int8")
    assert len(tried) == 2
    assert not kept.exists()


def test_a_model_that_takes_turns_is_tried_each_time(
    llama: Path, tried: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "close", lambda *_: False)
    answer = text(llama)
    assert not kept.exists()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept.parent.parent))
    assert text(llama) == answer
    assert kept.exists()


def test_a_configuration_that_cannot_be_told_is_tried(llama: Path, tried: list[str]) -> None:
    engine = HuggingFaceEngine()
    engine.load(spec_for(llama, "huggingface"), ignore_progress)
    loaded = engine._loaded
    assert loaded is not None
    loaded.model.config.something = object()
    known = probe_results.Trials(loaded)
    known.keep([])
    assert known.find(0) is None


@pytest.mark.parametrize(
    "shapes",
    [
        None,
        [],
        [[2, 16, 16, "float32"]],
        [[2, 16, 16, "float32"]] * 4,
        [[2, 16, 16, "bfloat17"]] * 3,
        [[2, 16, 16, "nn"]] * 3,
        [[2, 16, 16]] * 3,
        [[2, 16, 16, 16, "float32"]] * 3,
        [[0, 16, 16, "float32"]] * 3,
        [["2", 16, 16, "float32"]] * 3,
        [["a", "b", "c", None]] * 3,
        {"a": 1},
        "ab",
    ],
    ids=str,
)
def test_shapes_that_are_none_are_found_out_anew(
    llama: Path, tried: list[str], kept: Path, shapes: object
) -> None:
    answer = text(llama)
    good = json.loads(kept.read_text())
    assert [len(known["shapes"]) for known in good.values()] == [3]
    kept.write_text(json.dumps({key: {"shapes": shapes} for key in good}))
    assert text(llama) == answer
    assert len(tried) == 2
    assert json.loads(kept.read_text()) == good


@pytest.mark.parametrize("content", ["", "[1", "[]", "null", "7", '"ab"'])
def test_a_broken_file_is_replaced(llama: Path, tried: list[str], kept: Path, content: str) -> None:
    text(llama)
    good = kept.read_text()
    kept.write_text(content)
    text(llama)
    assert len(tried) == 2
    assert kept.read_text() == good


def test_the_oldest_models_are_forgotten(
    llama: Path, tried: list[str], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_results, "_MOST_MODELS", 2)
    for dtype in ("float32", "bfloat16", "float16"):
        text(llama, dtype=dtype)
    assert len(json.loads(kept.read_text())) == 2
    for dtype in ("bfloat16", "float16", "float32"):
        text(llama, dtype=dtype)
    assert len(tried) == 4
