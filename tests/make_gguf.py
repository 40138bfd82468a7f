"""Random-weight GGUF models of several architectures that llama.cpp loads and runs.

They make no sense but they compute: for tests of engines. Deterministic by name. Also a script:
`python -m tests.make_gguf DIRECTORY [NAME…]` writes them, some hundred kilobytes each.

Shapes and names of tensors are llama.cpp's (`src/models/*.cpp`). NumPy's order of dimensions is the
reverse of ggml's: a matrix from n to m has the shape (m, n) here.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np  # noqa: TID253 - gguf, which this needs, imports it anyway
import numpy.typing as npt  # noqa: TID253

from tests.gguf_vocabulary import (
    COMMON_WORDS,
    Vocabulary,
    byte_pairs,
    sentence_pieces,
    word_pieces,
)

HIDDEN, FEED_FORWARD = 64, 128
HEADS, KV_HEADS, HEAD = 2, 1, 32  # a head of 32 allows every quantized KV cache
CONTEXT = 1024
STATE, CONVOLUTION, STEP_RANK = 16, 4, 8
EXPERTS, EXPERTS_USED, EXPERT_FEED_FORWARD = 4, 2, 64
# With logits this far apart two tokens are hardly ever so close that rounding decides.
LOGIT_SPREAD = 4.0

Array = npt.NDArray[np.float32]


class ModelFile:
    """A GGUF file in the making.

    Args:
        seed: What its weights come from.
    """

    def __init__(self, path: Path, architecture: str, name: str, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = gguf.GGUFWriter(path, architecture)
        self._writer.add_name(name)
        self._writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        self._architecture = architecture
        self._chance = np.random.default_rng(seed)

    def facts(self, **values: Any) -> None:
        """Add keys of the architecture; `a__b` stands for `a.b`."""
        for key, value in values.items():
            name = f"{self._architecture}.{key.replace('__', '.')}"
            if isinstance(value, str):
                self._writer.add_string(name, value)
            elif isinstance(value, bool):
                self._writer.add_bool(name, value)
            elif isinstance(value, float):
                self._writer.add_float32(name, value)
            elif isinstance(value, list):
                self._writer.add_array(name, value)
            else:
                self._writer.add_uint32(name, value)

    def vocabulary(self, vocabulary: Vocabulary) -> None:
        """Add the tokenizer."""
        vocabulary.write(self._writer)

    def token_types(self, count: int) -> None:
        """Say how many kinds of segments there are; the key is the tokenizer's."""
        self._writer.add_token_type_count(count)

    def tensor(self, name: str, values: Array) -> None:
        """Add a tensor as it is."""
        self._writer.add_tensor(name, values.astype(np.float32))

    def matrix(self, name: str, *shape: int, scale: float = 1.0) -> None:
        """Add random weights that keep the size of what they are applied to, times `scale`."""
        spread = scale / np.sqrt(shape[-1])
        self.tensor(f"{name}.weight", self._chance.standard_normal(shape, np.float32) * spread)

    def norm(self, name: str, size: int, bias: bool = False) -> None:
        """Add the weights of a norm, near one, and its bias, near zero."""
        self.tensor(f"{name}.weight", 1 + 0.1 * self._chance.standard_normal(size, np.float32))
        if bias:
            self.bias(name, size)

    def bias(self, name: str, size: int, around: float = 0.0) -> None:
        """Add a bias."""
        values = around + 0.1 * self._chance.standard_normal(size, np.float32)
        self.tensor(f"{name}.bias", values)

    def close(self) -> None:
        """Write the file."""
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()


# ---------------------------------------------------------------- the parts of a model


def transformer_facts(model: ModelFile, layers: int, **more: Any) -> None:
    """What every model with attention says."""
    facts: dict[str, Any] = {
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "block_count": layers,
        "feed_forward_length": FEED_FORWARD,
        "attention__head_count": HEADS,
        "attention__head_count_kv": KV_HEADS,
        "attention__key_length": HEAD,
        "attention__value_length": HEAD,
        "attention__layer_norm_rms_epsilon": 1e-6,
        "rope__freq_base": 10000.0,
        **more,
    }
    model.facts(**facts)


def ends(model: ModelFile, words: int, norm: str = "output_norm") -> None:
    """The embedding, the last norm and the output, which are not tied: tied and random ones
    mostly repeat the last token.
    """
    model.matrix("token_embd", words, HIDDEN, scale=np.sqrt(HIDDEN))
    model.norm(norm, HIDDEN)
    model.matrix("output", words, HIDDEN, scale=LOGIT_SPREAD)


def attention(model: ModelFile, block: str, *, bias: bool = False, norms: bool = False) -> None:
    """One block's attention; `norms` are those of queries and keys."""
    model.norm(f"{block}.attn_norm", HIDDEN)
    for name, heads in (("attn_q", HEADS), ("attn_k", KV_HEADS), ("attn_v", KV_HEADS)):
        model.matrix(f"{block}.{name}", heads * HEAD, HIDDEN)
        if bias:
            model.bias(f"{block}.{name}", heads * HEAD)
    if norms:
        model.norm(f"{block}.attn_q_norm", HEAD)
        model.norm(f"{block}.attn_k_norm", HEAD)
    model.matrix(f"{block}.attn_output", HIDDEN, HEADS * HEAD)


