"""The inventory of the system that hybridd succeeds: 13 GGUF files and 4 Hugging Face directories.

The shapes are the published ones of each base model, so that parameters and sizes come out as their
authors say; the weights are holes in sparse files, which take no room.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.make_models import (
    F32,
    STRING,
    Array,
    Tensor,
    hf_config,
    write_gguf,
    write_json,
    write_safetensors,
)


class Shape(NamedTuple):
    """What a base model is made of, and how many parameters its authors count."""

    architecture: str
    parameters: int
    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int


QWEN_14B = Shape("qwen2", 14_770_033_664, 48, 5120, 13824, 40, 8, 128, 152064, 32768)
CODELLAMA_13B = Shape("llama", 13_016_028_160, 40, 5120, 13824, 40, 40, 128, 32016, 16384)
LLAMA2_13B = Shape("llama", 13_015_864_320, 40, 5120, 13824, 40, 40, 128, 32000, 4096)
DEEPSEEK_7B = Shape("llama", 6_740_512_768, 32, 4096, 11008, 32, 32, 128, 32256, 16384)
LLAMA3_8B = Shape("llama", 8_030_261_248, 32, 4096, 14336, 32, 8, 128, 128256, 8192)
GEMMA3_12B = Shape("gemma3", 11_765_788_416, 48, 3840, 15360, 16, 8, 256, 262144, 131072)
MISTRAL_7B = Shape("llama", 7_241_732_096, 32, 4096, 14336, 32, 8, 128, 32000, 8192)

FILE_TYPES = {"Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17}


class Build(NamedTuple):
    """One GGUF file: where it lies, what it is."""

    publisher: str
    repository: str
    file: str
    shape: Shape
    quantization: str

    @property
    def id(self) -> str:
        return f"{self.publisher}/{self.repository}:{self.quantization}"


def _bloke(name: str, stem: str, shape: Shape, quantization: str) -> Build:
    return Build("TheBloke", f"{name}-GGUF", f"{stem}.{quantization}.gguf", shape, quantization)


def _studio(name: str, shape: Shape, quantization: str) -> Build:
    file = f"{name}-{quantization}.gguf"
    return Build("lmstudio-community", f"{name}-GGUF", file, shape, quantization)


BUILDS = (
    _studio("Qwen2.5-Coder-14B-Instruct", QWEN_14B, "Q4_K_S"),
    _bloke("CodeLlama-13B-Instruct", "codellama-13b-instruct", CODELLAMA_13B, "Q4_K_M"),
    _bloke("CodeLlama-13B-Python", "codellama-13b-python", CODELLAMA_13B, "Q4_K_M"),
    _bloke("deepseek-coder-6.7B-instruct", "deepseek-coder-6.7b-instruct", DEEPSEEK_7B, "Q8_0"),
    _studio("Meta-Llama-3-8B-Instruct", LLAMA3_8B, "Q8_0"),
    _studio("gemma-3-12b-it", GEMMA3_12B, "Q4_K_M"),
    _studio("gemma-3-12b-it", GEMMA3_12B, "Q5_K_M"),
    _bloke("MythoMax-L2-13B", "mythomax-l2-13b", LLAMA2_13B, "Q4_K_M"),
    _bloke("MythoMax-L2-13B", "mythomax-l2-13b", LLAMA2_13B, "Q4_K_S"),
    _bloke("MythoMax-L2-Kimiko-v2-13B", "mythomax-l2-kimiko-v2-13b", LLAMA2_13B, "Q4_K_M"),
    _bloke("Kunoichi-DPO-v2-7B", "kunoichi-dpo-v2-7b", MISTRAL_7B, "Q8_0"),
    _bloke("EstopianMaid-13B", "estopianmaid-13b", LLAMA2_13B, "Q4_K_M"),
    _bloke("Silicon-Maid-7B", "silicon-maid-7b", MISTRAL_7B, "Q8_0"),
)

DIRECTORIES = {
    "demo-llama-7b": (Shape("llama", 6_738_415_616, 32, 4096, 11008, 32, 32, 128, 32000, 4096)),
    "demo-codellama-7b": (
        Shape("llama", 6_738_546_688, 32, 4096, 11008, 32, 32, 128, 32016, 16384)
    ),
    "demo-vi-llama": LLAMA3_8B,
    "my-custom-model": MISTRAL_7B,
}


def tensors_of(shape: Shape, quantization: str) -> Iterator[Tensor]:
    """The tensor table that llama.cpp's quantizer writes for this file type."""
    kind = {"Q8": "Q8_0", "Q4": "Q4_K", "Q5": "Q5_K"}[quantization[:2]]
    gemma = shape.architecture == "gemma3"
    width, kv = shape.width, shape.kv_heads * shape.head_dim
    head = "Q8_0" if kind == "Q8_0" else "Q6_K"
    yield Tensor("token_embd.weight", (width, shape.vocabulary), head if gemma else kind)
    if not gemma:
        yield Tensor("output.weight", (width, shape.vocabulary), head)
    yield Tensor("output_norm.weight", (width,))
    for layer in range(shape.layers):
        eighth = shape.layers // 8
        better = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        more = "Q6_K" if better and quantization.endswith("_M") else kind
        name = f"blk.{layer}"
        query = shape.heads * shape.head_dim
        yield Tensor(f"{name}.attn_q.weight", (width, query), kind)
        yield Tensor(f"{name}.attn_k.weight", (width, kv), kind)
        yield Tensor(f"{name}.attn_v.weight", (width, kv), more)
        yield Tensor(f"{name}.attn_output.weight", (query, width), kind)
        yield Tensor(f"{name}.ffn_gate.weight", (width, shape.feed_forward), kind)
        yield Tensor(f"{name}.ffn_up.weight", (width, shape.feed_forward), kind)
        yield Tensor(f"{name}.ffn_down.weight", (shape.feed_forward, width), more)
        norms = ["attn_norm", "ffn_norm"]
        norms += ["post_attention_norm", "post_ffw_norm"] if gemma else []
        for norm in norms:
            yield Tensor(f"{name}.{norm}.weight", (width,))
        if gemma:
            yield Tensor(f"{name}.attn_q_norm.weight", (shape.head_dim,))
            yield Tensor(f"{name}.attn_k_norm.weight", (shape.head_dim,))
        if shape.architecture == "qwen2":
            yield Tensor(f"{name}.attn_q.bias", (query,))
            yield Tensor(f"{name}.attn_k.bias", (kv,))
            yield Tensor(f"{name}.attn_v.bias", (kv,))


