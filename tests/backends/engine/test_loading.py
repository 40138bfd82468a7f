"""Loading: options that are meant or refused, progress, cancelling, and files that are broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.api import LoadCancelled
from hybridd.wire.errors import HybriddError, InvalidParams, LoadFailed, ModelInvalid, Unsupported
from tests.support_models import (
    DEMO_GGUF,
    DEMO_HUGGINGFACE,
    ask,
    ignore_progress,
    loaded_demo,
    make_engine,
    spec_for,
    user,
)

BOTH = pytest.mark.parametrize("format_name", ["gguf", "huggingface"])


def source(format_name: str) -> Path:
    return DEMO_GGUF if format_name == "gguf" else DEMO_HUGGINGFACE


def failure(path: Path, format_name: str, **load_options: Any) -> HybriddError:
    """The error of a load that has to fail; it says nothing of where the files lie."""
    engine = make_engine(format_name)
    with pytest.raises(HybriddError) as caught:
        engine.load(spec_for(path, format_name, **load_options), ignore_progress)
    engine.close()
    assert str(path) not in json.dumps(caught.value.to_wire())
    return caught.value


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A Hugging Face model that a test may break."""
    return Path(shutil.copytree(DEMO_HUGGINGFACE, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


# ---------------------------------------------------------------- both


@BOTH
def test_progress_counts_bytes_up_to_the_end(format_name: str) -> None:
    engine = make_engine(format_name)
    seen: list[tuple[str, int, int]] = []
    engine.load(spec_for(source(format_name), format_name), lambda *r: seen.append(r))
    engine.close()
    weights = [(done, total) for stage, done, total in seen if stage == "weights"]
    assert len(weights) > 20
    assert weights == sorted(weights)
    assert weights[0][0] == 0
    assert weights[-1][0] == weights[-1][1] > 5_000_000


@BOTH
def test_a_load_can_be_cancelled_on_its_way(format_name: str) -> None:
    def report(stage: str, done: int, total: int) -> None:
        if stage == "weights" and done > total // 2:
            raise LoadCancelled

    engine = make_engine(format_name)
    with pytest.raises(LoadCancelled):
        engine.load(spec_for(source(format_name), format_name), report)
    engine.close()


@BOTH
def test_what_is_in_force_is_said(format_name: str) -> None:
    engine, facts = loaded_demo(format_name, context_length=200, threads=2, parallel=8)
    assert facts["context_length"] == 200
    assert facts["parallel"] == facts["load_options"]["parallel"] == 8
    assert facts["load_options"]["threads"] == 2
    assert facts["memory"]["weights_bytes"] > 5_000_000
    assert facts["capabilities"] == ["completion", "chat"]
    long = ask(engine, prompt="word " * 300)
    assert long.error["data"]["context_length"] == 200
    engine.close()


@BOTH
def test_an_option_that_is_not_there_is_refused(format_name: str) -> None:
    error = failure(source(format_name), format_name, kv_cache_type="nonsense")
    assert isinstance(error, Unsupported | InvalidParams)


def test_no_model_drafts_in_the_huggingface_engine() -> None:
    error = failure(source("huggingface"), "huggingface", draft_model="x")
    assert isinstance(error, Unsupported)
    assert error.data["capability"] == "draft_model"


@BOTH
def test_a_device_that_is_not_there(format_name: str) -> None:
    error = failure(source(format_name), format_name, device="cuda:77")
    assert isinstance(error, Unsupported | InvalidParams)
    assert isinstance(failure(source(format_name), format_name, device="tpu"), InvalidParams)


# ---------------------------------------------------------------- GGUF


def test_gguf_without_a_template_has_no_chat(tmp_path: Path) -> None:
    data = DEMO_GGUF.read_bytes()
    name = b"tokenizer.chat_template"
    assert data.count(name) == 1
    path = tmp_path / "plain.gguf"
    path.write_bytes(data.replace(name, b"tokenizer.chat_templatX"))
    engine = make_engine("gguf")
    facts = engine.load(spec_for(path, "gguf"), ignore_progress)
    assert facts["capabilities"] == ["completion"]
    error = ask(engine, "chat", messages=user("hi")).error
    assert error["data"] == {"kind": "unsupported", "capability": "chat", "format": "gguf"}
    assert ask(engine, prompt="hello", options={"max_tokens": 2}).tokens == 2
    engine.close()


@pytest.mark.parametrize("kept", [0, 100, 20_000, 4_000_000])
def test_a_truncated_gguf(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(DEMO_GGUF.read_bytes()[:kept])
    error = failure(path, "gguf")
    assert isinstance(error, ModelInvalid)
    assert error.data["reason"]


def test_a_gguf_that_is_none(tmp_path: Path) -> None:
    assert isinstance(failure(tmp_path / "absent.gguf", "gguf"), LoadFailed)


@pytest.mark.parametrize("cache_type", ["f32", "bf16", "q8_0"])
def test_gguf_cache_types(cache_type: str) -> None:
    engine, facts = loaded_demo("gguf", kv_cache_type=cache_type)
    assert facts["load_options"]["kv_cache_type"] == cache_type
    assert ask(engine, "chat", messages=user("Who are you?"), options={"temperature": 0}).text
    engine.close()


def test_gguf_chunks_of_a_prompt_change_nothing() -> None:
    texts = []
    for options in ({"ubatch_size": 16}, {"mmap": False}, {"flash_attention": False}):
        engine, _ = loaded_demo("gguf", **options)
        # A question it was trained on: its margins are wide, where noise would flip at rounding.
        messages = [*user("Who are you?"), {"role": "assistant", "content": "I am a demo model."}]
        messages = [*(messages * 4), *user("How do I load a model?")]
        texts.append(ask(engine, "chat", messages=messages, options={"temperature": 0}).text)
        engine.close()
    assert "hybridctl load" in texts[0]
    assert texts[0] == texts[1] == texts[2]


# ---------------------------------------------------------------- Hugging Face


def test_transformers_without_a_hook_for_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in its 5.0: how far a load is comes only at its end."""
    engine = make_engine("huggingface")
    from transformers.utils import logging

    monkeypatch.delattr(logging, "set_tqdm_hook")
    told: list[tuple[str, int, int]] = []
    engine.load(spec_for(source("huggingface"), "huggingface"), lambda *said: told.append(said))
    weights = [(done, total) for stage, done, total in told if stage == "weights"]
    assert weights == [(0, weights[0][1]), (weights[0][1], weights[0][1])]
    assert ask(engine, prompt="hello", options={"temperature": 0, "max_tokens": 2}).tokens
    engine.close()


def test_huggingface_dtype_in_force() -> None:
    for asked, said in ((None, "float32"), ("auto", "float32"), ("bfloat16", "bfloat16")):
        engine, facts = loaded_demo("huggingface", dtype=asked, device="cpu")
        assert facts["load_options"]["dtype"] == said
        engine.close()


def test_huggingface_dtype_and_quantization_are_known_ones() -> None:
    assert isinstance(failure(DEMO_HUGGINGFACE, "huggingface", dtype="int3"), InvalidParams)
    error = failure(DEMO_HUGGINGFACE, "huggingface", quantization="int3")
    assert isinstance(error, InvalidParams)
    assert "none, int8, int4" in error.message


def test_huggingface_chunks_of_a_prompt_change_nothing() -> None:
    texts = []
    for chunk in (7, 512):
        engine, _ = loaded_demo("huggingface", ubatch_size=chunk)
        texts.append(ask(engine, prompt="hello " * 50, options={"temperature": 0}).text)
        engine.close()
    assert texts[0] == texts[1]


def test_truncated_weights(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = failure(copy, "huggingface")
    assert isinstance(error, ModelInvalid)
    assert "truncated" in error.data["reason"]


def test_pickles_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert isinstance(failure(copy, "huggingface"), ModelInvalid)


def test_a_missing_shard(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert isinstance(failure(copy, "huggingface"), ModelInvalid)


def test_weights_that_lack_a_tensor_are_not_made_up(copy: Path) -> None:
    edit(copy / "config.json", num_hidden_layers=7)
    error = failure(copy, "huggingface")
    assert isinstance(error, ModelInvalid)
    assert "lack" in error.data["reason"]


def test_weights_of_another_shape(copy: Path) -> None:
    edit(copy / "config.json", intermediate_size=500)
    assert failure(copy, "huggingface").kind in ("model_invalid", "load_failed")


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "no_such_architecture"},
        {"hidden_size": "big"},
        {"auto_map": {"AutoModelForCausalLM": "code.Model"}},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ],
)
def test_a_configuration_that_cannot_be_used(copy: Path, values: dict[str, Any]) -> None:
    edit(copy / "config.json", **values)
    error = failure(copy, "huggingface")
    assert error.kind in ("model_invalid", "load_failed", "unsupported")
    assert len(error.message) < 500


def test_a_tokenizer_that_is_none(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    assert isinstance(failure(copy, "huggingface"), ModelInvalid)


def test_code_in_the_directory_is_not_run(copy: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (copy / "code.py").write_text(f"open({str(ran)!r}, 'w')")
    edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.T", None]})
    failure(copy, "huggingface")
    assert not ran.exists()


def test_several_ends_of_a_turn(copy: Path) -> None:
    engine = make_engine("huggingface")
    engine.load(spec_for(copy, "huggingface"), ignore_progress)
    said = ask(engine, prompt="hello", options={"temperature": 0, "max_tokens": 1, "logprobs": 1})
    first = said.logprobs[0]["id"]
    engine.close()
    edit(copy / "generation_config.json", eos_token_id=[2, first])
    engine = make_engine("huggingface")
    engine.load(spec_for(copy, "huggingface"), ignore_progress)
    answer = ask(engine, prompt="hello", options={"temperature": 0})
    assert (answer.text, answer.result["finish_reason"]) == ("", "stop")
    engine.close()


def test_without_a_template_there_is_no_chat(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    engine = make_engine("huggingface")
    facts = engine.load(spec_for(copy, "huggingface"), ignore_progress)
    assert facts["capabilities"] == ["completion"]
    assert ask(engine, "chat", messages=user("hi")).error["data"]["capability"] == "chat"
    engine.close()