def feed_forward(model: ModelFile, block: str) -> None:
    """One block's gated feed-forward network."""
    model.norm(f"{block}.ffn_norm", HIDDEN)
    model.matrix(f"{block}.ffn_gate", FEED_FORWARD, HIDDEN)
    model.matrix(f"{block}.ffn_up", FEED_FORWARD, HIDDEN)
    model.matrix(f"{block}.ffn_down", HIDDEN, FEED_FORWARD)


def state_space(model: ModelFile, block: str, *, norms: bool = False) -> None:
    """One block's Mamba part; `norms` are Jamba's."""
    inner = 2 * HIDDEN  # llama.cpp knows no other
    model.norm(f"{block}.attn_norm", HIDDEN)
    model.matrix(f"{block}.ssm_in", 2 * inner, HIDDEN)
    model.matrix(f"{block}.ssm_conv1d", inner, CONVOLUTION)
    model.bias(f"{block}.ssm_conv1d", inner)
    model.matrix(f"{block}.ssm_x", STEP_RANK + 2 * STATE, inner)
    model.matrix(f"{block}.ssm_dt", inner, STEP_RANK)
    model.bias(f"{block}.ssm_dt", inner, around=-3.0)  # small steps: the state fades slowly
    if norms:
        for name, size in (("ssm_dt_norm", STEP_RANK), ("ssm_b_norm", STATE)):
            model.norm(f"{block}.{name}", size)
        model.norm(f"{block}.ssm_c_norm", STATE)
    decay = -np.arange(1, STATE + 1, dtype=np.float32)
    model.tensor(f"{block}.ssm_a", np.tile(decay, (inner, 1)))
    model.tensor(f"{block}.ssm_d", np.ones(inner, np.float32))
    model.matrix(f"{block}.ssm_out", HIDDEN, inner)


STATE_SPACE_FACTS: Mapping[str, int] = {
    "ssm__conv_kernel": CONVOLUTION,
    "ssm__inner_size": 2 * HIDDEN,
    "ssm__state_size": STATE,
    "ssm__time_step_rank": STEP_RANK,
}


# ---------------------------------------------------------------- the models


def _dense(model: ModelFile, *, bias: bool = False, norms: bool = False) -> None:
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    transformer_facts(model, 2)
    ends(model, len(vocabulary))
    for layer in range(2):
        attention(model, f"blk.{layer}", bias=bias, norms=norms)
        feed_forward(model, f"blk.{layer}")


def _llama(model: ModelFile) -> None:
    model.facts(rope__dimension_count=HEAD)
    _dense(model)


def _qwen2(model: ModelFile) -> None:
    _dense(model, bias=True)


def _qwen3(model: ModelFile) -> None:
    _dense(model, norms=True)


def _gemma3(model: ModelFile) -> None:
    """Five layers look back 64 tokens, the sixth looks back at all."""
    vocabulary = sentence_pieces()
    model.vocabulary(vocabulary)
    transformer_facts(model, 6, attention__sliding_window=64)
    ends(model, len(vocabulary))
    for layer in range(6):
        block = f"blk.{layer}"
        attention(model, block, norms=True)
        feed_forward(model, block)
        model.norm(f"{block}.post_attention_norm", HIDDEN)
        model.norm(f"{block}.post_ffw_norm", HIDDEN)


def _qwen3moe(model: ModelFile) -> None:
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    transformer_facts(
        model,
        2,
        expert_count=EXPERTS,
        expert_used_count=EXPERTS_USED,
        expert_feed_forward_length=EXPERT_FEED_FORWARD,
    )
    ends(model, len(vocabulary))
    for layer in range(2):
        block = f"blk.{layer}"
        attention(model, block, norms=True)
        model.norm(f"{block}.ffn_norm", HIDDEN)
        model.matrix(f"{block}.ffn_gate_inp", EXPERTS, HIDDEN)
        model.matrix(f"{block}.ffn_gate_exps", EXPERTS, EXPERT_FEED_FORWARD, HIDDEN)
        model.matrix(f"{block}.ffn_up_exps", EXPERTS, EXPERT_FEED_FORWARD, HIDDEN)
        model.matrix(f"{block}.ffn_down_exps", EXPERTS, HIDDEN, EXPERT_FEED_FORWARD)


def _mamba(model: ModelFile) -> None:
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    model.facts(
        context_length=CONTEXT,
        embedding_length=HIDDEN,
        block_count=2,
        feed_forward_length=0,
        attention__head_count=0,
        attention__layer_norm_rms_epsilon=1e-6,
        **STATE_SPACE_FACTS,
    )
    ends(model, len(vocabulary))
    for layer in range(2):
        state_space(model, f"blk.{layer}")


def _jamba(model: ModelFile) -> None:
    """Mamba layers and one of attention between them."""
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    with_attention = (False, True, False)
    kv_heads = [KV_HEADS if attends else 0 for attends in with_attention]
    transformer_facts(model, 3, attention__head_count_kv=kv_heads, **STATE_SPACE_FACTS)
    ends(model, len(vocabulary))
    for layer, attends in enumerate(with_attention):
        block = f"blk.{layer}"
        if attends:
            attention(model, block)
        else:
            state_space(model, block, norms=True)
        feed_forward(model, block)


