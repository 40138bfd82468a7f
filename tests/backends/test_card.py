"""What the files say of a model in words: the card, in both formats, and who gave a capability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends import card
from hybridd.backends.gguf.inspect import inspect as inspect_gguf
from hybridd.backends.gguf.projector import companions
from hybridd.backends.huggingface import BACKEND as HUGGINGFACE
from hybridd.backends.huggingface.inspect import inspect as inspect_hf
from hybridd.backends.huggingface.readme import read_card
from hybridd.backends.onnx import BACKEND as ONNX
from hybridd.core.model import Facts
from tests.make_models import (
    STRING,
    U32,
    Array,
    Tensor,
    Typed,
    hf_config,
    llama_metadata,
    write_gguf,
    write_hf,
    write_json,
    write_safetensors,
)


def gguf(path: Path, **more: Any) -> Facts:
    return inspect_gguf(write_gguf(path / "x.gguf", llama_metadata(**more)))


def card_of(facts: Facts) -> dict[str, Any]:
    json.dumps(facts.metadata)
    return card.of(facts.metadata)


# ---------------------------------------------------------------- GGUF


def test_the_card_of_a_gguf_file(tmp_path: Path) -> None:
    facts = gguf(
        tmp_path,
        general__size_label="8x7B",
        general__license="apache-2.0",
        general__languages=Array(STRING, ["en", "de"]),
        general__base_model__count=2,
        general__base_model__0__name="Big",
        general__base_model__0__organization="Org",
        general__base_model__1__repo_url="https://hub.example/Other/Big-7B",
        llama__rope__freq_base=1e6,
        llama__rope__scaling__type="yarn",
        llama__rope__scaling__factor=4.0,
        llama__rope__scaling__original_context_length=512,
        llama__attention__sliding_window=128,
        llama__expert_count=8,
        llama__expert_used_count=2,
        tokenizer__ggml__pre="llama-bpe",
        tokenizer__chat_template__tool_use="{{ tools }}",
    )
    found = card_of(facts)
    assert found.pop("rules") == {
        "completion": "its architecture generates text",
        "chat": "the header has tokenizer.chat_template",
    }
    assert found == {
        "kind": "model",
        "size_label": "8x7B",
        "license": "apache-2.0",
        "languages": ["en", "de"],
        "base_models": ["Org/Big", "Other/Big-7B"],
        "tokenizer": {"model": "gpt2", "pre": "llama-bpe", "tokens": 64},
        "chat_templates": ["default", "tool_use"],
        "sliding_window": 128,
        "experts": {"count": 8, "used": 2},
        "rope": {
            "freq_base": 1e6,
            "scaling": "yarn",
            "factor": 4.0,
            "original_context_length": 512,
        },
    }
    assert facts.base is None  # of two bases it is a build of neither


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(0, None), (999, None), (494_032_768, "494M"), (7_241_732_096, "7.2B"), (10**12, "1.0T")],
)
def test_size_labels(parameters: int, label: str | None) -> None:
    assert card.size_label(parameters) == label


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (0, ("completion", "chat")),
        (1, ("embedding",)),
        (3, ("embedding",)),
        (4, ("reranking",)),
        (99, ("completion", "chat")),
    ],
)
def test_pooling(tmp_path: Path, pooling: int, expected: tuple[str, ...]) -> None:
    facts = gguf(tmp_path, llama__pooling_type=pooling)
    assert facts.capabilities == expected
    assert set(card_of(facts)["rules"]) == set(expected)


@pytest.mark.parametrize(
    ("metadata", "tensors", "kind", "reason"),
    [
        (
            {"general.architecture": "clip", "clip.has_audio_encoder": True},
            [Tensor("v.x", (32,))],
            "projector",
            "projector",
        ),
        (
            {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"},
            [Tensor("blk.0.attn_q.weight.lora_a", (256, 16))],
            "adapter",
            "LoRA adapter",
        ),
        ({"general.type": "imatrix"}, [Tensor("x.in_sum2", (32,))], "imatrix", "imatrix"),
        (
            {"general.architecture": "controlvector"},
            [Tensor("direction.1", (32,))],
            "control vector",
            "control vector",
        ),
        (llama_metadata(), [], "vocabulary", "only a vocabulary"),
    ],
)
def test_what_else_uses_the_container(
    tmp_path: Path, metadata: dict[str, Any], tensors: list[Tensor], kind: str, reason: str
) -> None:
    facts = inspect_gguf(write_gguf(tmp_path / "x.gguf", metadata, tensors))
    assert card_of(facts)["kind"] == kind
    assert reason in str(facts.reason)


def test_an_adapters_rank_and_a_projectors_senses(tmp_path: Path) -> None:
    made = {"general.architecture": "llama", "adapter.type": "lora", "adapter.lora.alpha": 32.0}
    tensors = [Tensor("blk.0.attn_q.weight.lora_a", (256, 16))]
    facts = inspect_gguf(write_gguf(tmp_path / "a.gguf", made, tensors))
    assert card_of(facts)["adapter"] == {"type": "lora", "alpha": 32.0, "rank": 16}
    assert facts.capabilities == ()
    both = {"general.architecture": "clip", "clip.has_vision_encoder": True}
    both["clip.has_audio_encoder"] = True
    facts = inspect_gguf(write_gguf(tmp_path / "p.gguf", both, tensors))
    assert card_of(facts)["senses"] == ["vision", "audio"]


@pytest.mark.parametrize(
    "odd",
    [
        {"card": "mine"},
        {"general.base_model.count": Typed(U32, 2**32 - 1)},
        {"general.languages": 3, "general.license": Array(U32, [1])},
        {"llama.rope.scaling.type": 1, "llama.expert_count": "x"},
        {"general.base_model.0.repo_url": "////////", "general.base_model.0.name": ""},
        {"tokenizer.chat_template.": "x", "general.size_label": " " * 9},
    ],
)
def test_odd_values_are_left_out(tmp_path: Path, odd: dict[str, Any]) -> None:
    facts = gguf(tmp_path, **odd)
    assert facts.reason is None
    assert card_of(facts)["kind"] == "model"


@pytest.mark.parametrize(
    ("names", "loose", "expected"),
    [
        (["m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf"], False, "mmproj-F16.gguf"),
        (["m-Q4_K_M.gguf", "mmproj-model-f16.gguf"], True, "mmproj-model-f16.gguf"),
        (["m.gguf", "n.gguf", "mmproj-F16.gguf"], True, None),
        (["m.gguf", "n.gguf", "mmproj-m-f16.gguf"], True, "mmproj-m-f16.gguf"),
        (["m-7b-Q4_0.gguf", "n.gguf", "m-7b-mmproj-f16.gguf"], True, "m-7b-mmproj-f16.gguf"),
        (["m.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"], False, "mmproj-F16"),
        (["m.gguf", "mmproj-other-name-f16.gguf"], False, "mmproj-other-name-f16.gguf"),
        (["m.gguf", "n.gguf", "mmproj-other-f16.gguf"], True, None),
        (["mmproj-F16.gguf", "mmproj-F32.gguf"], False, None),
    ],
)
def test_which_projector_belongs_to_a_model(
    names: list[str], loose: bool, expected: str | None
) -> None:
    found = companions(names, loose).get(names[0], [None])[0]
    assert (found or "").startswith(expected or "-") or found is expected


# ---------------------------------------------------------------- Hugging Face


def test_the_card_of_a_directory(tmp_path: Path) -> None:
    model = write_hf(
        tmp_path,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
        },
        rope_theta=1e6,
        sliding_window=64,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    (model / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage:\n- en\n- 'de'\nbase_model: [Org/Big]\n"
        "base_model_relation: quantized\nwidget:\n  - text: x\n---\n# Title\nlicense: no\n"
    )
    write_json(
        model / "tokenizer_config.json",
        {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ tools }}"},
    )
    facts = inspect_hf(model)
    found = card_of(facts)
    assert set(found.pop("rules")) == {"completion", "chat", "tools"} == set(facts.capabilities)
    assert found == {
        "kind": "model",
        "size_label": "8.2K",
        "dtype": "bfloat16",
        "rope": {"theta": 1e6, "scaling": "yarn", "factor": 4.0, "original_context_length": 256},
        "sliding_window": 64,
        "experts": {"count": 8, "used": 2},
        "tokenizer": {"model": "LlamaTokenizer", "tokens": 64},
        "license": "apache-2.0",
        "languages": ["en", "de"],
        "base_models": ["Org/Big"],
        "chat_templates": ["default"],
    }
    assert facts.base == "Org/Big"


def test_a_finetune_is_no_build_of_its_base(tmp_path: Path) -> None:
    model = write_hf(tmp_path)
    (model / "README.md").write_text("---\nbase_model: Org/Big\n---\n")
    facts = inspect_hf(model)
    assert (facts.base, card_of(facts)["base_models"]) == (None, ["Org/Big"])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"# no",
        b"---\nlicense: x",
        b"\xff\xfe---\n",
        b"---\n" * 9,
        b"---\n" + b"a: b\n" * 99999,
    ],
)
def test_readmes_of_any_bytes(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "README.md").write_bytes(raw)
    assert read_card(tmp_path) == {}
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert read_card(tmp_path) == {}


@pytest.mark.parametrize(
    ("quantized", "name", "said"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "bitsandbytes-int4",
            {"method": "bitsandbytes", "type": "nf4"},
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128},
            "gptq-int4",
            {"method": "gptq", "bits": 4, "group_size": 128},
        ),
        ({"quant_method": "awq", "bits": 4}, "awq-int4", {"method": "awq", "bits": 4}),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "float-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "compressed-tensors-fp8",
            {"method": "compressed-tensors", "type": "float-quantized"},
        ),
        (
            {"quant_method": "fp8", "fmt": "e4m3"},
            "fp8",
            {"method": "fp8", "type": "e4m3"},
        ),
        (
            {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnly"}}},
            "torchao",
            {"method": "torchao", "type": "Int8WeightOnly"},
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": 3}},
            "compressed-tensors",
            {"method": "compressed-tensors"},
        ),
    ],
)
def test_quantizations(tmp_path: Path, quantized: Any, name: str, said: Any) -> None:
    facts = inspect_hf(write_hf(tmp_path, quantization_config=quantized))
    assert facts.quantization == name
    assert card_of(facts)["quantization"] == said


def test_processors(tmp_path: Path) -> None:
    model = write_hf(tmp_path / "see", architectures=["XForConditionalGeneration"])
    write_json(
        model / "preprocessor_config.json",
        {"image_processor_type": "XImageProcessor", "processor_class": "XProcessor"},
    )
    facts = inspect_hf(model)
    assert "vision" in facts.capabilities
    assert card_of(facts)["processor"] == {"class": "XProcessor", "vision": "XImageProcessor"}
    hear = write_hf(tmp_path / "hear")
    write_json(
        hear / "preprocessor_config.json",
        {"feature_extractor_type": "XFeatureExtractor", "sampling_rate": 16000},
    )
    assert "audio" in inspect_hf(hear).capabilities
    (hear / "preprocessor_config.json").write_text("[")
    assert inspect_hf(hear).capabilities == ("completion", "chat")


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"architectures": ["BertModel"]}, ["modules.json"], ("embedding",)),
        ({"architectures": ["Qwen3ForCausalLM"]}, ["modules.json"], ("embedding",)),
        ({"architectures": ["ModernBertForMaskedLM"]}, [], ("embedding",)),
        (
            {"architectures": ["XForSequenceClassification"], "sentence_transformers": {"a": 1}},
            [],
            ("reranking",),
        ),
        ({"architectures": ["XForSequenceClassification"], "id2label": {"0": 1, "1": 2}}, [], ()),
        ({"architectures": ["CLIPModel"], "vision_config": {}}, [], ()),
    ],
)
def test_encoders(tmp_path: Path, config: Any, files: list[str], expected: Any) -> None:
    model = write_hf(tmp_path, **config)
    for name in files:
        (model / name).write_text("[]")
    facts = inspect_hf(model)
    assert facts.capabilities == expected
    assert tuple(card_of(facts).get("rules", {})) == expected


def test_encoder_decoders_generate(tmp_path: Path) -> None:
    facts = inspect_hf(write_hf(tmp_path, is_encoder_decoder=True, model_type="t5"))
    assert facts.reason is None
    assert "completion" in facts.capabilities


def test_adapters(tmp_path: Path) -> None:
    write_json(
        tmp_path / "adapter_config.json",
        {
            "peft_type": "LORA",
            "base_model_name_or_path": "Org/Big",
            "r": 16,
            "lora_alpha": 32,
            "target_modules": ["q_proj", "v_proj"],
        },
    )
    write_safetensors(tmp_path / "adapter_model.safetensors", {"a.lora_A.weight": ("F32", (16, 8))})
    write_json(tmp_path / "tokenizer_config.json", {})
    assert HUGGINGFACE.claims({path.name for path in tmp_path.iterdir()})
    facts = inspect_hf(tmp_path)
    assert str(facts.reason).startswith("a PEFT adapter (LORA) for Org/Big: it is used with")
    assert (facts.base, facts.parameters, facts.capabilities) == ("Org/Big", 128, ())
    assert card_of(facts)["adapter"] == {
        "type": "lora",
        "rank": 16,
        "alpha": 32.0,
        "targets": ["q_proj", "v_proj"],
    }
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "/home/x/runs/Big/"})
    (tmp_path / "adapter_model.safetensors").unlink()
    facts = inspect_hf(tmp_path)
    assert facts.base == "Big"
    assert "without safetensors weights" in str(facts.reason)


def test_a_model_with_an_adapter_beside_it_is_a_model(tmp_path: Path) -> None:
    model = write_hf(tmp_path)
    write_json(model / "adapter_config.json", {})
    assert inspect_hf(model).reason is None


# ---------------------------------------------------------------- ONNX


def test_onnxruntime_genai(tmp_path: Path) -> None:
    write_json(
        tmp_path / "genai_config.json",
        {
            "model": {
                "type": "phi3",
                "context_length": 4096,
                "vocab_size": 32064,
                "decoder": {"num_hidden_layers": 32, "hidden_size": 3072},
                "vision": {},
            }
        },
    )
    (tmp_path / "model.onnx").write_bytes(b"x" * 7)
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 5)
    assert ONNX.claims({"genai_config.json", "model.onnx"})
    facts = ONNX.inspect(tmp_path)
    assert "no engine" in str(facts.reason)
    assert (facts.architecture, facts.context_length, facts.layers) == ("phi3", 4096, 32)
    assert facts.capabilities == ("completion", "vision")
    assert (facts.size_bytes, len(facts.files)) == (12, 2)


def test_optimum(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", hf_config())
    write_json(tmp_path / "tokenizer.json", {})
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model_q4f16.onnx").write_bytes(b"x")
    facts = ONNX.inspect(tmp_path)
    assert (facts.architecture, facts.quantization) == ("llama", "int4")
    names = {"config.json", "tokenizer.json", "onnx/"}
    assert ONNX.claims(names)
    assert not HUGGINGFACE.claims(names)
    assert not HUGGINGFACE.claims({"config.json", "tokenizer.json", "model.onnx"})
    both = names | {"model.safetensors"}
    assert HUGGINGFACE.claims(both)
    assert not ONNX.claims(both)


@pytest.mark.parametrize("said", [{}, {"model": 3}, {"model": {"decoder": [], "type": 9}}])
def test_odd_onnx_configurations(tmp_path: Path, said: Any) -> None:
    write_json(tmp_path / "genai_config.json", said)
    facts = ONNX.inspect(tmp_path)
    assert facts.reason == "no weights: the directory has no .onnx file"
    json.dumps(facts.metadata)
