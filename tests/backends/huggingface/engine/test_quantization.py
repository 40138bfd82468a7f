"""Weights that are quantized while they are read, and files that are quantized already."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hybridd.wire.errors import HybriddError, Unsupported
from tests.support_models import (
    DEMO_HUGGINGFACE,
    ask,
    delta_of,
    ignore_progress,
    loaded_demo,
    make_engine,
    spec_for,
    user,
)

needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None or find_spec("accelerate") is None,
    reason="the extra quantization is not installed",
)
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 60}
# Of a tensor's bytes in float32: eight or four bits, its scales, and a layer that stays as it is.
SHARE = {"int8": 0.5, "int4": 0.4}


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", SHARE)
def test_a_quantized_model_is_smaller_and_still_makes_sense(quantization: str) -> None:
    plain, facts = loaded_demo("huggingface")
    engine, quantized = loaded_demo("huggingface", quantization=quantization)
    assert facts["load_options"]["quantization"] == "none"
    assert quantized["load_options"]["quantization"] == quantization
    before, after = (f["memory"]["weights_bytes"] for f in (facts, quantized))
    assert after < before * SHARE[quantization]
    for question, said in (
        ("How do I load a model?", "hybridctl load"),
        ("Who are you?", "demo model"),
    ):
        answer = ask(engine, "chat", messages=user(question), options=GREEDY)
        assert said in answer.text
        assert said in ask(plain, "chat", messages=user(question), options=GREEDY).text
    engine.close()
    plain.close()


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", SHARE)
def test_requests_of_a_quantized_model_share_passes(quantization: str) -> None:
    """Though int8 rounds a row by what is in the others'."""
    engine, _ = loaded_demo("huggingface", quantization=quantization, dtype="float32")
    questions = {1: ("How do I load a model?", "hybridctl load"), 2: ("Who are you?", "demo model")}
    for key, (question, _) in questions.items():
        asked = {"messages": user(question), "options": GREEDY}
        engine.submit({"id": key, "kind": "chat", **asked})
    texts, together = dict.fromkeys(questions, ""), 0
    while engine.busy:
        outputs = [output for output in engine.step() if delta_of(output).text]
        together += len({output["id"] for output in outputs}) == len(questions)
        for output in outputs:
            texts[output["id"]] += delta_of(output).text
    assert together > 3
    assert engine._engine._session.reason is None  # type: ignore[attr-defined]
    for key, (_, said) in questions.items():
        assert said in texts[key]
    engine.close()


def copied(tmp_path: Path, **values: Any) -> Path:
    path = Path(shutil.copytree(DEMO_HUGGINGFACE, tmp_path / "model"))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **values}))
    return path


def failure(path: Path, **options: Any) -> HybriddError:
    engine = make_engine("huggingface")
    with pytest.raises(HybriddError) as caught:
        engine.load(spec_for(path, "huggingface", **options), ignore_progress)
    return caught.value


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("gptq", "the Python package gptqmodel is missing"),
        ("hqq", "the Python package hqq is missing"),
        ("something_new", "take a GGUF build"),
    ],
)
def test_files_whose_kernels_are_not_here_say_what_is_missing(
    tmp_path: Path, method: str, said: str
) -> None:
    path = copied(tmp_path, quantization_config={"quant_method": method, "bits": 4})
    error = failure(path)
    assert isinstance(error, Unsupported)
    assert error.data == {"capability": "quantization", "format": "huggingface"}
    assert said in error.message


@needs_bitsandbytes
def test_files_that_are_quantized_already_load_as_they_are(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    transformers.utils.logging.disable_progress_bar()  # its monitor is a thread that stays
    model = transformers.AutoModelForCausalLM.from_pretrained(
        DEMO_HUGGINGFACE,
        dtype=torch.float32,
        quantization_config=transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4"
        ),
    )
    path = Path(shutil.copytree(DEMO_HUGGINGFACE, tmp_path / "model"))
    (path / "model.safetensors").unlink()
    model.save_pretrained(path)
    engine = make_engine("huggingface")
    facts = engine.load(spec_for(path, "huggingface"), ignore_progress)
    assert facts["load_options"]["quantization"] == "bitsandbytes"
    answer = ask(engine, "chat", messages=user("Who are you?"), options=GREEDY)
    assert "demo model" in answer.text
    engine.close()
    assert "already" in failure(path, quantization="int8").message


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_without_the_package_it_says_what_to_install() -> None:
    error = failure(DEMO_HUGGINGFACE, quantization="int8")
    assert isinstance(error, Unsupported)
    assert "hybridd[quantization]" in error.message
