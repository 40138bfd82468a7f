"""A large collection of models with real headers and sparse data, to measure the catalog with.

`python -m tests.make_collection DIRECTORY [MODELS]` makes 10,000 models in 1,000 directories: GGUF
repositories of eleven builds each, and a Hugging Face directory in every tenth. One model in ten
has a vocabulary of 32k to 256k tokens with its merges, as large models have; headers take about
5 GB of disk in all, the weights none.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from tests.make_models import (
    F32,
    I32,
    STRING,
    Array,
    Tensor,
    gguf_header,
    hf_config,
    safetensors_header,
    write_json,
)

MODELS = 10_000
DIRECTORIES = 1_000
VOCABULARIES = (32_000, 64_000, 128_256, 152_064, 256_000)
# A real chat template has this many characters.
_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}" * 50
)
# General file type -> the tensors' type; eleven builds of one model.
_BUILDS = {10: "Q2_K", 11: "Q3_K", 12: "Q3_K", 13: "Q3_K", 14: "Q4_K", 15: "Q4_K"}
_BUILDS |= {16: "Q5_K", 17: "Q5_K", 18: "Q6_K", 7: "Q8_0", 1: "F16"}
_PUBLISHERS, _LAYERS = 40, 32
# Old enough to be complete at first sight.
_OLD = 1_600_000_000


def tensors(kind: str, vocabulary: int) -> list[Tensor]:
    """The table of a Llama with 8 billion parameters, about 290 tensors."""
    made = [Tensor("token_embd.weight", (4096, vocabulary), kind)]
    made += [Tensor("output_norm.weight", (4096,)), Tensor("output.weight", (4096, vocabulary))]
    for layer in range(_LAYERS):
        for name, shape in (
            ("attn_q", (4096, 4096)),
            ("attn_k", (4096, 1024)),
            ("attn_v", (4096, 1024)),
            ("attn_output", (4096, 4096)),
            ("ffn_gate", (4096, 14336)),
            ("ffn_up", (4096, 14336)),
            ("ffn_down", (14336, 4096)),
        ):
            made.append(Tensor(f"blk.{layer}.{name}.weight", shape, kind))
        made.append(Tensor(f"blk.{layer}.attn_norm.weight", (4096,)))
        made.append(Tensor(f"blk.{layer}.ffn_norm.weight", (4096,)))
    return made


def vocabulary(size: int) -> dict[str, Any]:
    """A tokenizer's arrays: tokens, types, scores and as many merges."""
    chance = random.Random(size)
    letters = "abcdefghijklmnopqrstuvwxyz"

    def word(most: int) -> str:
        return "".join(chance.choices(letters, k=chance.randint(1, most)))

    return {
        "tokenizer.ggml.tokens": Array(STRING, [word(12) for _ in range(size)]),
        "tokenizer.ggml.token_type": Array(I32, [1] * size),
        "tokenizer.ggml.scores": Array(F32, [0.0] * size),
        "tokenizer.ggml.merges": Array(STRING, [f"{word(5)} {word(5)}" for _ in range(size)]),
    }


def metadata(name: str, file_type: int, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """What converters write today, some thirty keys."""
    return {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "general.basename": name,
        "general.size_label": "8B",
        "general.file_type": file_type,
        "general.license": "apache-2.0",
        "general.base_model.count": 1,
        "general.base_model.0.name": name,
        "general.base_model.0.organization": "Somebody",
        "general.tags": Array(STRING, ["text-generation", "chat"]),
        "general.languages": Array(STRING, ["en", "de", "fr"]),
        "general.quantization_version": 2,
        "llama.block_count": _LAYERS,
        "llama.context_length": 131_072,
        "llama.embedding_length": 4096,
        "llama.feed_forward_length": 14_336,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500_000.0,
        "llama.rope.dimension_count": 128,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": _TEMPLATE,
        **tokenizer,
    }


def _sparse(path: Path, header: bytes, data: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data)
    os.utime(path, (_OLD, _OLD))


class _Headers:
    """GGUF headers: a build's differ in nothing but the name, so each is made once."""

    _PLACE = "NNNNNNNNNNNNNNNNNNNN"

    def __init__(self) -> None:
        small = vocabulary(256)
        self._made = {
            (file_type, None): self._header(file_type, kind, 256, small)
            for file_type, kind in _BUILDS.items()
        }

    def get(self, name: str, file_type: int, tokens: int | None) -> tuple[bytes, int]:
        made = self._made.get((file_type, tokens))
        if made is None:
            assert tokens is not None
            # One build of each size: such a header has several megabytes.
            made = self._header(file_type, _BUILDS[file_type], tokens, vocabulary(tokens))
            self._made[file_type, tokens] = made
        place = self._PLACE.encode()
        return made[0].replace(place, name.ljust(len(place))[: len(place)].encode()), made[1]

    def _header(self, type: int, kind: str, size: int, words: dict[str, Any]) -> tuple[bytes, int]:
        return gguf_header(metadata(self._PLACE, type, words), tensors(kind, size))


def _write_hf(path: Path) -> None:
    """A Hugging Face directory with the tensors of two layers."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", hf_config(vocab_size=32_000))
    write_json(path / "tokenizer_config.json", {"chat_template": _TEMPLATE})
    made = {
        f"model.layers.{layer}.{name}.weight": ("BF16", (2048, 2048))
        for layer, name in product(range(2), ("q", "k", "v", "o"))
    }
    _sparse(path / "model.safetensors", *safetensors_header(made))
    for entry in path.iterdir():
        os.utime(entry, (_OLD, _OLD))


def make(directory: Path, models: int = MODELS) -> Iterator[Path]:
    """Make the collection; yields the path of every model that it has made."""
    chance = random.Random(7)
    headers = _Headers()
    builds = list(_BUILDS)
    for number in range(models):
        place = number % max(1, min(DIRECTORIES, models // 10))
        repository = directory / f"publisher-{place % _PUBLISHERS}" / f"model-{place}-8B-GGUF"
        build = number // DIRECTORIES
        if build == 0 and place % 10 == 9:
            path = directory / f"publisher-{place % _PUBLISHERS}" / f"model-{place}-8B"
            _write_hf(path)
        else:
            file_type = builds[build % len(builds)]
            tokens = None
            if number % 10 == build:
                tokens, file_type = chance.choice(VOCABULARIES), builds[build % 2]
            path = repository / f"model-{place}-8B-{number}.gguf"
            _sparse(path, *headers.get(f"Model {place} 8B", file_type, tokens))
        yield path


def main() -> None:
    """Make it where the command line says."""
    directory = Path(sys.argv[1])
    count = sum(1 for _ in make(directory, *map(int, sys.argv[2:])))
    print(f"{count} models in {directory}")


if __name__ == "__main__":
    main()
