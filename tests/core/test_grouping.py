"""Which names are builds of one model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hybridd.core.grouping import base_name, family, normal, store_name


@pytest.mark.parametrize(
    ("model_id", "expected"),
    [
        ("TheBloke/CodeLlama-13B-Instruct-GGUF:Q4_K_M", "codellama-13b-instruct"),
        ("codellama/CodeLlama-13b-Instruct-hf", "codellama-13b-instruct"),
        ("TheBloke/MythoMax-L2-13B-GPTQ", "mythomax-l2-13b"),
        ("lmstudio-community/Qwen2.5-Coder-14B-GGUF:Q4_K_M", "qwen2.5-coder-14b"),
        ("Qwen/Qwen2.5-Coder-14B", "qwen2.5-coder-14b"),
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "qwen3-8b-unsloth"),
        ("mradermacher/X-7B-i1-GGUF:IQ4_XS", "x-7b"),
        ("RedHat/X-7B-quantized.w4a16", "x-7b"),
        ("neural/X-7B-FP8-dynamic", "x-7b"),
        ("onnx-community/X-7B-ONNX", "x-7b"),
        ("mlx-community/X-7B-4bit", "x-7b"),
        ("google/gemma-3-12b-it-qat-q4_0-gguf:Q4_0", "gemma-3-12b-it"),
        ("x-7b.Q5_K_S", "x-7b"),
        ("llama3:8b", "llama3"),
        ("p/n@hub", "n"),
        ("gguf", "gguf"),
        ("-GGUF", "-gguf"),
        ("Phi 3_mini", "phi-3-mini"),
    ],
)
def test_families(model_id: str, expected: str) -> None:
    assert family(model_id) == expected


@pytest.mark.parametrize(
    ("own", "stated", "expected"),
    [
        ("me/quant-of-something:Q4_K_M", "Qwen/Qwen3-8B", "qwen3-8b"),
        ("unsloth/Qwen3-8B-GGUF:Q4_K_M", "Qwen/Qwen3-8B", "qwen3-8b"),
        # What a model was trained from is not what it is a build of.
        ("Qwen/Qwen3-8B-GGUF:Q4_K_M", "Qwen/Qwen3-8B-Base", "qwen3-8b"),
        ("x/Llama-3.1-8B-Instruct-GGUF:Q8_0", "meta/Llama-3.1-8B", "llama-3.1-8b-instruct"),
        ("p/n:Q4_0", None, "n"),
        ("p/n:Q4_0", "  ", "n"),
        ("p/n:Q4_0", "org/", "n"),
    ],
)
def test_bases(own: str, stated: str | None, expected: str) -> None:
    assert base_name(own, stated) == expected


@pytest.mark.parametrize(
    ("given_name", "header", "expected"),
    [
        ("llama3.1:8b-instruct-q4_K_M", "x", "llama3.1-8b-instruct"),
        ("qwen3:8b", None, "qwen3-8b"),
        ("qwen3:latest", "Qwen3 8B", "qwen3-8b"),
        ("qwen3:latest", None, "qwen3"),
        ("hub.example/org/Big-7B-GGUF:Q4_K_M", None, "big-7b"),
    ],
)
def test_names_that_a_store_gives(given_name: str, header: str | None, expected: str) -> None:
    assert base_name(store_name(given_name, header), None) == expected


@given(some.text())
def test_any_name_has_a_normal_form_that_stays(name: str) -> None:
    made = normal(name)
    assert normal(made) == made
    assert bool(made) == bool(name.strip())