def _lfm2(model: ModelFile) -> None:
    """Short convolutions and one layer of attention between them."""
    vocabulary = byte_pairs(COMMON_WORDS)
    model.vocabulary(vocabulary)
    with_attention = (False, True, False)
    kv_heads = [KV_HEADS if attends else 0 for attends in with_attention]
    transformer_facts(model, 3, attention__head_count_kv=kv_heads, shortconv__l_cache=3)
    ends(model, len(vocabulary), norm="token_embd_norm")
    for layer, attends in enumerate(with_attention):
        block = f"blk.{layer}"
        if attends:
            attention(model, block, norms=True)
        else:
            model.norm(f"{block}.attn_norm", HIDDEN)
            model.matrix(f"{block}.shortconv.conv", HIDDEN, 3)
            model.matrix(f"{block}.shortconv.in_proj", 3 * HIDDEN, HIDDEN)
            model.matrix(f"{block}.shortconv.out_proj", HIDDEN, HIDDEN)
        feed_forward(model, block)


def _bert(model: ModelFile, pooling: int = gguf.PoolingType.MEAN) -> None:
    vocabulary = word_pieces()
    model.vocabulary(vocabulary)
    model.facts(
        context_length=CONTEXT // 2,
        embedding_length=HIDDEN,
        block_count=2,
        feed_forward_length=FEED_FORWARD,
        attention__head_count=HEADS,
        attention__layer_norm_epsilon=1e-12,
        attention__causal=False,
        pooling_type=int(pooling),
    )
    model.token_types(2)
    model.matrix("token_embd", len(vocabulary), HIDDEN)
    model.matrix("token_types", 2, HIDDEN)
    model.matrix("position_embd", CONTEXT // 2, HIDDEN)
    model.norm("token_embd_norm", HIDDEN, bias=True)
    for layer in range(2):
        block = f"blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            model.matrix(f"{block}.{name}", HIDDEN, HIDDEN)
            model.bias(f"{block}.{name}", HIDDEN)
        model.norm(f"{block}.attn_output_norm", HIDDEN, bias=True)
        model.matrix(f"{block}.ffn_up", FEED_FORWARD, HIDDEN)
        model.bias(f"{block}.ffn_up", FEED_FORWARD)
        model.matrix(f"{block}.ffn_down", HIDDEN, FEED_FORWARD)
        model.bias(f"{block}.ffn_down", HIDDEN)
        model.norm(f"{block}.layer_output_norm", HIDDEN, bias=True)


def _reranker(model: ModelFile) -> None:
    _bert(model, gguf.PoolingType.RANK)
    model.matrix("cls", HIDDEN, HIDDEN)
    model.bias("cls", HIDDEN)
    model.matrix("cls.output", 1, HIDDEN)
    model.bias("cls.output", 1)


def write_adapter(
    path: Path,
    *,
    seed: int = 1,
    architecture: str = "llama",
    width: int = HIDDEN,
    kind: npt.DTypeLike = np.float32,
) -> Path:
    """Write a LoRA adapter for the tiny model of an architecture, strong enough to change texts."""
    rank, chance = 4, np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    for layer in range(2):
        for name, size in (("attn_q", HEADS * HEAD), ("ffn_up", FEED_FORWARD)):
            tensor = f"blk.{layer}.{name}.weight"
            first = chance.standard_normal((rank, width)) / np.sqrt(width)
            second = chance.standard_normal((size, rank))
            writer.add_tensor(f"{tensor}.lora_a", first.astype(kind))
            writer.add_tensor(f"{tensor}.lora_b", second.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# Name -> architecture, recipe.
MODELS: Mapping[str, tuple[str, Callable[[ModelFile], None]]] = {
    "tiny-llama": ("llama", _llama),
    "tiny-qwen2": ("qwen2", _qwen2),
    "tiny-qwen3": ("qwen3", _qwen3),
    "tiny-gemma3": ("gemma3", _gemma3),
    "tiny-qwen3moe": ("qwen3moe", _qwen3moe),
    "tiny-mamba": ("mamba", _mamba),
    "tiny-jamba": ("jamba", _jamba),
    "tiny-lfm2": ("lfm2", _lfm2),
    "tiny-bert": ("bert", _bert),
    "tiny-reranker": ("bert", _reranker),
}
GENERATING = tuple(name for name, (kind, _) in MODELS.items() if kind != "bert")


def write_tiny(name: str, directory: Path) -> Path:
    """Write one of `MODELS`; the same bytes each time."""
    architecture, recipe = MODELS[name]
    path = directory / f"{name}-F32.gguf"
    model = ModelFile(path, architecture, name, zlib.crc32(name.encode()))
    recipe(model)
    model.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("name", nargs="*", help="of those to write; all by default")
    arguments = parser.parse_args()
    for name in arguments.name or MODELS:
        path = write_tiny(name, arguments.directory)
        print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
