"""Random-weight models of real shapes for benchmarks: 0.1 B and 0.5 B, Qwen2's, Q4_K_M.

    python -m tests.bench.gguf_models [0.1b 0.5b] [--directory DIR]

They are made once (a minute or two, some 1.5 GB on the way) into DIR, which is by default
`$HYBRIDD_BENCH_MODELS`, else `hybridd-bench` in the user's cache directory.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np  # noqa: TID253 - gguf, which this needs, imports it anyway

from tests.gguf_vocabulary import byte_pairs, made_up_words

VOCABULARY = 151_936  # Qwen2's
WORDS = 40_000  # more than fit; the vocabulary ends where it is full
CONTEXT = 32_768
HEAD = 64
_Q4_K_M = 15  # `enum llama_ftype`
_SPREAD = 0.02


class Shape(NamedTuple):
    """A dense model. Heads have 64 elements."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    feed_forward: int


SHAPES = {
    "0.1b": Shape(layers=12, hidden=512, heads=8, kv_heads=2, feed_forward=1536),
    "0.5b": Shape(layers=24, hidden=896, heads=14, kv_heads=2, feed_forward=4864),  # Qwen2 0.5B
}


def default_directory() -> Path:
    """Where the models are kept, outside of any repository."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HYBRIDD_BENCH_MODELS") or Path(cache) / "hybridd-bench")


def words() -> list[str]:
    """Distinct words, each of which is one token of the models behind a space."""
    return list(dict.fromkeys(itertools.islice(made_up_words(), 20_000)))


def model_path(size: str, directory: Path | None = None) -> Path:
    """The Q4_K_M file of a size; makes it if it is missing."""
    directory = directory or default_directory()
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"bench-{size}-Q4_K_M.gguf"
    if not path.exists():
        whole = path.with_suffix(".f16.part")
        _write(SHAPES[size], whole, f"Bench {size}")
        _quantize(whole, path)
        whole.unlink()
    return path


def _write(shape: Shape, path: Path, name: str) -> None:
    writer = gguf.GGUFWriter(path, "qwen2", use_temp_file=False)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    vocabulary = byte_pairs(itertools.islice(made_up_words(), 10**7), VOCABULARY)
    assert len(vocabulary) == VOCABULARY
    vocabulary.write(writer)
    chance = np.random.default_rng(shape.hidden)

    def matrix(name: str, *size: int) -> None:
        values = chance.standard_normal(size, np.float32) * _SPREAD
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, np.float32))

    matrix("token_embd", VOCABULARY, shape.hidden)  # the output is tied to it, as Qwen2's
    vector("output_norm.weight", shape.hidden, 1.0)
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        vector(f"{block}.attn_norm.weight", shape.hidden, 1.0)
        for part, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            matrix(f"{block}.attn_{part}", heads * HEAD, shape.hidden)
            vector(f"{block}.attn_{part}.bias", heads * HEAD, 0.0)
        matrix(f"{block}.attn_output", shape.hidden, shape.heads * HEAD)
        vector(f"{block}.ffn_norm.weight", shape.hidden, 1.0)
        matrix(f"{block}.ffn_gate", shape.feed_forward, shape.hidden)
        matrix(f"{block}.ffn_up", shape.feed_forward, shape.hidden)
        matrix(f"{block}.ffn_down", shape.hidden, shape.feed_forward)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantize(source: Path, target: Path) -> None:
    from llama_cpp import llama_cpp as llama

    part = target.with_suffix(".part")
    params = llama.llama_model_quantize_default_params()
    params.ftype = _Q4_K_M
    result = llama.llama_model_quantize(os.fsencode(source), os.fsencode(part), params)
    if result != 0:
        raise RuntimeError(f"llama_model_quantize answered {result}")
    part.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="*", choices=[[], *SHAPES], help="both by default")
    parser.add_argument("--directory", type=Path, default=default_directory())
    arguments = parser.parse_args()
    for size in arguments.size or SHAPES:
        path = model_path(size, arguments.directory)
        print(f"{path}  {path.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
