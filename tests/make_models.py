"""Small synthetic models of every format, written with the standard library alone.

They have real headers and no sense in their weights: for tests of the catalog, not of engines.
Also a script: `python -m tests.make_models DIRECTORY` fills a directory with one of each kind.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hybridd.backends.gguf.types import TENSOR_TYPES

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?"}
_FORMATS |= {U64: "Q", I64: "q", F64: "d"}
_TYPE_NUMBERS = {made.name: number for number, made in TENSOR_TYPES.items()}


class Array(NamedTuple):
    """A GGUF array value."""

    kind: int
    items: Sequence[Any]


class Typed(NamedTuple):
    """A GGUF scalar of a type that Python's does not imply."""

    kind: int
    value: Any


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _kind(value: Any) -> int:
    if isinstance(value, Typed | Array):
        return value.kind if isinstance(value, Typed) else ARRAY
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return U32
    return F32 if isinstance(value, float) else STRING


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _text(value)
    return struct.pack("<" + _FORMATS[kind], value)


def _pair(key: str, value: Any) -> bytes:
    kind = _kind(value)
    made = _text(key) + struct.pack("<I", kind)
    if isinstance(value, Array):
        items = b"".join(_value(value.kind, item) for item in value.items)
        return made + struct.pack("<IQ", value.kind, len(value.items)) + items
    return made + _value(kind, value.value if isinstance(value, Typed) else value)


class Tensor(NamedTuple):
    """One entry of a tensor table."""

    name: str
    shape: tuple[int, ...]
    type: str = "F32"

    @property
    def bytes(self) -> int:
        made = TENSOR_TYPES[_TYPE_NUMBERS[self.type]]
        count = 1
        for n in self.shape:
            count *= n
        return count // made.block * made.bytes