def metadata_of(build: Build) -> dict[str, Any]:
    """The header's keys."""
    shape, a = build.shape, build.shape.architecture
    return {
        "general.architecture": a,
        "general.name": build.repository.removesuffix("-GGUF"),
        "general.file_type": FILE_TYPES[build.quantization],
        f"{a}.context_length": shape.context,
        f"{a}.embedding_length": shape.width,
        f"{a}.block_count": shape.layers,
        f"{a}.feed_forward_length": shape.feed_forward,
        f"{a}.attention.head_count": shape.heads,
        f"{a}.attention.head_count_kv": shape.kv_heads,
        f"{a}.attention.key_length": shape.head_dim,
        f"{a}.attention.value_length": shape.head_dim,
        f"{a}.vocab_size": shape.vocabulary,
        "tokenizer.ggml.model": "gpt2" if a == "qwen2" else "llama",
        "tokenizer.ggml.tokens": Array(STRING, [f"t{n}" for n in range(64)]),
        "tokenizer.ggml.scores": Array(F32, [0.0] * 64),
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }


def hf_tensors_of(shape: Shape) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a Llama-like Hugging Face checkpoint, BF16."""
    width, kv = shape.width, shape.kv_heads * shape.head_dim
    made: dict[str, tuple[str, tuple[int, ...]]] = {
        "model.embed_tokens.weight": ("BF16", (shape.vocabulary, width)),
        "lm_head.weight": ("BF16", (shape.vocabulary, width)),
        "model.norm.weight": ("BF16", (width,)),
    }
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        made |= {
            f"{name}.self_attn.q_proj.weight": ("BF16", (width, width)),
            f"{name}.self_attn.k_proj.weight": ("BF16", (kv, width)),
            f"{name}.self_attn.v_proj.weight": ("BF16", (kv, width)),
            f"{name}.self_attn.o_proj.weight": ("BF16", (width, width)),
            f"{name}.mlp.gate_proj.weight": ("BF16", (shape.feed_forward, width)),
            f"{name}.mlp.up_proj.weight": ("BF16", (shape.feed_forward, width)),
            f"{name}.mlp.down_proj.weight": ("BF16", (width, shape.feed_forward)),
            f"{name}.input_layernorm.weight": ("BF16", (width,)),
            f"{name}.post_attention_layernorm.weight": ("BF16", (width,)),
        }
    return made


def write_inventory(root: Path) -> dict[str, Path]:
    """Write all of it under `root`; paths by id."""
    made = {}
    for build in BUILDS:
        path = root / build.publisher / build.repository / build.file
        tensors = tensors_of(build.shape, build.quantization)
        made[build.id] = write_gguf(path, metadata_of(build), tensors)
    for name, shape in DIRECTORIES.items():
        config = hf_config(
            hidden_size=shape.width,
            intermediate_size=shape.feed_forward,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            num_hidden_layers=shape.layers,
            max_position_embeddings=shape.context,
            vocab_size=shape.vocabulary,
        )
        write_json(root / name / "config.json", config)
        write_json(root / name / "tokenizer.json", {"version": "1.0"})
        write_safetensors(root / name / "model.safetensors", hf_tensors_of(shape))
        made[name] = root / name
    return made
