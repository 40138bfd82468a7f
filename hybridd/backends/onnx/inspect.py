"""From an ONNX directory's JSON files to facts; the graphs themselves are never parsed.

Two kinds: `genai_config.json` beside the graph (onnxruntime-genai), and a Hugging Face
`config.json` with the graph beside it or in `onnx/` (optimum, transformers.js). Every model of
this format comes with the reason that no engine serves it yet.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from hybridd.core.model import Facts

from ..bounded import plain, read_json, valid_text, whole

FORMAT = "onnx"
GENAI = "genai_config.json"
FOLDER = "onnx"
NO_ENGINE = "an ONNX model: hybridd recognises these, but has no engine for them yet"
# Real ones have under 100 KiB.
MAX_CONFIG_BYTES = 1024 * 1024
# Repositories with every precision have some twenty graphs.
MAX_FILES = 256

_WEIGHTS = (".onnx", ".onnx_data", ".onnx.data")
_GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForImageTextToText")
# How optimum and transformers.js name a graph's precision at the end of its name.
_PRECISIONS = {
    "fp16": "F16",
    "quantized": "int8",
    "int8": "int8",
    "uint8": "uint8",
    "bnb4": "bnb4",
    "q4": "int4",
    "q4f16": "int4",
    "int4": "int4",
}


def claims(names: Set[str]) -> bool:
    """Whether a directory is an ONNX model: a configuration with graphs, and no other weights."""
    if GENAI in names:
        return True
    if "config.json" not in names or any(name.endswith(".safetensors") for name in names):
        return False
    return f"{FOLDER}/" in names or any(name.endswith(".onnx") for name in names)


def inspect(path: Path) -> Facts:
    """Facts of the ONNX model in the directory `path`; always with a `reason`.

    Raises:
        ModelInvalid: Its configuration cannot be read.
        OSError: A file went away or cannot be read.
    """
    names = set(os.listdir(path))
    genai = GENAI in names
    said = read_json(path / (GENAI if genai else "config.json"), MAX_CONFIG_BYTES)
    model = said.get("model") if genai else said
    model = model if isinstance(model, dict) else {}
    decoder = model.get("decoder") if genai else model
    decoder = decoder if isinstance(decoder, dict) else {}
    files = _files(path, names)
    size = sum(size for _, size in files)
    reason = NO_ENGINE if files else "no weights: the directory has no .onnx file"
    kind = model.get("type") if genai else model.get("model_type")
    return Facts(
        format=FORMAT,
        files=tuple(file for file, _ in files),
        size_bytes=size,
        architecture=valid_text(kind[:128]) if isinstance(kind, str) and kind else None,
        quantization=_quantization([file.name for file, _ in files]),
        context_length=_first(model, "context_length", "max_position_embeddings", "n_positions"),
        capabilities=_capabilities(model, genai),
        weights_bytes=size,
        layers=_first(decoder, "num_hidden_layers", "n_layer"),
        heads=_first(decoder, "num_attention_heads", "n_head"),
        vocab_size=_first(model, "vocab_size"),
        embedding_length=_first(decoder, "hidden_size", "n_embd"),
        metadata={
            "kind": "model",
            "layout": "onnxruntime-genai" if genai else "optimum",
            "config": plain(said),
        },
        reason=reason,
    )


def _files(path: Path, names: Set[str]) -> list[tuple[Path, int]]:
    found = [path / name for name in names if name.endswith(_WEIGHTS)]
    if FOLDER in names and (path / FOLDER).is_dir():
        inside = os.listdir(path / FOLDER)
        found += [path / FOLDER / name for name in inside if name.endswith(_WEIGHTS)]
    return [(file, file.stat().st_size) for file in sorted(found)[:MAX_FILES] if file.is_file()]


def _capabilities(model: Mapping[str, Any], genai: bool) -> tuple[str, ...]:
    if genai:
        senses = [s for s, key in (("vision", "vision"), ("audio", "speech")) if key in model]
        return ("completion", *senses)
    architectures = model.get("architectures")
    listed = architectures if isinstance(architectures, list) else []
    if any(isinstance(name, str) and name.endswith(_GENERATIVE) for name in listed):
        return ("completion",)
    return ("embedding",) if "vocab_size" in model else ()


def _quantization(names: list[str]) -> str | None:
    """The precision, where all graphs have one in their names."""
    graphs = [name.removesuffix(".onnx") for name in names if name.endswith(".onnx")]
    found = {_PRECISIONS.get(name.rpartition("_")[2]) for name in graphs}
    return found.pop() if len(found) == 1 else None


def _first(config: Mapping[str, Any], *keys: str) -> int | None:
    for key in keys:
        found = whole(config.get(key), 1)
        if found is not None:
            return found
    return None
