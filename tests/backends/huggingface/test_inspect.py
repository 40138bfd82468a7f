"""Hugging Face directories: every fact, every refusal, and headers that somebody bent."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd.backends.huggingface import BACKEND
from hybridd.backends.huggingface import safetensors as reading
from hybridd.backends.huggingface.inspect import inspect
from hybridd.backends.huggingface.safetensors import read_tensors
from hybridd.core.model import Facts
from hybridd.wire.errors import ModelInvalid
from tests.make_models import (
    hf_config,
    hf_tensors,
    memory_directory,
    mutants,
    safetensors_header,
    write_hf,
    write_json,
    write_safetensors,
)


def reason_of(path: Path) -> str:
    """Why a directory is refused, whichever way it is said."""
    try:
        facts = inspect(path)
    except ModelInvalid as error:
        return str(error.data["reason"])
    assert facts.reason is not None, "it was accepted"
    return facts.reason


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_hf(tmp_path / "model")


def test_facts_of_a_small_llama(model: Path) -> None:
    facts = inspect(model)
    parameters = 64 * 32 + 2 * (32 * 32 + 64 * 32)
    assert facts == Facts(
        format="huggingface",
        files=(model / "config.json", model / "model.safetensors"),
        size_bytes=(model / "model.safetensors").stat().st_size,
        architecture="llama",
        parameters=parameters,
        quantization="BF16",
        bits_per_weight=16.0,
        context_length=1024,
        capabilities=("completion", "chat"),
        weights_bytes=parameters * 2,
        layers=2,
        heads=4,
        kv_heads=(2,),
        head_dim_k=8,
        head_dim_v=8,
        vocab_size=64,
        embedding_length=32,
        feed_forward_length=64,
        metadata=facts.metadata,
        chat_template="{{ messages }}",
        defaults={"temperature": 0.6, "top_p": 0.9, "top_k": 20},
    )
    assert facts.metadata["config"]["model_type"] == "llama"


def test_shards(tmp_path: Path, model: Path) -> None:
    sharded = inspect(write_hf(tmp_path / "sharded", shards=3))
    assert sharded.reason is None
    assert sharded.parameters == inspect(model).parameters
    assert len(sharded.files) == 4
    (tmp_path / "sharded" / "model-00002-of-00003.safetensors").unlink()
    assert reason_of(tmp_path / "sharded") == (
        "incomplete: 1 of 3 shards missing (model-00002-of-00003.safetensors)"
    )


def test_shards_without_an_index(tmp_path: Path) -> None:
    write_hf(tmp_path, shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert "no model.safetensors.index.json" in reason_of(tmp_path)


@pytest.mark.parametrize(
    "mapped", [{"a": "../x.safetensors"}, {"a": "x.bin"}, {"a": 3}, {}, [], None]
)
def test_an_index_that_lies(tmp_path: Path, mapped: Any) -> None:
    write_hf(tmp_path, shards=2)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": mapped})
    assert "model.safetensors.index.json" in reason_of(tmp_path)


def test_the_same_tensor_in_two_shards(tmp_path: Path) -> None:
    write_hf(tmp_path, shards=2)
    first = tmp_path / "model-00001-of-00002.safetensors"
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(first.read_bytes())
    assert "two shards" in reason_of(tmp_path)


def test_pickles_are_not_loaded(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    reason = reason_of(model)
    assert "pickles" in reason
    assert "convert" in reason
    assert BACKEND.claims({"config.json", "pytorch_model.bin"})


def test_no_weights_and_no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "no tokenizer" in reason_of(model)
    (model / "model.safetensors").unlink()
    assert "no weights" in reason_of(model)
    (model / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        inspect(model)


def test_which_directories_are_claimed() -> None:
    assert BACKEND.claims({"config.json", "model.safetensors"})
    assert BACKEND.claims({"config.json", "tokenizer.json"})
    assert BACKEND.claims({"config.json", "model.safetensors", "x.gguf"})
    assert BACKEND.claims({"config.json", "README.md"}), "a download that has just begun"
    assert not BACKEND.claims({"config.json", "main.py"})
    assert not BACKEND.claims({"config.json", "x.gguf", "tokenizer.json", "imatrix.bin"})
    assert not BACKEND.claims({"model.safetensors"})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", hf_config(auto_map={"AutoModel": "modeling.X"})),
        ("config.json", hf_config(text={"vision": [{"auto_map": {"a": "b"}}]})),
        ("config.json", hf_config(trust_remote_code=True)),
        ("config.json", hf_config(_attn_implementation="someone/kernel")),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.T", None]}}),
    ],
)
def test_code_from_elsewhere_is_refused(model: Path, file: str, content: Any) -> None:
    write_json(model / file, content)
    assert "code" in reason_of(model)


def test_what_transformers_itself_writes_is_accepted(model: Path) -> None:
    config = hf_config(_attn_implementation="sdpa", _attn_implementation_autoset=True, auto_map={})
    write_json(model / "config.json", config)
    assert inspect(model).reason is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, ("completion", "chat")),
        ({"architectures": ["BertModel"]}, ("embedding",)),
        ({"architectures": ["MarianMTModel"]}, ("completion", "chat")),
        ({"architectures": ["ReformerModelWithLMHead"]}, ("completion", "chat")),
        ({"architectures": ["EncoderDecoderModel"]}, ("completion", "chat")),
        (
            {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {"x": 1}},
            ("completion", "vision", "chat"),
        ),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}},
            ("reranking",),
        ),
    ],
)
def test_capabilities(model: Path, config: dict[str, Any], expected: tuple[str, ...]) -> None:
    write_json(model / "config.json", hf_config(**config))
    assert inspect(model).capabilities == expected


@pytest.mark.parametrize("names", [["ViTForImageClassification"], [], None, [3], "Llama"])
def test_what_is_no_language_model(model: Path, names: Any) -> None:
    write_json(model / "config.json", hf_config(architectures=names))
    assert "no language model" in reason_of(model)


@pytest.mark.parametrize(
    ("said", "reads"),
    [
        ({}, True),
        ({"num_mel_bins": 80}, False),
        ({"encoder": {"vocab_size": 32}}, True),
        ({"encoder": {"vocab_size": 32, "conv_dim": [512]}}, False),  # sound to letters
        ({"encoder": {"patch_size": 16}}, False),
        ({"encoder": 7}, False),
    ],
)
def test_encoder_decoders_that_read_no_text(model: Path, said: dict[str, Any], reads: bool) -> None:
    name = {"architectures": ["XForConditionalGeneration"], "is_encoder_decoder": True}
    write_json(model / "config.json", hf_config(**name, **said))
    if reads:
        assert inspect(model).reason is None
    else:
        assert "reads no text" in reason_of(model)


def test_a_nested_text_config(model: Path) -> None:
    config = hf_config()
    inner = {key: config.pop(key) for key in list(config) if key.startswith(("num_", "hidden"))}
    inner["max_position_embeddings"] = 32768
    write_json(model / "config.json", {**config, "text_config": inner})
    facts = inspect(model)
    assert (facts.layers, facts.context_length, facts.head_dim_k) == (2, 32768, 8)


@pytest.mark.parametrize(
    "said",
    [
        {"d_model": 32, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 64},
        {"decoder": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 64}},
    ],
)
def test_the_sizes_of_a_decoder_behind_an_encoder(model: Path, said: dict[str, Any]) -> None:
    whole = {"architectures": ["MarianMTModel"], "is_encoder_decoder": True}
    if "decoder" in said:
        whole["encoder"] = {"vocab_size": 64}
    write_json(model / "config.json", {**whole, **said})
    facts = inspect(model)
    assert (facts.layers, facts.heads, facts.kv_heads) == (3, 4, (4,))
    assert (facts.head_dim_k, facts.embedding_length, facts.feed_forward_length) == (8, 32, 64)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"do_sample": False, "temperature": 0.6, "top_p": 0.9}, {"temperature": 0.0}),
        (
            {"do_sample": True, "repetition_penalty": 1.1, "top_k": 5},
            {"repeat_penalty": 1.1, "top_k": 5},
        ),
        ({"temperature": None, "top_p": 2, "top_k": True, "min_p": "x"}, {}),
        ({"temperature": 1e400}, {}),
    ],
)
def test_defaults(model: Path, said: dict[str, Any], expected: dict[str, Any]) -> None:
    write_json(model / "generation_config.json", said)
    assert inspect(model).defaults == expected


def test_templates(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ tools }}<think>")
    facts = inspect(model)
    assert facts.chat_template == "{{ tools }}<think>"
    assert facts.capabilities == ("completion", "chat", "tools", "reasoning")
    (model / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    write_json(model / "tokenizer_config.json", {"chat_template": named})
    assert inspect(model).chat_template == "b"
    write_json(model / "tokenizer_config.json", {"chat_template": {"a": 1}})
    assert inspect(model).capabilities == ("completion",)


@pytest.mark.parametrize(
    ("quantized", "tensors", "name", "parameters"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            {
                "l.qweight": ("I32", (4, 32)),
                "l.scales": ("F16", (1, 32)),
                "l.g_idx": ("I32", (32,)),
            },
            "gptq-int4",
            32 * 32,
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            {"l.weight": ("U8", (512, 1)), "l.weight.absmax": ("U8", (16,)), "n": ("F32", (3,))},
            "bitsandbytes-int4",
            1024 + 3,
        ),
        (
            {"quant_method": "fp8"},
            {"l.weight": ("F8_E4M3", (32, 32)), "l.weight_scale_inv": ("F32", (1,))},
            "fp8",
            1024,
        ),
    ],
)
def test_quantized_weights(
    model: Path, quantized: Any, tensors: Any, name: str, parameters: int
) -> None:
    write_json(model / "config.json", hf_config(quantization_config=quantized))
    write_safetensors(model / "model.safetensors", tensors)
    facts = inspect(model)
    assert facts.reason is None
    assert (facts.quantization, facts.parameters) == (name, parameters)


@pytest.mark.parametrize(("dtype", "name"), [("F16", "F16"), ("F32", "F32"), ("F8_E4M3", "FP8")])
def test_dtypes(tmp_path: Path, dtype: str, name: str) -> None:
    assert inspect(write_hf(tmp_path, dtype=dtype)).quantization == name


# ---------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"nothing",
        b"\xff\xfe{}",
        b'{"a": ' * 5000,
        b"[" * 100_000,
        b'{"a": 1' + b"0" * 5000 + b"}",
        b'{"a": 1, "a": 2}',
        b'{"a": [' + b"1," * 450_000 + b"1]}",
        b" " * (1024 * 1024 + 1),
    ],
)
def test_json_that_is_none(model: Path, raw: bytes) -> None:
    (model / "config.json").write_bytes(raw)
    assert "config.json" in reason_of(model)


@pytest.mark.parametrize(
    "config",
    [
        dict.fromkeys(hf_config(), "x"),
        dict.fromkeys(hf_config(), -1),
        {key: [[]] for key in hf_config()},
        {key: {"a": {"b": 1}} for key in hf_config()},
        dict.fromkeys(hf_config(), 1e300),
        hf_config(hidden_size=2**70, num_attention_heads=0, text_config=[1], model_type=""),
        hf_config(num_key_value_heads=True, quantization_config={"quant_method": ["x"]}),
        hf_config(model_type="\ud800", architectures=["\udfffForCausalLM"]),
    ],
)
def test_configurations_of_the_wrong_types(model: Path, config: dict[str, Any]) -> None:
    write_json(model / "config.json", config)
    facts = inspect(model)
    BACKEND.estimate(facts, {})
    shown = {"a": facts.architecture, "m": facts.metadata, "c": facts.capabilities}
    json.dumps(shown, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\xff" * 8, "claims a header"),
        (struct.pack("<Q", 100) + b"{}", "inside its header"),
        (struct.pack("<Q", 2) + b"[]", "no safetensors"),
        (b"\0" * 4, "ends before"),
        (struct.pack("<Q", 2) + b"{}" + b"x", "bytes follow"),
    ],
)
def test_safetensors_that_lie(tmp_path: Path, header: bytes, reason: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(header)
    with pytest.raises(ModelInvalid, match=reason):
        read_tensors(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "X", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [2**60, 2**60], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": None, "data_offsets": [0, 4]},
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": "04"},
        [],
        None,
    ],
)
def test_safetensors_entries_that_lie(tmp_path: Path, entry: Any) -> None:
    raw = json.dumps({"t": entry}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with pytest.raises(ModelInvalid):
        read_tensors(path)


def test_a_safetensors_file_cut_short(model: Path) -> None:
    path = model / "model.safetensors"
    size = path.stat().st_size
    for left in (*range(0, 200, 9), size - 1):
        os.truncate(write_safetensors(path), left)
        assert reason_of(model).startswith("truncated"), left


def test_the_dtypes_are_those_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors")
    path = write_safetensors(tmp_path / "m.safetensors", hf_tensors("F16"))
    with library.safe_open(path, framework="np") as opened:
        assert set(opened.keys()) == set(read_tensors(path).shapes)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with memory_directory() as directory:
        yield write_hf(Path(directory) / "model")


def test_mutants_raise_model_invalid_only(in_memory: Path) -> None:
    header, data = safetensors_header(hf_tensors())
    path = in_memory / "model.safetensors"
    refused = 0
    for mutant in mutants(header + bytes(data), len(header), 5000, seed=2):
        path.write_bytes(mutant)
        try:
            made = read_tensors(path)
        except ModelInvalid as error:
            refused += bool(error.data["reason"])
        else:
            assert sum(made.bytes_by_dtype.values()) <= made.size
    assert refused > 4000


def test_mutants_of_the_configuration(in_memory: Path) -> None:
    raw = json.dumps(hf_config(text_config=hf_config(), quantization_config={"bits": 4})).encode()
    refused = 0
    for mutant in mutants(raw, len(raw), 1000, seed=3):
        (in_memory / "config.json").write_bytes(mutant)
        try:
            BACKEND.estimate(inspect(in_memory), {})
        except ModelInvalid as error:
            refused += bool(error.data["reason"])
    assert refused > 200


def test_a_header_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_HEADER_BYTES", 100)
    with pytest.raises(ModelInvalid, match="claims a header"):
        read_tensors(write_safetensors(tmp_path / "m.safetensors"))