def gguf_header(
    metadata: Mapping[str, Any], tensors: Iterable[Tensor], *, version: int = 3
) -> tuple[bytes, int]:
    """A GGUF header, padded, and how many bytes of data follow it."""
    tensors = list(tensors)
    alignment = int(metadata.get("general.alignment", 32))
    made = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    made += b"".join(_pair(key, value) for key, value in metadata.items())
    offset = 0
    for tensor in tensors:
        made += _text(tensor.name) + struct.pack("<I", len(tensor.shape))
        made += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        made += struct.pack("<IQ", _TYPE_NUMBERS[tensor.type], offset)
        offset += -(-tensor.bytes // alignment) * alignment
    end = (
        offset - (-(-tensors[-1].bytes // alignment) * alignment - tensors[-1].bytes)
        if tensors
        else 0
    )
    return made + bytes(-len(made) % alignment), end


def llama_metadata(**more: Any) -> dict[str, Any]:
    """Metadata of a small Llama; the keyword `a__b` stands for the key `a.b`, None removes it."""
    made: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Tiny Llama",
        "general.file_type": 15,
        "llama.context_length": 2048,
        "llama.embedding_length": 256,
        "llama.block_count": 2,
        "llama.feed_forward_length": 512,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": Array(STRING, [f"t{n}" for n in range(64)]),
        "tokenizer.ggml.scores": Array(F32, [0.0] * 64),
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    made.update({key.replace("__", "."): value for key, value in more.items()})
    return {key: value for key, value in made.items() if value is not None}


def llama_tensors(kind: str = "Q4_K") -> list[Tensor]:
    """Tensors to go with `llama_metadata`."""
    made = [Tensor("token_embd.weight", (256, 64), "Q6_K"), Tensor("output_norm.weight", (256,))]
    for layer in range(2):
        made.append(Tensor(f"blk.{layer}.attn_q.weight", (256, 256), kind))
        made.append(Tensor(f"blk.{layer}.ffn_up.weight", (256, 512), kind))
    return made


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any] | None = None,
    tensors: Iterable[Tensor] | None = None,
    *,
    version: int = 3,
    cut: int = 0,
) -> Path:
    """Write a GGUF file with sparse data; `cut` leaves off that many bytes of its end."""
    header, data = gguf_header(
        llama_metadata() if metadata is None else metadata,
        llama_tensors() if tensors is None else tensors,
        version=version,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data - cut)
    return path


def write_gguf_shards(stem: Path, count: int) -> list[Path]:
    """Write a model in `count` shards named `stem-00001-of-…`."""
    tensors = llama_tensors()
    paths = []
    for number in range(count):
        split = {"split.no": Typed(U16, number), "split.count": Typed(U16, count)}
        split["split.tensors.count"] = Typed(I32, len(tensors))
        metadata = {**llama_metadata(), **split} if number == 0 else split
        path = stem.with_name(f"{stem.name}-{number + 1:05d}-of-{count:05d}.gguf")
        paths.append(write_gguf(path, metadata, tensors[number::count]))
    return paths


_DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I32": 4, "F8_E4M3": 1, "I64": 8}


def safetensors_header(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> tuple[bytes, int]:
    """A safetensors header with its length, and how many bytes of data follow it."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = _DTYPE_BYTES[dtype]
        for n in shape:
            size *= n
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(entries).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw, at


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, Sequence[int]]] | None = None, *, cut: int = 0
) -> Path:
    """Write a safetensors file with sparse data."""
    header, data = safetensors_header(hf_tensors() if tensors is None else tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + data - cut)
    return path


def hf_tensors(dtype: str = "BF16") -> dict[str, tuple[str, Sequence[int]]]:
    """Tensors to go with `hf_config`."""
    made: dict[str, tuple[str, Sequence[int]]] = {"model.embed_tokens.weight": (dtype, (64, 32))}
    for layer in range(2):
        made[f"model.layers.{layer}.self_attn.q_proj.weight"] = (dtype, (32, 32))
        made[f"model.layers.{layer}.mlp.up_proj.weight"] = (dtype, (64, 32))
    return made


def hf_config(**more: Any) -> dict[str, Any]:
    """A config.json of a small Llama; None as a value leaves a key out."""
    made: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 1024,
        "vocab_size": 64,
        "dtype": "bfloat16",
        **more,
    }
    return {key: value for key, value in made.items() if value is not None}


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_hf(path: Path, *, shards: int = 1, dtype: str = "BF16", **config: Any) -> Path:
    """Write a Hugging Face directory that is complete."""
    write_json(path / "config.json", hf_config(**config))
    write_json(path / "tokenizer.json", {"version": "1.0"})
    write_json(path / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    write_json(path / "generation_config.json", {"temperature": 0.6, "top_p": 0.9, "top_k": 20})
    tensors = hf_tensors(dtype)
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors)
        return path
    index: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        mine = {key: tensors[key] for key in list(tensors)[number::shards]}
        write_safetensors(path / name, mine)
        index.update(dict.fromkeys(mine, name))
    write_json(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    return path


def write_echo(path: Path, **said: Any) -> Path:
    """Write an echo model."""
    return write_json(path, said)


def mutants(whole: bytes, head: int, count: int, seed: int) -> Iterator[bytes]:
    """Bent copies of a file: bytes, 64-bit fields, cuts and insertions within the header."""
    chance = random.Random(seed)
    lengths = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 8)
    for _ in range(count):
        made = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            at = chance.randrange(min(head, len(made) - 8))
            kind = chance.randrange(5)
            if kind == 0:
                made[at] = chance.randrange(256)
            elif kind == 1:
                made[at : at + 8] = struct.pack("<Q", chance.choice(lengths))
            elif kind == 2:
                made[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 9, 255, 2**32 - 1)))
            elif kind == 3:
                del made[at : at + chance.randrange(64)]
            else:
                made[at:at] = chance.randbytes(chance.randrange(16))
        yield bytes(made)


def memory_directory() -> tempfile.TemporaryDirectory[str]:
    """A directory in memory where there is one: thousands of small writes are slow on disks."""
    place = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else None)


def main(directory: Path) -> None:
    """One of each kind."""
    write_gguf(directory / "publisher" / "Tiny-Llama-GGUF" / "Tiny-Llama-Q4_K_M.gguf")
    write_gguf_shards(directory / "publisher" / "Split-GGUF" / "Split-Q4_K_M", 3)
    write_gguf(directory / "truncated-Q4_K_M.gguf", cut=64)
    write_hf(directory / "publisher" / "Tiny-Llama")
    write_hf(directory / "publisher" / "Tiny-Llama-Sharded", shards=2)
    write_echo(directory / "parrot.echo", reply="hello")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
